"""Offline speed by model, threads and runtime. Run: pytest benchmarks/test_real_time_factor.py -s

Elapsed time over duration of the audio, stereo at 44.1 kHz: below 1 is faster than real time. The measured
rounds are pytest-benchmark's, and the factor is that of the best one (the least disturbed).
"""

from contextlib import nullcontext
from pathlib import Path

import pytest
import soundfile
from conftest import has_bars

from restorer import Restorer
from restorer.benchmark import measure_codec, measure_runtimes, thread_counts
from restorer.benchmark_blocks import looped_music
from restorer.benchmark_graph import count_multiply_adds
from restorer.benchmark_machine import describe_machine, matrix_product_peak, one_core
from restorer.benchmark_report import machine_line

RATE_HZ = 44100
SECONDS = 20
LIMIT = 0.06  # of one core, decoding and encoding apart


def report(benchmark, what: str) -> float:
    """Print and keep the best round's real-time factor."""
    factor = benchmark.stats.stats.min / SECONDS
    hardware = machine_line(describe_machine())
    benchmark.extra_info.update(real_time_factor=round(factor, 4), hardware=hardware)
    print(f"\n{what}: real-time factor {factor:.3f} on {hardware}")
    return factor


def test_file(benchmark, model: Path, tmp_path: Path) -> None:
    """`restore_file` from an MP3 to FLAC, and what decoding and encoding alone take of it."""
    audio = looped_music(SECONDS, RATE_HZ, 2)
    soundfile.write(tmp_path / "in.mp3", audio.T, RATE_HZ, format="MP3", bitrate_mode="CONSTANT")
    with one_core():
        restorer = Restorer(model, device="cpu", threads=1)

        def restore() -> None:
            restorer.restore_file(tmp_path / "in.mp3", tmp_path / "out.flac", overwrite=True)

        benchmark.pedantic(restore, rounds=3, iterations=1, warmup_rounds=1)
    factor = report(benchmark, f"{model.name}, MP3 to FLAC, one core")
    codec = {row["what"]: row["real_time_factor"] for row in measure_codec(SECONDS, 3)}
    benchmark.extra_info.update(codec)
    print(", ".join(f"{what}: {share:.4f}" for what, share in codec.items()))
    assert not has_bars(model) or factor - sum(codec.values()) <= LIMIT


@pytest.mark.parametrize("threads", thread_counts())
def test_array(benchmark, model: Path, threads: int) -> None:
    """A whole signal in memory."""
    audio = looped_music(SECONDS, RATE_HZ, 2)
    restorer = Restorer(model, device="cpu", threads=threads)
    with one_core() if threads == 1 else nullcontext():
        benchmark.pedantic(restorer, args=(audio, RATE_HZ), rounds=3, iterations=1, warmup_rounds=1)
    factor = report(benchmark, f"{model.name}, array, {threads} threads")
    assert threads > 1 or not has_bars(model) or factor <= LIMIT


def test_runtimes(model: Path) -> None:
    """PyTorch eager and ONNX Runtime side by side, and both beside the machine's matrix product."""
    rows = measure_runtimes(model, 5.0)
    peak = matrix_product_peak(3.0)
    work = count_multiply_adds(model)
    print(f"\n{model.name}: {work / 1e6:.1f} M multiply-adds per frame and channel; {machine_line(describe_machine())}")
    print(f"  numpy's float32 matrix product, one thread: {peak / 1e9:.1f} G multiply-adds/s")
    for row in rows:
        speed = work / row["seconds_per_frame"]
        print(
            f"  {row['runtime']:<14}{row['frames_per_call']:4d} frames a call: "
            f"real-time factor {row['real_time_factor']:.3f}, {speed / 1e9:.1f} G multiply-adds/s, "
            f"{100 * speed / peak:.0f} % of that"
        )
