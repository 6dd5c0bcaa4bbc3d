"""Oscillators that read tables: one for each pitch and cut-off, with nothing in them above 20.5 kHz."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.draws import chance, choose
from restorer.training.rendering.levels import gain
from restorer.transform import Float32

SHAPES = ("saw", "square", "pulse", "organ", "random")
TOP_HZ = 20500.0
LENGTH = 16384  # samples of a period
CUTOFFS_HZ = np.geomspace(150, 20000, 9)  # of the filter; the last table is unfiltered
PER_OCTAVE = 6  # pitches that have tables of their own
REACH = 2 ** (0.5 / PER_OCTAVE) + 1e-3  # a table also serves pitches that are half a step higher
DRAWBARS = (1, 2, 3, 4, 6, 8, 10, 12, 16)  # harmonics of an organ


def harmonics(shape: str, rng: Generator) -> NDArray[np.number]:
    """Amplitudes and phases of the harmonics from the first up."""
    number = np.arange(1, LENGTH // 2)
    if shape == "saw":
        return -1j / number
    if shape == "square":
        return -1j * (number % 2) / number
    if shape == "pulse":
        width = rng.uniform(0.08, 0.4)
        return np.abs(np.sin(np.pi * number * width)) / number * np.exp(-1j * np.pi * number * width)
    if shape == "organ":
        drawn = np.zeros(len(number), complex)
        drawn[np.array(DRAWBARS) - 1] = rng.random(len(DRAWBARS))
        return drawn
    size = rng.random(len(number)) ** 2 / number ** rng.uniform(0.7, 1.2)
    return size * np.exp(1j * rng.uniform(0, 2 * np.pi, len(number)))


class Oscillator:
    """A shape and a low-pass filter whose cut-off may move within a note.

    The filter is in the tables, and a note reads between two of them: it needs no recursion, and no harmonic is made
    that would fold back.
    """

    def __init__(self, shape: str, rng: Generator):
        self._harmonics = harmonics(shape, rng)
        self._resonance = gain(rng.uniform(0, 9)) if chance(rng, 0.6) else 1.0
        self._order = choose(rng, (2, 2, 4))
        self._tables: dict[int, Float32] = {}

    def note(self, hz: float, cutoffs: Float32, phase: float) -> Float32:
        """A tone of the length of `cutoffs`: (samples,), which count from 0 to 8, from 150 Hz up to unfiltered.

        `phase` is where in its period it starts, 0 to 1.
        """
        table = self._table(hz)
        place = np.arange(len(cutoffs), dtype=np.float64) * (hz / SAMPLE_RATE * LENGTH) + phase * LENGTH
        lower = np.clip(cutoffs.astype(np.int64), 0, len(CUTOFFS_HZ) - 2)
        index = (place.astype(np.int64) & (LENGTH - 1)) + lower * LENGTH
        below = table[index]
        return below + (table[index + LENGTH] - below) * (cutoffs - lower).astype(np.float32)

    def _table(self, hz: float) -> Float32:
        """The periods for all cut-offs, one after another."""
        step = round(np.log2(hz) * PER_OCTAVE)
        if step not in self._tables:
            base = 2 ** (step / PER_OCTAVE)
            count = min(len(self._harmonics), int(TOP_HZ / (base * REACH)))
            ratio = np.arange(1, count + 1) * base / CUTOFFS_HZ[:, None]
            response = 1 / np.sqrt(1 + ratio ** (2 * self._order))
            response *= 1 + (self._resonance - 1) * np.exp(-((np.log2(ratio) / 0.25) ** 2))
            response[-1] = 1
            spectrum = np.zeros((len(CUTOFFS_HZ), LENGTH // 2 + 1), np.complex128)
            spectrum[:, 1 : count + 1] = response * self._harmonics[:count]
            self._tables[step] = (np.fft.irfft(spectrum, axis=1) * (LENGTH / 3.2)).astype(np.float32).ravel()
        return self._tables[step]
