"""Only one run at a time writes to a folder; the lock goes with the process, however that ends."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restorer.errors import AudioFileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` during the block; nothing is written for it.

    Windows and some network file systems have no such lock: there the block runs without one.

    Raises
    ------
    AudioFileError : another run is at it, on this machine or, where the file system tells, on another.
    """
    if fcntl is None:
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise AudioFileError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise AudioFileError(
                    f"another run is writing to {folder}; wait until it ends, or name another folder"
                ) from None
        yield
    finally:
        os.close(handle)
