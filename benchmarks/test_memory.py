"""Memory and speed of ``restorer restore``: one hour of stereo needs no more memory than one minute.

``pytest benchmarks/test_memory.py -s`` writes one minute and one hour of 22.05 kHz stereo and restores both,
each in its own process. Set RESTORER_MODEL to measure another model than the bundled one, and
RESTORER_LONG_MINUTES for another length than 60. The peak is the operating system's own count.
"""

from __future__ import annotations

import importlib.resources
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from restorer.errors import AudioFileError

LIMIT_MB = 400
FLAT_MB = 20
RATE_HZ = 22050
BUNDLED = Path(str(importlib.resources.files("restorer") / "weights" / "compact.onnx"))


@dataclass(frozen=True)
class Measured:
    """One run: length of the audio, elapsed time, peak resident memory of the process."""

    minutes: float
    elapsed_seconds: float
    peak_mb: float

    @property
    def real_time_factor(self) -> float:
        return self.elapsed_seconds / (60 * self.minutes)


def write_song(path: Path, minutes: float) -> None:
    """Tones, noise and a beat, written block by block."""
    random = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as file:
        for second in range(round(60 * minutes)):
            at = second + np.arange(RATE_HZ) / RATE_HZ
            beat = np.exp(-12 * (at % 0.5)) * random.standard_normal(RATE_HZ)
            tones = np.sin(2 * np.pi * np.outer(at, [220, 330]))
            file.write(0.2 * tones + 0.1 * beat[:, None])


def restore(source: Path, target: Path, model: Path) -> tuple[float, float]:
    """Elapsed seconds and peak resident megabytes of ``python -m restorer restore``."""
    command = [sys.executable, "-m", "restorer", "restore", str(source), str(target), "--model", str(model)]
    command += ["--device", "cpu", "--overwrite"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise AudioFileError(f"restoring {source} failed: {message.strip()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - started, usage.ru_maxrss * unit / 1e6


@pytest.fixture(scope="module")
def model() -> Path:
    path = Path(os.environ.get("RESTORER_MODEL", BUNDLED))
    if not path.is_file():
        pytest.skip(f"no model at {path}; set RESTORER_MODEL")
    return path


@pytest.mark.skipif(
    not hasattr(os, "wait4"), reason="this system does not tell the memory of a child process"
)
def test_memory_is_flat(tmp_path: Path, model: Path) -> None:
    runs = []
    for minutes in (1.0, float(os.environ.get("RESTORER_LONG_MINUTES", "60"))):
        source, target = tmp_path / "song.flac", tmp_path / "restored.flac"
        write_song(source, minutes)
        elapsed, peak_mb = restore(source, target, model)
        assert soundfile.info(target).frames == round(60 * minutes * 44100)
        runs.append(Measured(minutes, elapsed, peak_mb))
        target.unlink()
    print(f"\n{model.name}, {platform.machine()}, {os.cpu_count()} cores, {platform.python_version()}")
    for run in runs:
        print(
            f"{run.minutes:6.1f} min: peak {run.peak_mb:6.1f} MB, real-time factor {run.real_time_factor:.3f}"
        )
    short, long = runs
    assert long.peak_mb < LIMIT_MB
    assert long.peak_mb - short.peak_mb < FLAT_MB
