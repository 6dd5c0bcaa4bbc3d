"""Many files are restored one after another or side by side; a bad one does not stop the rest."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorer.audio_in import AudioReader
from restorer.audio_out import check_target
from restorer.batch_plan import Job
from restorer.batch_record import Record
from restorer.batch_screen import Screen
from restorer.errors import RestorerError
from restorer.inspection import inspect_file

if TYPE_CHECKING:
    from restorer.restorer import Restorer

REPORT_NAME = "restorer-report.json"
STATUSES = ("restored", "copied", "skipped", "failed")


@dataclass(frozen=True)
class Settings:
    """What is the same for all files of a batch; `subtype` is "16", "24", "float" or None."""

    mix: float = 1.0
    subtype: str | None = None
    overwrite: bool = False
    force: bool = False

    def as_key(self) -> dict[str, Any]:
        """Those that change what is in an output."""
        return {"mix": self.mix, "subtype": self.subtype, "force": self.force}


@dataclass(frozen=True)
class Outcome:
    """What became of one job: `status` is one of STATUSES, `note` says why where that is not plain."""

    source: str
    target: str
    seed: int
    status: str
    seconds: float = 0.0
    elapsed_seconds: float = 0.0
    clipped_samples: int = 0
    note: str = ""
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


class _StoppedError(Exception):
    """The batch was interrupted; the file in work is given up."""


def preview(jobs: Sequence[Job], record: Record, settings: Settings) -> Iterator[Outcome]:
    """Say what `run_batch` would do with each job; files are inspected, and nothing is written."""
    for job in jobs:
        try:
            yield _skipped(job) if record.is_done(job) else _preview(job, record, settings)
        except (RestorerError, OSError) as error:
            yield _failed(job, error)


def run_batch(
    restorer: Restorer | None,
    jobs: Sequence[Job],
    record: Record,
    settings: Settings,
    screen: Screen,
    workers: int = 1,
) -> Generator[Outcome, None, None]:
    """Do all jobs, `workers` at a time, and yield outcomes as they come; what is done is skipped.

    The model is shared by all workers. `restorer` may be None where the record has all jobs as done. If the
    consumer stops or is interrupted, files in work are given up and leave nothing behind.
    """
    stop = threading.Event()
    record.sweep(jobs)
    with ThreadPoolExecutor(workers, thread_name_prefix="restore") as pool, _sigterm_interrupts():
        todo: dict[Future[Outcome], Job] = {}
        try:
            for job in jobs:
                if record.is_done(job) or restorer is None:
                    screen.finish(job)
                    yield _skipped(job, record.action(job))
                else:
                    todo[pool.submit(_do, restorer, job, record, settings, screen, stop)] = job
            for future in as_completed(todo):
                yield future.result()
        finally:
            stop.set()
            for future in todo:
                future.cancel()


def _do(
    restorer: Restorer, job: Job, record: Record, settings: Settings, screen: Screen, stop: threading.Event
) -> Outcome:
    from restorer.restoring import restore_or_copy

    def progress(done: int, total: int) -> None:
        if stop.is_set():
            raise _StoppedError
        screen.advance(job, done / max(total, 1))

    begun = False
    screen.start(job)
    try:
        overwrite = settings.overwrite or record.is_ours(job)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        _check(job, settings, overwrite)
        record.begin(job)
        begun = True
        report, found = restore_or_copy(
            restorer,
            job.source,
            job.target,
            seed=job.seed,
            mix=settings.mix,
            overwrite=overwrite,
            subtype=settings.subtype,
            force=settings.force,
            progress=progress,
        )
        status = "copied" if found else "restored"
        begun = False
        record.finish(job, status)
    except _StoppedError:
        return Outcome(str(job.source), str(job.target), job.seed, "failed", note="interrupted")
    except Exception as error:  # whatever is wrong with one file, or a bug that it triggers: the rest goes on
        return _failed(job, error)
    finally:
        if begun:
            with suppress(RestorerError):  # a full disk, of which the outcome tells
                record.abandon(job)
        screen.finish(job)
    return Outcome(
        source=str(job.source),
        target=str(job.target),
        seed=job.seed,
        status=status,
        seconds=round(report.seconds, 3),
        elapsed_seconds=round(report.elapsed_seconds, 3),
        clipped_samples=report.clipped_samples,
        note=found.reason if found else "",
        warnings=report.warnings,
    )


def _check(job: Job, settings: Settings, overwrite: bool) -> None:
    with AudioReader(job.source) as reader:
        channels = reader.channels
    check_target(job.source, job.target, overwrite, settings.subtype, channels)


def _preview(job: Job, record: Record, settings: Settings) -> Outcome:
    overwrite = settings.overwrite or record.is_ours(job)
    if job.target.parent.is_dir():
        _check(job, settings, overwrite)
    found = inspect_file(job.source, count_clipped=False)
    status = "copied" if found.transparent and not settings.force else "restored"
    return Outcome(str(job.source), str(job.target), job.seed, status, seconds=found.seconds, note=found.reason)


def _skipped(job: Job, action: str = "") -> Outcome:
    note = f"{action or 'made'} before from the same input, model and settings"
    return Outcome(str(job.source), str(job.target), job.seed, "skipped", note=note)


def _failed(job: Job, error: Exception) -> Outcome:
    kind = "" if isinstance(error, RestorerError) else f"{type(error).__name__}: "
    note = kind + " ".join(str(error).split())
    return Outcome(str(job.source), str(job.target), job.seed, "failed", note=note)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the batch as Ctrl-C does, with nothing half done left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_report(outcomes: Sequence[Outcome], model: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The JSON report of a batch."""
    return {
        "model": model,
        "settings": settings,
        "files": len(outcomes),
        **{status: sum(outcome.status == status for outcome in outcomes) for status in STATUSES},
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }


def summary_table(outcomes: Sequence[Outcome], out: Path) -> str:
    """A table of all files, failed ones last, and a line with the sums."""
    rows = [("FILE", "STATUS", "LENGTH", "TIME", "NOTE")]
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.status == "failed", outcome.target)):
        target = Path(outcome.target)
        name = target.relative_to(out) if target.is_relative_to(out) else target
        minutes, seconds = divmod(round(outcome.seconds), 60)
        length = f"{minutes}:{seconds:02d}" if outcome.seconds else "-"
        took = f"{outcome.elapsed_seconds:.1f} s" if outcome.elapsed_seconds else "-"
        clipped = f"{outcome.clipped_samples} samples clipped" if outcome.clipped_samples else ""
        rows.append((str(name), outcome.status, length, took, outcome.note or clipped))
    return format_table(rows)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the first row being their names; the last column has any width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in rows
    )
