"""An hour of rough audio through one stream. Run: pytest benchmarks/test_soak.py -s

RESTORER_SOAK_MINUTES gives another length than 60; tests/test_soak.py runs one minute.
"""

from pathlib import Path

import pytest
from conftest import setting

from restorer import Restorer
from restorer.benchmark_soak import soak

MINUTES = setting("RESTORER_SOAK_MINUTES", 60.0)


@pytest.mark.parametrize("channels", [1, 2])
def test_soak(model: Path, channels: int) -> None:
    report = soak(Restorer(model, device="cpu"), MINUTES, channels)
    print(f"\n{model.name}: {report}")
    assert report.all_finite and report.loudest < 16
    assert report.largest_difference < 1e-5
    assert report.replaced_samples == report.expected_replaced_samples
    assert report.memory_growth_bytes is None or report.memory_growth_bytes < 20e6
