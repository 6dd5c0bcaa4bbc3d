"""Streams against the clock: block times beside the duration of a block. Run: pytest benchmarks/test_streaming.py -s

Ten minutes of audio for each of 16 cases, on one core and without pauses; RESTORER_STREAM_MINUTES=0.1 makes
it quick. The bars need a machine that does nothing else.
"""

import time
from pathlib import Path

import pytest
from conftest import has_bars, setting

from restorer import Restorer
from restorer.benchmark_blocks import BLOCKS_SAMPLES, RATES_HZ, looped_music, measure_blocks, measure_latency
from restorer.benchmark_machine import describe_machine, one_core
from restorer.benchmark_report import machine_line

FIRST_WITHOUT_MISS = 512  # samples of a block
MOST_OVER_OFFLINE = 1.5
MINUTES = setting("RESTORER_STREAM_MINUTES", 10.0)


@pytest.mark.parametrize("block_samples", BLOCKS_SAMPLES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_block_times(model: Path, rate_hz: int, channels: int, block_samples: int) -> None:
    with one_core():
        restorer = Restorer(model, device="cpu", threads=1)
        times = measure_blocks(restorer, rate_hz, channels, block_samples, 60 * MINUTES)
    print(
        f"\n{model.name}, {rate_hz} Hz, {channels} channels, {times.blocks} blocks of {block_samples} samples "
        f"({times.block_ms:.2f} ms): mean {times.mean_ms:.3f} ms, p99 {times.p99_ms:.3f}, p99.9 {times.p999_ms:.3f}, "
        f"worst {times.worst_ms:.3f}, {times.misses} misses, real-time factor {times.real_time_factor:.3f} "
        f"on {machine_line(describe_machine())}"
    )
    assert times.real_time_factor < 1
    assert block_samples < FIRST_WITHOUT_MISS or not has_bars(model) or times.misses == 0


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_small_blocks_cost_little_more_than_large_ones(benchmark, model: Path, frames: int) -> None:
    """Blocks of 512 beside a whole signal, in turn, so that whatever else the machine does troubles both."""
    seconds, block = 4.0, 512
    audio = looped_music(seconds, 44100, 2)
    with one_core():
        restorer = Restorer(model, device="cpu", threads=1)

        def run(block_samples: int) -> float:
            stream = restorer.stream(2, 44100, frames_per_call=frames)
            started = time.thread_time()
            for start in range(0, audio.shape[1], block_samples):
                stream.process(audio[:, start : start + block_samples])
            return time.thread_time() - started

        run(audio.shape[1])
        rounds = [(run(audio.shape[1]), run(block)) for _ in range(5)]
        benchmark.pedantic(run, args=(block,), rounds=1, iterations=1)
    whole, streamed = (min(times) for times in zip(*rounds, strict=True))
    benchmark.extra_info.update(offline=whole / seconds, streamed=streamed / seconds, ratio=streamed / whole)
    print(
        f"\n{model.name}: processor time over duration {whole / seconds:.4f} whole, {streamed / seconds:.4f} in blocks "
        f"of {block}, {frames} frames a call: {streamed / whole:.2f} times as much, "
        f"on {machine_line(describe_machine())}"
    )
    assert not has_bars(model) or streamed <= MOST_OVER_OFFLINE * whole


@pytest.mark.parametrize("block_samples", BLOCKS_SAMPLES)
def test_stream(benchmark, model: Path, block_samples: int) -> None:
    """Two seconds of a stereo stream, for pytest-benchmark's table and its comparisons between commits."""
    with one_core():
        restorer = Restorer(model, device="cpu", threads=1)
        arguments = (restorer, 44100, 2, block_samples, 2.0)
        benchmark.pedantic(measure_blocks, args=arguments, rounds=3, iterations=1, warmup_rounds=1)


@pytest.mark.parametrize("rate_hz", [16000, 22050, 44100, 48000, 96000])
def test_latency(benchmark, model: Path, rate_hz: int) -> None:
    """What a stream is behind, measured; at the model's rate it is what the model file says."""
    restorer = Restorer(model, device="cpu", threads=1)
    behind = benchmark.pedantic(measure_latency, args=(restorer, rate_hz), rounds=1, iterations=1)
    benchmark.extra_info["latency_ms"] = 1000 * behind
    print(f"\n{model.name} at {rate_hz} Hz: latency {1000 * behind:.1f} ms")
    if rate_hz == restorer.sample_rate:
        assert abs(behind - restorer.latency_samples / rate_hz) < 1e-9


@pytest.mark.parametrize("n", [1, 4, 16])
def test_streams_in_one_batch(benchmark, model: Path, n: int) -> None:
    """Two seconds of n stereo streams in lock-step, blocks of 512: the cost of each falls with their number."""
    seconds, block = 2.0, 512
    audio = looped_music(seconds, 44100, 2)
    with one_core():
        streams = Restorer(model, device="cpu", threads=1).streams(n)

        def run() -> None:
            for start in range(0, audio.shape[1], block):
                streams.process([audio[:, start : start + block]] * n)

        benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=1)
    factor = benchmark.stats.stats.min / seconds / n
    print(f"\n{model.name}, {n} streams: real-time factor {factor:.4f} each on {machine_line(describe_machine())}")
