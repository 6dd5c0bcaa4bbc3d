"""One worker thread does one job after another; whoever waits is told how many are before him."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable

from restorer.errors import RestorerError

_numbers = itertools.count(1)
_log = logging.getLogger(__name__)
_BUG = "something went wrong inside restorer; the terminal that runs the studio says more"


class Cancelled(Exception):
    """Ends a job from inside its progress report."""


class Job:
    """Something slow, with a share done from 0 to 1.

    Parameters
    ----------
    kind : a word for the page: "open", "take" or "download".
    work : called with this job on the worker's thread; it calls `report` often, which ends it when cancelled.
    wording : makes the line for the user from an error that was raised on purpose.

    Attributes
    ----------
    number : tells jobs apart.
    state : "waiting", "running", "done", "failed" or "cancelled".
    phase, share : what is being done, and how much of it.
    error : one line, when failed.
    """

    def __init__(self, kind: str, work: Callable[[Job], None], wording: Callable[[Exception], str] = str) -> None:
        self.number = next(_numbers)
        self.kind = kind
        self.state = "waiting"
        self.phase = ""
        self.share = 0.0
        self.error = ""
        self._work = work
        self._wording = wording
        self._stop = threading.Event()
        self._ended = threading.Event()

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    def begin(self, phase: str) -> None:
        """Start the next part of the work."""
        self.phase, self.share = phase, 0.0
        self._check()

    def report(self, done: int, total: int) -> None:
        """Progress inside a part, as `Restorer.restore_file` tells it; raises Cancelled when it is time to stop."""
        self.share = min(1.0, done / max(total, 1))
        self._check()

    def cancel(self) -> None:
        """Ask the job to stop; it does at its next report."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the job ended within this time."""
        return self._ended.wait(seconds)

    def run(self) -> None:
        """Do the work and note how it ended; nothing is raised."""
        try:
            self._check()
            self.state = "running"
            self._work(self)
            self.state = "done"
        except Exception as error:
            self._fail(error)
        finally:
            self._ended.set()

    def _fail(self, error: Exception) -> None:
        if self._stop.is_set():  # whatever it died of: the files of a cancelled job may be gone already
            self.state = "cancelled"
            return
        if not isinstance(error, RestorerError):
            _log.error("a job of the studio failed", exc_info=error)
        if isinstance(error, RestorerError):
            self.error = self._wording(error)
        else:
            self.error = f"the studio's disk refuses: {error.strerror}" if isinstance(error, OSError) else _BUG
        self.state = "failed"

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled


class JobQueue:
    """Jobs of all sessions, in the order in which they came, one at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="restorer-studio", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Put a job at the end."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one, the running one included."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def cancel(self, job: Job) -> None:
        """Stop a job that runs soon, and one that waits at once."""
        job.cancel()
        with self._changed:
            waited = job in self._waiting
            if waited:
                self._waiting.remove(job)
        if waited:
            job.run()

    def close(self, seconds: float = 10.0) -> None:
        """Cancel everything and wait for the worker."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job)
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
            job.run()
            with self._changed:
                self._running = None
