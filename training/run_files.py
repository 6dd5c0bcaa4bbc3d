"""What a training run writes beside its checkpoints, and what becomes of the run where the disk refuses it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter

from restorer.errors import DISK_REFUSALS, RestorerError


def refusal(error: Exception) -> str | None:
    """What to say of an error if it is the disk that refuses what a run writes, else None."""
    if isinstance(error, OSError):
        return f"cannot write to the run's folder: {error.strerror}" if error.errno in DISK_REFUSALS else None
    if isinstance(error, RestorerError) and isinstance(error.__cause__, OSError | SafetensorError):
        return str(error).partition(";")[0] if str(error).startswith("cannot write") else None
    return None


@contextmanager
def event_log(folder: Path) -> Iterator[SummaryWriter]:
    """A TensorBoard log in `folder`; it raises OSError, from any of its methods or at the end, if the disk refuses.

    It writes from a thread, whose error comes again from the next method: the thread prints nothing of it.
    """
    before = threading.excepthook

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = report
    try:
        writer = SummaryWriter(str(folder))
        try:
            yield writer
        except BaseException:
            with suppress(OSError):  # what came first has to be told
                writer.close()
            raise
        writer.close()
    finally:
        threading.excepthook = before
