"""Files that are there in full or not at all: written beside their place, then renamed into it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to; renamed to `path` if the block ends well, removed if it does not.

    The place has one name per target, so what a killed process left there is written over by the next.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):  # a file system that refuses this refused more before, which has to be told
            partial.unlink(missing_ok=True)
