"""How much of one CPU core restoring takes, per second of stereo at 44.1 kHz. Run: pytest benchmarks -s

Elapsed time over duration of the audio: below 1 is faster than real time.
"""

import importlib.resources
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from restorer import Restorer

_SECONDS = 20
_LIMIT = 0.2
_RELEASED = Path(str(importlib.resources.files("restorer") / "weights" / "compact.onnx"))

pytestmark = pytest.mark.skipif(not _RELEASED.is_file(), reason="no released model yet")


def hardware() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if cpuinfo.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def music(seconds: float) -> np.ndarray:
    """Stereo harmonics, drums and hiss up to 20 kHz, ``(samples, 2)`` at 44.1 kHz."""
    random = np.random.default_rng(0)
    time = np.arange(round(seconds * 44100)) / 44100
    tones = sum(np.sin(2 * np.pi * 110 * k * time + k) / k for k in range(1, 60))
    drums = np.exp(-30 * (time % 0.5)) * random.standard_normal(len(time))
    hiss = 0.02 * random.standard_normal((len(time), 2))
    return (0.1 * tones + 0.2 * drums)[:, None] + hiss


@pytest.fixture
def one_core() -> Iterator[None]:
    """Keep every thread of this process on one core while a benchmark runs."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def report(benchmark, what: str, seconds: float) -> float:  # type: ignore[no-untyped-def]
    """Print and keep the best round's real-time factor (the least disturbed one)."""
    factor = benchmark.stats.stats.min / seconds
    benchmark.extra_info.update(real_time_factor=round(factor, 4), hardware=hardware())
    print(f"\n{what}: real-time factor {factor:.3f} on one core of {hardware()}")
    return factor


def test_file(benchmark, tmp_path: Path, one_core: None) -> None:  # type: ignore[no-untyped-def]
    """`restore_file` from an MP3 to FLAC, decoding and encoding included."""
    soundfile.write(tmp_path / "in.mp3", music(_SECONDS), 44100, format="MP3", bitrate_mode="CONSTANT")
    restorer = Restorer(device="cpu", threads=1)

    def restore() -> None:
        restorer.restore_file(tmp_path / "in.mp3", tmp_path / "out.flac", overwrite=True)

    benchmark.pedantic(restore, rounds=3, iterations=1, warmup_rounds=1)
    assert report(benchmark, "restore_file, stereo MP3 to FLAC", _SECONDS) <= _LIMIT


@pytest.mark.parametrize("block_samples", [512, 4096])
def test_stream(benchmark, block_samples: int, one_core: None) -> None:  # type: ignore[no-untyped-def]
    """A stereo stream in blocks of a live host."""
    seconds = _SECONDS / 4
    audio = np.ascontiguousarray(music(seconds).T, dtype=np.float32)
    stream = Restorer(device="cpu", threads=1).stream(channels=2)

    def restore() -> None:
        for start in range(0, audio.shape[1], block_samples):
            stream.process(audio[:, start : start + block_samples])

    benchmark.pedantic(restore, rounds=3, iterations=1, warmup_rounds=1)
    assert report(benchmark, f"stream in blocks of {block_samples}", seconds) < 1
