"""A long, rough run of one stream, and a longer, even one: does it stay bounded, exact and small?

In the rough one music, silence, full-scale noise, constant levels and bursts of NaN pass through a stream in
random block sizes, with flushes and resets between. Every sample that comes out is compared with a one-shot
restoration, which starts afresh some seconds earlier: a stream that drifts with age differs from it.

The even one is for days of audio at the speed of files: the same minute again and again, which must come out
as it did the first time.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from restorer.benchmark_blocks import looped_music, music
from restorer.benchmark_machine import resident_bytes
from restorer.restorer import Restorer
from restorer.transform import Float32

KINDS = ("music", "silence", "noise", "constant", "damage")
_COMPARE_SECONDS = 12.0
_PASSAGE_SECONDS = 30.0  # between resets, on average
_LONG_PART = 1 / 3  # of the time at the end runs without a reset
_LARGEST_BLOCK = 8192
_FILE_BLOCK = 1 << 17  # as restoring a file has it
_RESAMPLER_SECONDS = 1.0  # far more than a resampler remembers
_WARM_MINUTES = 3


@dataclass(frozen=True)
class SoakReport:
    """What a soak saw; `largest_difference` is from the one-shot restoration, as a part of the loudest sample.

    `memory_growth_bytes` is from the first third, when everything has been used once, to the largest later
    (None where the system does not tell). `longest_seconds` is the longest stretch without a reset.
    """

    seconds: float
    blocks: int
    resets: int
    flushes: int
    compared_samples: int
    longest_seconds: float
    replaced_samples: int
    expected_replaced_samples: int
    all_finite: bool
    loudest: float
    largest_difference: float
    memory_growth_bytes: int | None


def soak(restorer: Restorer, minutes: float, channels: int = 2, seed: int = 0) -> SoakReport:
    """Run a stream for some minutes of audio at the model's rate; the same seed gives the same run."""
    return _Soak(restorer, channels, seed).run(round(60 * minutes * restorer.sample_rate))


@dataclass(frozen=True)
class LongReport:
    """What a long run saw; `largest_difference` is between any two of the minutes, 0 where all are bit-equal.

    `seconds` are of audio, `elapsed_seconds` of the clock. `memory_growth_bytes` is from the first three minutes to
    the largest later (None where the system does not tell).
    """

    seconds: float
    elapsed_seconds: float
    minutes: int
    returned_samples: int
    expected_samples: int
    compared_samples: int
    largest_difference: float
    memory_growth_bytes: int | None


def run_long(restorer: Restorer, hours: float, channels: int = 2, sample_rate: int | None = None) -> LongReport:
    """Run one stream for hours of audio, at least four minutes, in blocks as large as those of a file.

    A "minute" has as many samples as make whole frames, and at another `sample_rate` whole turns of the resampler:
    it meets the stream in the same place each time.
    """
    info, rate = restorer.model_info, sample_rate or restorer.sample_rate
    common = math.gcd(rate, info.sample_rate)
    turn = info.hop_samples * (info.sample_rate // common)
    turns = max(1, round(60 * info.sample_rate / turn))
    given, due = turns * info.hop_samples * (rate // common), turns * turn
    minutes = max(_WARM_MINUTES + 1, round(hours * 3600 * rate / given))
    minute = looped_music(given / rate, rate, channels)
    settled = _context_samples(restorer) + (
        round(_RESAMPLER_SECONDS * info.sample_rate) if rate != info.sample_rate else 0
    )
    repeats, memory = _Repeats(channels, due, min(settled, due)), []
    stream, started = restorer.stream(channels, rate), time.perf_counter()
    for _ in range(minutes):
        for at in range(0, given, _FILE_BLOCK):
            repeats.take(stream.process(minute[:, at : at + _FILE_BLOCK]))
        memory.append(resident_bytes())
    returned = repeats.taken + stream.flush().shape[1]  # what the end makes of the last samples repeats nothing
    sizes = [size for size in memory if size is not None]
    return LongReport(
        seconds=minutes * given / rate,
        elapsed_seconds=time.perf_counter() - started,
        minutes=minutes,
        returned_samples=returned,
        expected_samples=minutes * due,
        compared_samples=repeats.compared,
        largest_difference=repeats.difference,
        memory_growth_bytes=max(sizes[_WARM_MINUTES:]) - max(sizes[:_WARM_MINUTES]) if sizes else None,
    )


class _Repeats:
    """Output that must repeat itself from `settled` samples on: all is compared with the first period."""

    def __init__(self, channels: int, period: int, settled: int) -> None:
        self.first = np.zeros((channels, period), np.float32)
        self.learnt = period + settled  # the start of the second period takes the place of that of the first
        self.taken = self.compared = 0
        self.difference = 0.0

    def take(self, block: Float32) -> None:
        period = self.first.shape[1]
        while block.shape[1]:
            at = self.taken % period
            room = min(period - at, self.learnt - self.taken if self.taken < self.learnt else period)
            piece, block = block[:, :room], block[:, room:]
            kept = self.first[:, at : at + piece.shape[1]]
            if self.taken < self.learnt:
                kept[:] = piece
            else:
                largest = float(np.abs(piece - kept).max())
                self.difference = max(self.difference, largest if math.isfinite(largest) else math.inf)
                self.compared += piece.shape[1]
            self.taken += piece.shape[1]


def _context_samples(restorer: Restorer) -> int:
    """Output depends on so much of the past at most: the generator's context and the windows that overlap."""
    info = restorer.model_info
    frames = info.memory_frames + info.lookahead_frames + 2 * math.ceil(info.window_samples / info.hop_samples)
    return frames * info.hop_samples


class _Soak:
    """One run: the stream, what went in since the last comparison's start, and what came out."""

    def __init__(self, restorer: Restorer, channels: int, seed: int) -> None:
        self.restorer, self.channels, self.seed = restorer, channels, seed
        self.random = np.random.default_rng(seed)
        self.stream = restorer.stream(channels, restorer.sample_rate, seed)
        self.hop = restorer.model_info.hop_samples
        self.context = _context_samples(restorer)
        self.blocks = self.resets = self.flushes = self.compared = 0
        self.longest = self.replaced = self.damaged = 0
        self.all_finite, self.loudest, self.difference = True, 0.0, 0.0
        self.memory: list[tuple[int, int]] = []
        self.begin()

    def begin(self) -> None:
        """Nothing has gone in since a reset."""
        self.fed = 0
        self.trusted = 0  # output before this sample of the kept signals has been compared
        self.given: list[Float32] = []
        self.returned: list[Float32] = []

    def run(self, samples: int) -> SoakReport:
        rate = self.restorer.sample_rate
        calm = round((1 - _LONG_PART) * samples)
        done, since_comparison = 0, 0
        while done < samples:
            segment = self.segment()[:, : samples - done]
            for block in self.cut(segment):
                self.feed(block)
            done += segment.shape[1]
            since_comparison += segment.shape[1]
            if done < calm and self.random.random() < segment.shape[1] / (_PASSAGE_SECONDS * rate):
                self.end(flush=bool(self.random.integers(2)))
                since_comparison = 0
            elif since_comparison > _COMPARE_SECONDS * rate:
                self.compare()
                since_comparison = 0
            if (resident := resident_bytes()) is not None:
                self.memory.append((done, resident))
        self.end(flush=True)
        early = max((size for at, size in self.memory if at <= samples / 3), default=None)
        late = max((size for at, size in self.memory if at > samples / 3), default=None)
        return SoakReport(
            seconds=done / rate,
            blocks=self.blocks,
            resets=self.resets,
            flushes=self.flushes,
            compared_samples=self.compared,
            longest_seconds=self.longest / rate,
            replaced_samples=self.replaced,
            expected_replaced_samples=self.damaged,
            all_finite=self.all_finite,
            loudest=self.loudest,
            largest_difference=self.difference / max(1.0, self.loudest),
            memory_growth_bytes=None if early is None or late is None else late - early,
        )

    def segment(self) -> Float32:
        """0.2 to 4 s of one kind of sound, ``(channels, samples)``."""
        rate = self.restorer.sample_rate
        shape = (self.channels, int(self.random.uniform(0.2, 4.0) * rate))
        kind = self.random.choice(KINDS)
        if kind == "silence":
            return np.zeros(shape, np.float32)
        if kind == "noise":
            return self.random.uniform(-1, 1, shape).astype(np.float32)
        if kind == "constant":
            return np.full(shape, self.random.choice([-1.0, 0.5, 1.0]), np.float32)
        piece = music(rate, min(2, self.channels))
        start = int(self.random.integers(piece.shape[1]))
        sound = np.take(piece, range(start, start + shape[1]), axis=1, mode="wrap")
        sound = np.resize(sound, shape).astype(np.float32)
        if kind == "damage":
            for _ in range(self.random.integers(1, 6)):
                at, size = self.random.integers(shape[1]), self.random.integers(1, 3000)
                sound[:, at : at + size] = self.random.choice([np.nan, np.inf, -np.inf, 1e30])
        return sound

    def cut(self, segment: Float32) -> Iterator[Float32]:
        """Blocks of 0 to 8192 samples; small ones are as frequent as large ones."""
        at = 0
        while at < segment.shape[1]:
            size = int(_LARGEST_BLOCK ** self.random.random()) - int(self.random.random() < 0.01)
            yield segment[:, at : at + size]
            at += size

    def feed(self, block: Float32) -> None:
        self.keep(self.stream.process(block))
        bad = ~(np.abs(block) <= 1e6)
        self.damaged += int(np.count_nonzero(bad))
        self.given.append(np.where(bad, 0, block).astype(np.float32))
        self.fed += block.shape[1]
        self.blocks += 1

    def keep(self, block: Float32) -> None:
        self.returned.append(block)
        if block.size:
            peak = float(np.abs(block).max())
            self.all_finite &= math.isfinite(peak)
            self.loudest = max(self.loudest, peak)

    def end(self, flush: bool) -> None:
        """Compare what is left, count, reset; after a flush the output is as long as the input."""
        if flush:
            self.keep(self.stream.flush())
            self.flushes += 1
        self.compare(whole=flush)
        self.replaced += self.stream.replaced_samples
        self.longest = max(self.longest, self.fed)
        self.stream.reset()
        self.resets += 1
        self.begin()

    def compare(self, whole: bool = False) -> None:
        """Restore the kept input in one call, and compare all output that was not compared before."""
        given = np.concatenate([np.zeros((self.channels, 0), np.float32), *self.given], axis=1)
        returned = np.concatenate([np.zeros((self.channels, 0), np.float32), *self.returned], axis=1)
        expected = self.restorer(given, self.restorer.sample_rate, seed=self.seed)
        ready = given.shape[1] if whole else max(0, given.shape[1] - self.restorer.latency_samples)
        if returned.shape[1] != ready:
            self.difference = math.inf
        stop = min(ready, returned.shape[1])
        gap = returned[:, self.trusted : stop] - expected[:, self.trusted : stop]
        if gap.size:
            largest = float(np.abs(gap).max())
            self.difference = max(self.difference, largest if math.isfinite(largest) else math.inf)
            self.compared += gap.shape[1]
        # The next comparison starts on a frame, early enough for its context to be complete where this one ends.
        drop = max(0, stop - self.context) // self.hop * self.hop
        self.given, self.returned = [given[:, drop:].copy()], [returned[:, drop:].copy()]
        self.trusted = max(self.trusted, stop) - drop
