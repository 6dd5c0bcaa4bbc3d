"""Threads share rows out and change nothing."""

from itertools import pairwise

import numpy as np
import pytest

from restorer.row_threads import ROWS_EACH, RowThreads
from restorer.transform import Analysis, Synthesis

SIZES = 512, 128


@pytest.mark.parametrize(("rows", "threads"), [(1, 8), (2 * ROWS_EACH - 1, 8), (3 * ROWS_EACH + 5, 2), (100, 3)])
def test_rows_come_out_as_from_one_thread(rows: int, threads: int) -> None:
    rng = np.random.default_rng(rows)
    there = RowThreads(lambda count: Analysis(count, *SIZES), rows, threads)
    back = RowThreads(lambda count: Synthesis(count, *SIZES), rows, threads)
    alone = Analysis(rows, *SIZES), Synthesis(rows, *SIZES)
    for _ in range(2):
        audio = rng.standard_normal((rows, 2000)).astype(np.float32)
        for start, end in pairwise([0, 1, 128, 700, 700, 2000]):
            frames, expected = there(audio[:, start:end]), alone[0](audio[:, start:end])
            assert np.array_equal(frames, expected)
            assert np.array_equal(back(frames), alone[1](expected))
        for transform in (there, back, *alone):
            transform.reset()


def test_errors_reach_the_caller() -> None:
    there = RowThreads(lambda count: Analysis(count, *SIZES), 64, 4)
    with pytest.raises(ValueError, match="concatenat"):
        there(np.zeros((63, 100), np.float32))
