"""Long runs of one stream: an hour of rough audio, and a day of even audio. Run: pytest benchmarks/test_soak.py -s

RESTORER_SOAK_MINUTES gives another length than 60 to the first, RESTORER_SOAK_HOURS another than 24 to the second,
which runs for ten minutes before, and RESTORER_SOAK_CHANNELS another than 2. tests/test_soak.py runs minutes of both.
"""

from pathlib import Path

import pytest
from conftest import setting

from restorer import Restorer
from restorer.benchmark_soak import run_long, soak

MINUTES = setting("RESTORER_SOAK_MINUTES", 60.0)
HOURS = setting("RESTORER_SOAK_HOURS", 24.0)
CHANNELS = int(setting("RESTORER_SOAK_CHANNELS", 2))
FLAT_BYTES = 5e6


@pytest.mark.parametrize("channels", [1, 2])
def test_soak(model: Path, channels: int) -> None:
    report = soak(Restorer(model, device="cpu"), MINUTES, channels)
    print(f"\n{model.name}: {report}")
    assert report.all_finite and report.loudest < 16
    assert report.largest_difference < 1e-5
    assert report.replaced_samples == report.expected_replaced_samples
    assert report.memory_growth_bytes is None or report.memory_growth_bytes < 20e6


@pytest.mark.parametrize(("hours", "rate_hz"), [(1 / 6, 44100), (1 / 6, 48000), (HOURS, 44100)])
def test_long_run(model: Path, hours: float, rate_hz: int) -> None:
    """A day at the speed of files: as small at its end as at its start, and not a bit different."""
    report = run_long(Restorer(model, device="cpu"), hours, CHANNELS, rate_hz)
    print(f"\n{model.name}, {CHANNELS} channels, {rate_hz} Hz: {report}")
    assert report.returned_samples == report.expected_samples
    assert report.largest_difference == 0
    assert report.memory_growth_bytes is None or report.memory_growth_bytes < FLAT_BYTES
