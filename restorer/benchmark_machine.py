"""The machine that a benchmark runs on: its name, its cores, and what its matrix product reaches."""

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from restorer.errors import RestorerError

_BLAS_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_PEAK = """
import json, sys, time
import numpy as np
size, seconds = 1024, float(sys.argv[1])
a, b = np.random.default_rng(0).standard_normal((2, size, size)).astype(np.float32)
out, best = a @ b, float("inf")
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    start = time.perf_counter()
    np.matmul(a, b, out=out)
    best = min(best, time.perf_counter() - start)
print(json.dumps(size**3 / best))
"""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_core() -> Iterator[bool]:
    """Keep this thread, and threads that it starts, on one core; yields whether the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cores)


def processor_name() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Memory of the machine, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def resident_bytes() -> int | None:
    """Memory that this process holds now, or None where neither the system nor psutil tells."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        return int(importlib.import_module("psutil").Process().memory_info().rss)
    except ImportError:
        return None


def describe_machine() -> dict[str, Any]:
    """Hardware and versions that every table of speeds must name."""
    memory = memory_bytes()
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "memory_gb": round(memory / 1e9, 1) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version_of(name) for name in ("numpy", "scipy")},
        "onnxruntime": version_of("onnxruntime") or version_of("onnxruntime-gpu"),
        "torch": version_of("torch"),
    }


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def matrix_product_peak(seconds: float) -> float:
    """Multiply-adds per second of numpy's float32 matrix product, 1024 x 1024, on one thread: the best of `seconds`."""
    return float(run_python(_PEAK, str(seconds), environment=dict.fromkeys(_BLAS_THREADS, "1")))


def run_python(code: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run code in a fresh Python and give the JSON that it prints last.

    Raises
    ------
    RestorerError
        It failed; the message has its last line.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RestorerError(f"a measurement in its own process failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])
