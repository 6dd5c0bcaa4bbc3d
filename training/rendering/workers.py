"""Processes that each do one numbered task after another, and may die without taking the rest with them."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0  # for a process to leave nothing behind


@dataclass(frozen=True)
class Lost:
    """What is there in place of a result when a process died: its exit status, negative for a signal."""

    status: int


@dataclass
class _Worker(Generic[Result]):
    process: Any
    pipe: connection.Connection
    index: int


def in_processes(
    task: Callable[[int], Result], indices: Iterable[int], count: int, stopped: Callable[[], bool]
) -> Iterator[tuple[int, Result | Lost]]:
    """Results of `task`, which can be pickled, as they come, from `count` processes at most.

    Ends early once `stopped()` is true. However it ends, no process is left; close it if you do not exhaust it.
    """
    todo = iter(indices)
    workers: list[_Worker[Result]] = []

    def start() -> None:
        if (index := next(todo, None)) is not None:
            workers.append(_start(task, index))

    try:
        for _ in range(count):
            start()
        while workers and not stopped():
            ready = connection.wait([worker.pipe for worker in workers], POLL_SECONDS)
            for worker in [worker for worker in workers if worker.pipe in ready]:
                done = worker.index
                try:
                    result: Result | Lost = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join(GRACE_SECONDS)
                    result = Lost(worker.process.exitcode)
                    _end([worker])
                    workers.remove(worker)
                    start()
                else:
                    if (following := next(todo, None)) is None:
                        _end([worker])
                        workers.remove(worker)
                    else:
                        worker.index = following
                        with suppress(OSError):  # it just died: its pipe tells next time
                            worker.pipe.send(following)
                yield done, result
    finally:
        _end(workers)


def _start(task: Callable[[int], Result], index: int) -> _Worker[Result]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(task, theirs), daemon=True)
    with _one_thread():
        process.start()
    theirs.close()  # so that its end is the pipe's
    ours.send(index)
    return _Worker(process, ours, index)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is started here computes with one thread: numpy's libraries ask the environment when they are loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end(workers: Iterable[_Worker[Any]]) -> None:
    workers = list(workers)
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE_SECONDS)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()


def _serve(task: Callable[[int], Any], pipe: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # not at once: what is half done is removed
    if hasattr(os, "nice"):
        os.nice(5)  # training goes first
    while True:
        index = None
        with suppress(EOFError, OSError):
            index = pipe.recv()
        if index is None:  # nobody is there any more
            return
        result = task(index)
        with suppress(OSError):
            pipe.send(result)
