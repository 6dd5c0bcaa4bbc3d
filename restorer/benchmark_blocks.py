"""Streaming against the clock: how long each block takes, beside how long it lasts, and how late output is."""

import itertools
import math
import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from restorer.restorer import Restorer
from restorer.synthesis import synthesize
from restorer.transform import Float32

BLOCKS_SAMPLES = (64, 128, 512, 2048)
RATES_HZ = (44100, 48000)
_PIECE_SECONDS = 4.0
_WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class BlockTimes:
    """Times of a stream's `process`, one by one, fed without pauses.

    A miss is a block that took longer than it lasts. A generator runs once per hop, so with blocks shorter
    than a hop most cost nothing and every few do all the work: their p99 shows it.
    """

    sample_rate_hz: int
    channels: int
    block_samples: int
    blocks: int
    block_ms: float
    mean_ms: float
    p99_ms: float
    p999_ms: float
    worst_ms: float
    misses: int
    real_time_factor: float
    frames_per_call: int | None = None


@lru_cache(maxsize=4)
def music(sample_rate_hz: int, channels: int) -> Float32:
    """Four seconds of music, for loops; read-only.

    Shape: ``(channels, samples)``
    """
    piece: Float32 = synthesize(_PIECE_SECONDS, sample_rate_hz, 0, channels)
    piece.flags.writeable = False
    return piece


def looped_music(seconds: float, sample_rate_hz: int, channels: int) -> Float32:
    """Music of any length, ``(channels, samples)`` float32: the same piece again and again."""
    samples = round(seconds * sample_rate_hz)
    piece = music(sample_rate_hz, channels)
    return np.tile(piece, (1, math.ceil(samples / piece.shape[1])))[:, :samples]


def measure_blocks(
    restorer: Restorer,
    sample_rate_hz: int,
    channels: int,
    block_samples: int,
    seconds: float,
    limit_seconds: float = math.inf,
    frames_per_call: int | None = None,
) -> BlockTimes:
    """Stream `seconds` of audio block by block, or as much as `limit_seconds` of time allow.

    Half a second before that is not counted: buffers are allocated there.
    """
    piece = music(sample_rate_hz, channels)
    starts = itertools.cycle(range(0, piece.shape[1] - block_samples + 1, block_samples))
    stream = restorer.stream(channels, sample_rate_hz, frames_per_call=frames_per_call)
    end = time.perf_counter() + limit_seconds
    for _ in range(math.ceil(_WARM_UP_SECONDS * sample_rate_hz / block_samples)):
        start = next(starts)
        stream.process(piece[:, start : start + block_samples])
        if time.perf_counter() > end:
            break

    count = max(1, round(seconds * sample_rate_hz / block_samples))
    times = np.zeros(count)
    done, end = 0, time.perf_counter() + limit_seconds
    while done < count and (done == 0 or time.perf_counter() < end):
        start = next(starts)
        before = time.perf_counter()
        stream.process(piece[:, start : start + block_samples])
        times[done] = time.perf_counter() - before
        done += 1
    times = 1000 * times[:done]
    block_ms = 1000 * block_samples / sample_rate_hz
    return BlockTimes(
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        block_samples=block_samples,
        blocks=done,
        block_ms=round(block_ms, 3),
        mean_ms=round(float(times.mean()), 4),
        # The smallest time that so many of the blocks keep: a time that was measured, and none between two.
        p99_ms=round(float(np.percentile(times, 99, method="inverted_cdf")), 4),
        p999_ms=round(float(np.percentile(times, 99.9, method="inverted_cdf")), 4),
        worst_ms=round(float(times.max()), 4),
        misses=int(np.count_nonzero(times > block_ms)),
        real_time_factor=round(float(times.mean()) / block_ms, 4),
        frames_per_call=frames_per_call,
    )


def measure_latency(restorer: Restorer, sample_rate_hz: int) -> float:
    """Seconds by which a stream's output is behind its input at most; the resampler's share is in it.

    The input comes in small blocks, and what a stream returns follows from their number alone.
    """
    block = np.zeros((1, 32), np.float32)
    stream = restorer.stream(1, sample_rate_hz)
    given = returned = 0
    behind = 0.0
    while given < (restorer.latency_samples / restorer.sample_rate + 0.3) * sample_rate_hz:
        given += block.shape[1]
        returned += stream.process(block).shape[1]
        behind = max(behind, given / sample_rate_hz - returned / restorer.sample_rate)
    return behind
