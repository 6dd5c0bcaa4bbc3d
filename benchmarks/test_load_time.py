"""Seconds from `import restorer` to a stream's first block. Run: pytest benchmarks/test_load_time.py -s"""

from pathlib import Path

from restorer.benchmark import measure_load
from restorer.benchmark_machine import describe_machine
from restorer.benchmark_report import machine_line


def test_import_to_first_block(model: Path) -> None:
    seconds = measure_load(model, rounds=7)
    print(f"\n{model.name}: import to first block in {seconds:.2f} s on {machine_line(describe_machine())}")
