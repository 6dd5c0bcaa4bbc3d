"""Time to judge 10 s of mono audio; the mean time over 10 s is the real-time factor.

pytest benchmarks/test_metrics.py --benchmark-only
"""

import numpy as np
import pytest

from restorer.metrics import align, lsd, peaq

RATE = 44100
SECONDS = 10


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    reference = 0.1 * generator.standard_normal(SECONDS * RATE)
    return reference, reference + 0.001 * generator.standard_normal(SECONDS * RATE)


@pytest.mark.parametrize("metric", ["peaq", "lsd", "align"])
def test_seconds_for_ten_seconds_of_mono(benchmark, pair, metric):
    call = {
        "peaq": lambda: peaq(*pair, RATE),
        "lsd": lambda: lsd(*pair),
        "align": lambda: align(*pair, RATE),
    }[metric]
    benchmark.pedantic(call, rounds=5, iterations=1, warmup_rounds=1)
    benchmark.extra_info["real_time_factor"] = benchmark.stats.stats.mean / SECONDS
    assert benchmark.stats.stats.mean < 2.0
