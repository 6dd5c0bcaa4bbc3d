"""Jobs wait in one queue, and each worker takes the next when it is free; those of a lost worker go back."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from restorer.batch_plan import Job
from restorer.errors import RestorerError

ATTEMPTS = 3
_IDLE_SECONDS = 0.1

Result = TypeVar("Result")


class WorkerLostError(RestorerError):
    """The process or the machine that worked on a job is gone; the job can be done again."""


class Worker(Protocol):
    """Whatever restores one file at a time."""

    def wait(self, stop: threading.Event) -> bool:
        """Wait until a job can be taken; False if `stop` was set before."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class JobQueue(Generic[AnyWorker, Result]):
    """Shares jobs among workers, one thread of this process waiting on each worker.

    Parameters
    ----------
    do : does one job with a worker, in a thread; may raise WorkerLostError.
    give_up : makes the result of a job that lost ATTEMPTS workers.
    tell : says a line about a lost worker.
    """

    def __init__(
        self,
        do: Callable[[AnyWorker, Job], Result],
        give_up: Callable[[Job, WorkerLostError], Result],
        tell: Callable[[str], None],
    ) -> None:
        self.lost: list[Job] = []
        self._do = do
        self._give_up = give_up
        self._tell = tell
        self._waiting: deque[Job] = deque()
        self._attempts: Counter[str] = Counter()
        self._results: SimpleQueue[Result | BaseException] = SimpleQueue()

    def run(
        self, workers: Sequence[AnyWorker], jobs: Sequence[Job], stop: threading.Event
    ) -> Generator[Result, None, None]:
        """Yield results as they come. `stop` is set at the end, and by whoever wants an earlier one."""
        self._waiting.extend(jobs)
        threads = [threading.Thread(target=self._serve, args=(worker, stop), name="restore") for worker in workers]
        try:
            for thread in threads:
                thread.start()
            for _ in jobs:
                result = self._results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _serve(self, worker: AnyWorker, stop: threading.Event) -> None:
        try:
            while worker.wait(stop) and not stop.is_set():
                try:
                    job = self._waiting.popleft()
                except IndexError:
                    stop.wait(_IDLE_SECONDS)  # what is in work elsewhere may still come back
                    continue
                try:
                    self._results.put(self._do(worker, job))
                except WorkerLostError as error:
                    self._take_back(job, error)
        except BaseException as error:  # a bug: let it end the batch instead of leaving it waiting
            self._results.put(error)

    def _take_back(self, job: Job, error: WorkerLostError) -> None:
        self.lost.append(job)
        self._attempts[job.name] += 1
        if self._attempts[job.name] < ATTEMPTS:
            self._tell(f"Warning: {job.source}: {error}; it is given to another worker")
            self._waiting.appendleft(job)
        else:
            self._results.put(self._give_up(job, error))
