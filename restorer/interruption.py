"""Ctrl-C and SIGTERM end a command in the same way: with nothing half done left behind."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM during the block; only the main thread can, else nothing changes.

    In a callback from libsndfile an exception would be lost, and work would go on: there the wish is only
    remembered, until `check_interrupted`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def check_interrupted() -> None:
    """Raise the KeyboardInterrupt that could not be raised when the signal came."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(_: int, frame: FrameType | None) -> None:
    _asked.set()
    while frame is not None:
        if frame.f_code.co_name.startswith("vio_"):  # soundfile's callbacks
            return
        frame = frame.f_back
    raise KeyboardInterrupt
