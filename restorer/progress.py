"""How far long work is: a callback, a bar on stderr, or both."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from restorer.interruption import check_interrupted

Progress = Callable[[int, int], None]

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}"


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A bar on stderr, moved by calling what is given with (done, total); the total may change on the way."""
    from tqdm import tqdm  # here, since most calls show no bar and the import takes a while

    short = label if len(label) <= 40 else f"...{label[-37:]}"
    with tqdm(total=1, desc=short, file=sys.stderr, bar_format=_FORMAT) as bar:

        def show(done: int, total: int) -> None:
            bar.total = max(total, done, 1)
            bar.update(done - bar.n)

        yield show


@contextmanager
def following(progress: Progress | None, verbose: bool, label: str) -> Iterator[Progress]:
    """What to call with (done, total): it calls the caller's own callback, and moves a bar if `verbose`."""
    with progress_bar(label) if verbose else nullcontext(_nowhere) as show:

        def tell(done: int, total: int) -> None:
            check_interrupted()
            show(done, total)
            if progress:
                progress(done, total)

        yield tell


def _nowhere(done: int, total: int) -> None:
    pass
