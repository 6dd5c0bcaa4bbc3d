"""Files that are there in full or not at all: written beside their place, then renamed into it."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to; renamed to `path` if the block ends well, removed if it does not.

    The place is in a hidden folder, so that libraries which make a temporary file and rename it are free to. That
    folder has one name per target, so what a killed process left is removed by the next. Writers of the same
    target at the same time get one each: the last to end wins, and no file is a mixture of two.
    """
    folder, lock = _claim(path)
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # who refuses this refused more before, which has to be told
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)  # or a forked child would hold it on
            os.close(lock)


def place_new(made: Path, target: Path) -> None:
    """Give the finished file `made` the name `target`, which nothing may have, in one step where links are possible.

    Raises
    ------
    FileExistsError : something has that name; it and `made` stay as they are.
    """
    try:
        os.link(made, target)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without links: looked at first, then renamed
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        os.replace(made, target)
    else:
        made.unlink()


def _claim(path: Path) -> tuple[Path, int | None]:
    """Make the target's hidden folder and lock it; where it is another's, or cannot be locked, one of our own."""
    folder = path.with_name(f".{path.name}.partial")
    with suppress(FileExistsError):  # a file of that name
        if fcntl is not None:
            folder.mkdir(exist_ok=True)
            if (lock := _lock(folder)) is not None:
                return folder, lock
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    folder.mkdir()
    return folder, None


def _lock(folder: Path) -> int | None:
    """Lock and empty a folder; None where another process or thread has it, or just removed it."""
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            return handle
    except OSError:
        pass
    if handle is not None:
        os.close(handle)
    return None
