"""Many files are restored one after another or side by side; a bad one does not stop the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from restorer.audio_in import AudioReader
from restorer.audio_out import check_target
from restorer.batch_plan import Job
from restorer.batch_queue import JobQueue, Worker, WorkerLostError
from restorer.batch_record import Record
from restorer.batch_screen import Screen
from restorer.errors import AudioFileError, RestorerError
from restorer.inspection import inspect_file
from restorer.object_store import Location, at_hand, check_free_at, name_remotely
from restorer.progress import Progress

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
    brightness: float | None = None

    def as_key(self) -> dict[str, Any]:
        """Those that change what is in an output."""
        chosen = {} if self.brightness is None else {"brightness": self.brightness}
        return {"mix": self.mix, "subtype": self.subtype, "force": self.force, **chosen}


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


class StoppedError(Exception):
    """The batch was interrupted; the file in work is given up."""


class BatchWorker(Worker, Protocol):
    """Restores one file at a time, here or elsewhere."""

    def restore(self, job: Job, settings: Settings, overwrite: bool, progress: Progress) -> Outcome:
        """As `restore_job`; WorkerLostError if the process or machine that does it is gone."""


def preview(jobs: Sequence[Job], record: Record, settings: Settings) -> Iterator[Outcome]:
    """Say what `run_batch` would do with each job; files are inspected, and nothing is written."""
    for job in jobs:
        try:
            yield _skipped(job) if record.is_done(job) else _preview(job, record, settings)
        except (RestorerError, OSError) as error:
            yield failed(job, error)


class LocalWorker:
    """Restores in a thread of this process; the model is shared by all threads."""

    def __init__(self, restorer: Restorer) -> None:
        self._restorer = restorer

    def wait(self, stop: threading.Event) -> bool:
        return not stop.is_set()

    def restore(self, job: Job, settings: Settings, overwrite: bool, progress: Progress) -> Outcome:
        return restore_job(self._restorer, job, settings, overwrite, progress)


def run_batch(
    workers: Sequence[BatchWorker], jobs: Sequence[Job], record: Record, settings: Settings, screen: Screen
) -> Generator[Outcome, None, None]:
    """Do all jobs, each worker taking the next when it is free, and yield outcomes as they come.

    What is done is skipped; there may be no workers where the record has all jobs as done. If the consumer
    stops or is interrupted, files in work are given up and leave nothing behind.
    """
    stop = threading.Event()

    def do(worker: BatchWorker, job: Job) -> Outcome:
        return _do(worker, job, record, settings, screen, stop)

    queue: JobQueue[BatchWorker, Outcome] = JobQueue(do, failed, screen.say)
    record.sweep(jobs)
    try:
        todo: list[Job] = []
        for job in jobs:
            if record.is_done(job) or not workers:
                screen.finish(job)
                yield _skipped(job, record.action(job))
            else:
                todo.append(job)
        with closing(queue.run(workers[: len(todo)], todo, stop)) as outcomes:
            yield from outcomes
    finally:
        record.sweep_folders(queue.lost)
        record.close()


def _do(
    worker: BatchWorker, job: Job, record: Record, settings: Settings, screen: Screen, stop: threading.Event
) -> Outcome:
    def progress(done: int, total: int) -> None:
        if stop.is_set():
            raise StoppedError
        screen.advance(job, done / max(total, 1))

    begun = False
    screen.start(job)
    try:
        overwrite = settings.overwrite or record.is_ours(job)
        check_free_at(job.target, overwrite)  # before the claim, which says that what is there is ours
        begun = True  # before it is on disk: a claim that could not be written is given back, too
        record.begin(job)
        outcome = worker.restore(job, settings, overwrite, progress)
        if outcome.status != "failed":
            begun = False
            record.finish(job, outcome.status)
    except StoppedError:
        outcome = Outcome(str(job.source), str(job.target), job.seed, "failed", note="interrupted")
    except WorkerLostError:
        screen.give_back(job)
        raise
    except Exception as error:  # whatever is wrong with one file, or a bug that it triggers: the rest goes on
        outcome = failed(job, error)
    finally:
        if begun:
            with suppress(RestorerError):  # a full disk, of which the outcome tells
                record.abandon(job)
    screen.finish(job)
    return outcome


def restore_job(restorer: Restorer, job: Job, settings: Settings, overwrite: bool, progress: Progress) -> Outcome:
    """Make one output from its input, wherever they are; what is wrong with them is told by the outcome.

    Raises
    ------
    StoppedError : `progress` raised it.
    """
    from restorer.restoring import restore_or_copy

    try:
        if isinstance(job.target, Path):
            make_folder(job.target.parent)
        with at_hand(job.source, job.target, overwrite) as (source, target):
            _check(source, target, settings, overwrite)
            report, found = restore_or_copy(
                restorer,
                source,
                target,
                seed=job.seed,
                mix=settings.mix,
                overwrite=overwrite,
                subtype=settings.subtype,
                force=settings.force,
                progress=progress,
                brightness=settings.brightness,
            )
    except StoppedError:
        raise
    except Exception as error:
        return failed(job, error)
    names = {str(source): str(job.source), str(target): str(job.target)}
    return Outcome(
        source=str(job.source),
        target=str(job.target),
        seed=job.seed,
        status="copied" if found else "restored",
        seconds=round(report.seconds, 3),
        elapsed_seconds=round(report.elapsed_seconds, 3),
        clipped_samples=report.clipped_samples,
        note=f"{found.reason}; {report.carried}" if found else "",
        warnings=tuple(name_remotely(warning, names) for warning in report.warnings),
    )


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises
    ------
    AudioFileError : the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise AudioFileError(f"cannot write to {folder}: a file of this name is in the way") from error
    except OSError as error:
        raise AudioFileError(f"cannot write to {folder}: {error.strerror or error}") from error


def _check(source: Path, target: Path, settings: Settings, overwrite: bool) -> None:
    with AudioReader(source) as reader:
        channels = reader.channels
    check_target(source, target, overwrite, settings.subtype, channels)


def _preview(job: Job, record: Record, settings: Settings) -> Outcome:
    overwrite = settings.overwrite or record.is_ours(job)
    check_free_at(job.target, overwrite)
    with at_hand(job.source) as (source, _):
        if isinstance(job.target, Path) and job.target.parent.is_dir():
            _check(source, job.target, settings, overwrite)
        found = inspect_file(source, count_clipped=False)
    status = "copied" if found.transparent and not settings.force else "restored"
    return Outcome(str(job.source), str(job.target), job.seed, status, seconds=found.seconds, note=found.reason)


def _skipped(job: Job, action: str = "") -> Outcome:
    note = f"{action or 'made'} before from the same input, model and settings"
    return Outcome(str(job.source), str(job.target), job.seed, "skipped", note=note)


def failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a job that this error ended."""
    kind = "" if isinstance(error, RestorerError) else f"{type(error).__name__}: "
    note = kind + " ".join(str(error).split())
    if isinstance(error, MemoryError):
        note = "out of memory; run with fewer --jobs, or close other programs"
    return Outcome(str(job.source), str(job.target), job.seed, "failed", note=note)


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


def summary_table(outcomes: Sequence[Outcome], out: Location) -> str:
    """A table of all files, failed ones last, and a line with the sums."""
    prefix = f"{out}{os.sep if isinstance(out, Path) else '/'}"
    rows = [("FILE", "STATUS", "LENGTH", "TIME", "NOTE")]
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.status == "failed", outcome.target)):
        name = outcome.target.removeprefix(prefix)
        minutes, seconds = divmod(round(outcome.seconds), 60)
        length = f"{minutes}:{seconds:02d}" if outcome.seconds else "-"
        took = f"{outcome.elapsed_seconds:.1f} s" if outcome.elapsed_seconds else "-"
        clipped = f"{outcome.clipped_samples} samples clipped" if outcome.clipped_samples else ""
        rows.append((name, outcome.status, length, took, outcome.note or clipped))
    return format_table(rows)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, the first row being their names; the last column has any width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip()
        for row in rows
    )
