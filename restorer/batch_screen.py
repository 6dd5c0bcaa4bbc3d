"""The progress of a batch on stderr: one bar for all files and one for each that is in work."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

import click
from tqdm import tqdm

from restorer.batch_plan import Job
from restorer.errors import AudioFileError
from restorer.object_store import fingerprint

_STEPS = 1000
_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {postfix}{elapsed}<{remaining}"


class Screen:
    """Progress bars where stderr is a terminal; elsewhere only the lines of `say`. A context manager.

    The bar for all counts bytes of input, so that long files count for more. Methods may be called from any
    thread.
    """

    def __init__(self, jobs: list[Job], workers: int) -> None:
        self._live = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._sizes = {job.name: max(1, _size(job)) for job in jobs}
        self._shares = dict.fromkeys(self._sizes, 0.0)
        self._bars: dict[str, tuple[int, Any]] = {}
        self._free = list(range(workers, 0, -1))
        self._all = self._bar("all", 0, sum(self._sizes.values())) if self._live else None

    def start(self, job: Job) -> None:
        """Show a bar for this file."""
        with self._lock:
            if self._live and self._free:
                place = self._free.pop()
                self._bars[job.name] = place, self._bar(job.name, place, _STEPS)

    def advance(self, job: Job, share: float) -> None:
        """This share of the file, from 0 to 1, is done."""
        with self._lock:
            self._move(job, min(share, 1.0))

    def finish(self, job: Job) -> None:
        """The file is done, or given up: remove its bar."""
        with self._lock:
            self._move(job, 1.0)
            self._close(job)

    def give_back(self, job: Job) -> None:
        """The file is not done and waits again: remove its bar."""
        with self._lock:
            self._move(job, 0.0)
            self._close(job)

    def say(self, line: str) -> None:
        """Print a line on stderr, above the bars."""
        if self._live:
            tqdm.write(line, file=sys.stderr)
        else:
            click.echo(line, err=True)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for _, bar in self._bars.values():
                bar.close()
            self._bars.clear()
            if self._all is not None:
                self._all.close()

    def _move(self, job: Job, share: float) -> None:
        before, self._shares[job.name] = self._shares[job.name], share
        if self._all is not None:
            self._all.update((share - before) * self._sizes[job.name])
        if job.name in self._bars:
            bar = self._bars[job.name][1]
            bar.update(share * _STEPS - bar.n)

    def _close(self, job: Job) -> None:
        if job.name in self._bars:
            place, bar = self._bars.pop(job.name)
            bar.close()
            self._free.append(place)

    def _bar(self, label: str, place: int, total: int) -> Any:
        short = label if len(label) <= 30 else f"...{label[-27:]}"
        return tqdm(
            total=total, desc=f"{short:30}", position=place, leave=place == 0, file=sys.stderr, bar_format=_FORMAT
        )


def _size(job: Job) -> int:
    try:
        return int(fingerprint(job.source).get("size") or 1)
    except AudioFileError:
        return 1
