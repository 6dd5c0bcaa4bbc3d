"""A resampler whose output keeps pace with its input, for streams that must not be late."""

import math
from functools import lru_cache

import numpy as np

from restorer.audio_in import StreamResampler
from restorer.transform import Float32

# A resampler's FFT blocks are at most some 4000 samples long; a multiple of that shows its largest delay.
_TRIAL_SAMPLES = 1 << 15
_TRIAL_BLOCK_SAMPLES = 32
# The trial sees some phases of the blocks; others were up to 11 samples later (16 rates, 1.2 million samples).
_MARGIN_SAMPLES = 16


@lru_cache(maxsize=64)
def resampler_delay(source_rate: int, target_rate: int) -> float:
    """Samples at `target_rate` by which the output of a `StreamResampler` is behind its input at most.

    How many samples it has returned depends on how many it was given, and not on how they were cut
    into blocks; so a trial tells.
    """
    if source_rate == target_rate:
        return 0.0
    resampler = StreamResampler(1, source_rate, target_rate)
    block = np.zeros((1, _TRIAL_BLOCK_SAMPLES), np.float32)
    ratio = target_rate / source_rate
    given, got, delay = 0, 0, 0.0
    while given < _TRIAL_SAMPLES:
        # Just before a block returns its samples, all but one of them have been given.
        given += _TRIAL_BLOCK_SAMPLES
        delay = max(delay, given * ratio - got)
        got += resampler.process(block).shape[1]
    return delay + _MARGIN_SAMPLES * max(1.0, ratio)


class SteadyResampler(StreamResampler):
    """A `StreamResampler` that gives its samples evenly, always behind by what it is behind at most.

    soxr gives them in bursts: 1606 at once from 48 to 44.1 kHz. Whatever works on them would have nothing to do in most
    small blocks and too much in one. The largest delay stays what it was.
    """

    def __init__(self, channels: int, source_rate: int, target_rate: int) -> None:
        super().__init__(channels, source_rate, target_rate)
        self._delay = resampler_delay(source_rate, target_rate)  # a trial of some time, not for the first block

    def reset(self) -> None:
        """Forget the signal so far; the next block starts a new one."""
        super().reset()
        self._kept: Float32 = np.zeros((self.channels, 0), np.float32)
        self._given = 0

    def process(self, block: np.ndarray) -> np.ndarray:
        """Resample the next block; shapes are those of `StreamResampler`, and the samples too, at a steady pace."""
        self._kept = np.concatenate([self._kept, super().process(block)], axis=1)
        due = math.ceil(self._received * self.target_rate / self.source_rate - self._delay) - self._given
        count = min(max(0, due), self._kept.shape[1])
        taken, self._kept = self._kept[:, :count], self._kept[:, count:]
        self._given += count
        return np.ascontiguousarray(taken)

    def flush(self) -> np.ndarray:
        """Return the rest, ``(channels, m)`` float32, and start over."""
        kept = self._kept
        return np.concatenate([kept, super().flush()], axis=1)
