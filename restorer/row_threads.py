"""Transforms of many signals at once, on several cores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from restorer.transform import Analysis, Float32, Synthesis

ROWS_EACH = 16  # of a thread at least: half a millisecond for a frame of each, ten times what handing it over takes


class RowThreads:
    """An `Analysis` or a `Synthesis` of many rows, shared out to threads in groups.

    Rows know nothing of each other, so what comes out is the same. Few rows, or one thread, stay in the caller's.

    Parameters
    ----------
    make
        Makes the transform of so many rows.
    rows
        Of the batch: the first axis of what goes in and comes out.
    threads
        At most so many, the caller's among them.
    """

    def __init__(self, make: Callable[[int], Analysis | Synthesis], rows: int, threads: int) -> None:
        groups = max(1, min(threads, rows // ROWS_EACH))
        bounds = [rows * group // groups for group in range(groups + 1)]
        self._groups = [(make(end - start), slice(start, end)) for start, end in pairwise(bounds)]
        self._threads = ThreadPoolExecutor(groups - 1) if groups > 1 else None

    def reset(self) -> None:
        """Forget the signals."""
        for transform, _ in self._groups:
            transform.reset()

    def __call__(self, values: Float32) -> Float32:
        """The transform of all rows."""
        (transform, rows), *others = self._groups
        if self._threads is None:
            return transform(values)
        waiting = [self._threads.submit(other, values[theirs]) for other, theirs in others]
        return np.concatenate([transform(values[rows]), *(result.result() for result in waiting)])
