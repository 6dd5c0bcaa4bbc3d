"""What ``restorer restore`` does with folders: plan, restore, sum up."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restorer.audio_out import choose_format
from restorer.batch import (
    REPORT_NAME,
    STATUSES,
    Outcome,
    Settings,
    make_report,
    preview,
    run_batch,
    summary_table,
)
from restorer.batch_plan import Job, plan_jobs
from restorer.batch_record import Record, model_sha256, write_json
from restorer.batch_screen import Screen
from restorer.errors import AudioFileError

if TYPE_CHECKING:
    from restorer.restore_command import Options

_DEFAULT_FORMAT = "flac"


def restore_batch(sources: tuple[Path, ...], out: Path, options: Options) -> None:
    """Restore everything in `sources` into the folder `out`; exit status 1 if a file failed.

    Raises
    ------
    RestorerError : nothing can be done at all: no input, an impossible format, model or folder.
    """
    suffix = f".{options.audio_format or _DEFAULT_FORMAT}"
    choose_format(Path(f"x{suffix}"), options.subtype)
    jobs = plan_jobs(sources, out, suffix, options.seeds)
    settings = Settings(options.mix, options.subtype, options.overwrite, options.forced)
    sha256 = model_sha256(options.model)
    record = Record(out, sha256, settings.as_key())
    if options.dry_run:
        _show_preview(jobs, record, settings, out)
        return

    restorer = None
    model: dict[str, Any] = {"sha256": sha256}
    if not all(record.is_done(job) for job in jobs):
        from restorer import Restorer

        threads = options.threads or (max(1, (os.cpu_count() or 1) // options.jobs) if options.jobs > 1 else None)
        restorer = Restorer(options.model, device=options.device, threads=threads)
        model |= {"name": restorer.model_info.name, "version": restorer.model_info.version, "device": restorer.device}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot write to {out}: {error.strerror or error}") from error

    workers = min(options.jobs, len(jobs))
    outcomes: list[Outcome] = []
    shown = {"format": suffix[1:], "seeds": list(options.seeds), **settings.as_key()}
    try:
        with (
            Screen(jobs, workers) as screen,
            closing(run_batch(restorer, jobs, record, settings, screen, workers)) as running,
        ):
            for outcome in running:
                outcomes.append(outcome)
                _tell(outcome, screen)
    finally:
        write_json(out / REPORT_NAME, make_report(outcomes, model, shown))
    click.echo(summary_table(outcomes, out))
    click.echo(f"{_sums(outcomes)}; report: {out / REPORT_NAME}")
    _exit(outcomes)


def _show_preview(jobs: list[Job], record: Record, settings: Settings, out: Path) -> None:
    outcomes = list(preview(jobs, record, settings))
    click.echo(summary_table(outcomes, out))
    click.echo(f"Dry run, nothing was written: {_sums(outcomes)}")
    _exit(outcomes)


def _tell(outcome: Outcome, screen: Screen) -> None:
    for warning in outcome.warnings:
        screen.say(f"Warning: {warning}")
    if outcome.status == "failed":
        screen.say(f"Failed: {outcome.source}: {outcome.note}")
    elif outcome.status == "copied":
        screen.say(f"Note: {outcome.source}: {outcome.note}; it was copied unprocessed (--force restores it)")


def _sums(outcomes: list[Outcome]) -> str:
    counts = [f"{sum(o.status == status for o in outcomes)} {status}" for status in STATUSES]
    return f"{len(outcomes)} files: {', '.join(counts)}"


def _exit(outcomes: list[Outcome]) -> None:
    if any(outcome.status == "failed" for outcome in outcomes):
        click.get_current_context().exit(1)
