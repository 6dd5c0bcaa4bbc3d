"""Memory of restoring files: one hour of stereo needs no more than one minute. Run: pytest benchmarks/test_memory.py -s

Each file is restored in a process of its own, from 44.1 kHz and, through the resampler, from 22.05 kHz.
RESTORER_LONG_MINUTES gives another length than 60.
"""

from pathlib import Path

import pytest
from conftest import setting

from restorer.benchmark import measure_memory
from restorer.benchmark_machine import describe_machine
from restorer.benchmark_report import machine_line

LIMIT_MB = 400
FLAT_MB = 20
LONG_MINUTES = setting("RESTORER_LONG_MINUTES", 60.0)


@pytest.mark.parametrize("rate_hz", [44100, 22050])
def test_memory_is_flat(benchmark, model: Path, rate_hz: int) -> None:
    hardware = machine_line(describe_machine())
    print(f"\n{model.name} from {rate_hz} Hz on {hardware}")
    benchmark.extra_info["hardware"] = hardware
    peaks = []
    first = benchmark.pedantic(measure_memory, args=(model, 1.0, rate_hz), rounds=1, iterations=1)
    for minutes, run in ((1.0, first), (LONG_MINUTES, measure_memory(model, LONG_MINUTES, rate_hz))):
        if run["peak_mb"] is None:
            pytest.skip("this system does not tell the memory of a process")
        print(f"{minutes:6.1f} min: peak {run['peak_mb']:6.1f} MB, real-time factor {run['real_time_factor']:.3f}")
        benchmark.extra_info[f"peak_mb of {minutes:g} minutes"] = run["peak_mb"]
        peaks.append(run["peak_mb"])
    short, long = peaks
    assert long < LIMIT_MB
    assert long - short < FLAT_MB
