"""What ``restorer restore`` does with folders and URLs: plan, restore, sum up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restorer.audio_out import choose_format
from restorer.batch import (
    REPORT_NAME,
    STATUSES,
    BatchWorker,
    LocalWorker,
    Outcome,
    Settings,
    make_folder,
    make_report,
    preview,
    run_batch,
    summary_table,
)
from restorer.batch_plan import Job, plan_jobs
from restorer.batch_record import Record, model_sha256, read_model, write_json
from restorer.batch_screen import Screen
from restorer.errors import RestorerError
from restorer.folder_lock import locked_folder
from restorer.object_store import Location
from restorer.restore_pictures import BatchPictures

if TYPE_CHECKING:
    from restorer.restore_command import Options
    from restorer.restorer import Restorer

_DEFAULT_FORMAT = "flac"
_MOST_BARS = 16


def restore_batch(sources: tuple[Location, ...], out: Location, options: Options) -> None:
    """Restore everything in `sources` into the folder `out`; exit status 1 if a file failed.

    Raises
    ------
    RestorerError : nothing can be done at all: no input, an impossible format, model or folder.
    """
    suffix = f".{options.audio_format or _DEFAULT_FORMAT}"
    choose_format(Path(f"x{suffix}"), options.subtype)
    jobs = plan_jobs(sources, out, suffix, options.seeds)
    pictures = BatchPictures(options.png, jobs)
    settings = Settings(options.mix, options.subtype, options.overwrite, options.forced, options.brightness)
    sha256 = model_sha256(options.model)
    record = Record(out, sha256, settings.as_key())
    todo = sum(not record.is_done(job) for job in jobs)
    if options.dry_run:
        if todo:
            _load(options, "cpu" if options.cluster else options.device, 1)  # a real run would refuse, too
        _show_preview(jobs, record, settings, out)
        return

    model: dict[str, Any] = {"sha256": sha256}
    outcomes: list[Outcome] = []
    shown = {"format": suffix[1:], "seeds": list(options.seeds), **settings.as_key()}
    most = options.jobs or (1 if options.cluster is None else _MOST_BARS)
    with (
        Screen(jobs, min(most, _MOST_BARS, len(jobs))) as screen,
        _workers(options, todo, model, screen.say) as workers,
        ExitStack() as locks,
    ):
        if isinstance(out, Path):
            make_folder(out)
            locks.enter_context(locked_folder(out))
            record = Record(out, sha256, settings.as_key())  # another run may have ended meanwhile
        try:
            with closing(run_batch(workers, jobs, record, settings, screen)) as running:
                for outcome in running:
                    outcomes.append(outcome)
                    _tell(outcome, screen)
                    _draw(pictures, outcome, screen)
        finally:
            write_json(out / REPORT_NAME, make_report(outcomes, model, shown))
    click.echo(summary_table(outcomes, out))
    click.echo(f"{_sums(outcomes)}; report: {out / REPORT_NAME}")
    _exit(outcomes)


@contextmanager
def _workers(
    options: Options, todo: int, model: dict[str, Any], tell: Callable[[str], None]
) -> Iterator[Sequence[BatchWorker]]:
    """Who does `todo` jobs; `model` gets what the report says of it. The model is loaded only if there is a job."""
    if not todo:
        yield []
        return
    if options.cluster is None:
        jobs = options.jobs or 1
        threads = options.threads or (max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None)
        restorer = _load(options, options.device, threads)
        model |= {"name": restorer.model_info.name, "version": restorer.model_info.version, "device": restorer.device}
        yield [LocalWorker(restorer)] * min(jobs, todo)
        return
    from restorer.batch_ray import ray_workers

    device = options.cluster.choose_device(options.device)
    info = _load(options, "cpu", 1).model_info  # is it a model at all, before it travels
    model |= {"name": info.name, "version": info.version, "device": device}
    data = read_model(options.model)
    with ray_workers(options.cluster, data, device, options.threads, todo, tell) as actors:
        yield actors


def _load(options: Options, device: str, threads: int | None) -> Restorer:
    """The model, which can do what is asked of it, or the error that says why not."""
    from restorer import Restorer

    restorer = Restorer(options.model, device=device, threads=threads)
    restorer.check_brightness(options.brightness)
    return restorer


def _show_preview(jobs: list[Job], record: Record, settings: Settings, out: Location) -> None:
    outcomes = list(preview(jobs, record, settings))
    click.echo(summary_table(outcomes, out))
    click.echo(f"Dry run, nothing was written: {_sums(outcomes)}")
    _exit(outcomes)


def _tell(outcome: Outcome, screen: Screen) -> None:
    for warning in outcome.warnings:
        screen.say(f"Warning: {warning}")
    if outcome.status == "failed":
        named = outcome.source in outcome.note
        screen.say(f"Failed: {outcome.note}" if named else f"Failed: {outcome.source}: {outcome.note}")
    elif outcome.status == "copied":
        screen.say(f"Note: {outcome.source}: {outcome.note} (--force restores it)")


def _draw(pictures: BatchPictures, outcome: Outcome, screen: Screen) -> None:
    try:
        pictures.draw(outcome)
    except RestorerError as error:  # the sound is there, and the rest goes on
        screen.say(f"Warning: no picture of {outcome.target}: {' '.join(str(error).split())}")


def _sums(outcomes: list[Outcome]) -> str:
    counts = [f"{sum(o.status == status for o in outcomes)} {status}" for status in STATUSES]
    return f"{len(outcomes)} files: {', '.join(counts)}"


def _exit(outcomes: list[Outcome]) -> None:
    if any(outcome.status == "failed" for outcome in outcomes):
        click.get_current_context().exit(1)
