"""Seconds from `import restorer` to a stream's first block. Run: pytest benchmarks/test_load_time.py -s"""

from pathlib import Path

from restorer.benchmark import measure_load
from restorer.benchmark_machine import describe_machine
from restorer.benchmark_report import machine_line


def test_import_to_first_block(benchmark, model: Path) -> None:
    """pytest-benchmark's own time includes the start of Python; `load_seconds` does not."""
    seconds = benchmark.pedantic(measure_load, args=(model, 7), rounds=1, iterations=1)
    hardware = machine_line(describe_machine())
    benchmark.extra_info.update(load_seconds=seconds, hardware=hardware)
    print(f"\n{model.name}: import to first block in {seconds:.2f} s on {hardware}")
