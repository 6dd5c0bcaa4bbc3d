"""Several takes of the busiest stretch of a song, and how much they differ: to choose a seed before the long work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader
from restorer.brightness import find_upper_band_hz, power_db, upper_level_db, upper_power
from restorer.model_file import ModelInfo
from restorer.profiles import measure_profiles, profile_difference
from restorer.quiet import gain_for_quiet
from restorer.restorer import Restorer
from restorer.stream import replace_damage
from restorer.transform import Analysis, Float32

_BLOCK_SAMPLES = 1 << 16
_WINDOW_SAMPLES, _HOP_SAMPLES = 2048, 512
CURVE_SECONDS = 0.25  # a point of a brightness curve


@dataclass(frozen=True)
class Stretch:
    """A part of a song, with what a model must hear around it to restore it as it would within the whole song.

    `heard` is ``(channels, samples)`` from `first` on; the stretch itself begins at `start` and has `samples`,
    all in samples of `sample_rate` from the beginning of the song. A quiet song is restored times `gain`.
    """

    heard: Float32
    first: int
    start: int
    samples: int
    sample_rate: int
    gain: np.float32

    def inside(self, audio: Float32) -> Float32:
        """The stretch alone, of something that runs along `heard`: (..., samples)."""
        return audio[..., self.start - self.first :][..., : self.samples]


@dataclass(frozen=True)
class Take:
    """One restoration of a stretch; `brightness_db` is its level above the cut-off, `curve_db` the same over time."""

    seed: int
    audio: Float32
    brightness_db: float
    curve_db: NDArray[np.float64]


@dataclass(frozen=True)
class Differences:
    """How far the profiles of takes lie apart (0 to 2), ``(takes, takes)``, symmetric, in the order of the takes."""

    frequency: NDArray[np.float64]
    rhythm: NDArray[np.float64]

    def mean(self) -> tuple[float, float]:
        """Of all pairs, frequency and rhythm; 0 for one take."""
        above = np.triu_indices(len(self.frequency), 1)
        if not len(above[0]):
            return 0.0, 0.0
        return float(self.frequency[above].mean()), float(self.rhythm[above].mean())


def find_busiest(path: Path, sample_rate: int, seconds: float) -> tuple[int, int]:
    """Where most happens in a song: the stretch with the largest spectral flux.

    Flux is what the square root of the magnitudes gains from one frame to the next, summed over frequency:
    onsets count, and loud ones more. The file is read once, in blocks.

    Returns
    -------
    start, samples : at `sample_rate` in Hz; the whole song if it is shorter than `seconds`.

    Raises
    ------
    AudioFileError : the file cannot be read.
    """
    pieces, last = [], np.zeros((1, _WINDOW_SAMPLES // 2 + 1), np.float32)
    with AudioReader(path, sample_rate) as reader:
        analysis = Analysis(1, _WINDOW_SAMPLES, _HOP_SAMPLES)
        for block in reader.blocks(_BLOCK_SAMPLES):
            frames = analysis(replace_damage(block)[0].mean(axis=0, keepdims=True))[0]
            roots = np.concatenate([last, (frames**4).sum(axis=0) ** 0.25])
            pieces.append(np.maximum(np.diff(roots, axis=0), 0).sum(axis=1))
            last = roots[-1:]
        total = reader.samples
    samples = min(round(seconds * sample_rate), total)
    flux = np.concatenate([[0.0], np.concatenate(pieces).cumsum(dtype=np.float64)])
    window = samples // _HOP_SAMPLES
    if samples == total or len(flux) <= window:
        return 0, samples
    busiest = int(np.argmax(flux[window:] - flux[: len(flux) - window]))
    return min(busiest * _HOP_SAMPLES, total - samples), samples


def read_stretch(path: Path, info: ModelInfo, seconds: float) -> Stretch:
    """Find the busiest stretch and read it, with the generator's context before and its lookahead after it."""
    start, samples = find_busiest(path, info.sample_rate, seconds)
    # On the grid of the frames, so that the restoration of the whole song has the same ones.
    start -= start % info.hop_samples
    before = (info.memory_frames + -(-info.window_samples // info.hop_samples)) * info.hop_samples
    first, last = max(0, start - before), start + samples + info.latency_samples
    pieces, done = [], 0
    with AudioReader(path, info.sample_rate) as reader:
        for block in reader.blocks(_BLOCK_SAMPLES):
            if done + block.shape[1] > first:
                pieces.append(block[:, max(0, first - done) : last - done])
            done += block.shape[1]
            if done >= last:
                break
    heard, _ = replace_damage(np.concatenate(pieces, axis=1))  # as a stream does
    return Stretch(heard, first, start, samples, info.sample_rate, gain_for_quiet(path))


def make_takes(
    restorer: Restorer, stretch: Stretch, n: int, seed: int, brightness: float | None, above_hz: float
) -> list[Take]:
    """Restore a stretch with seeds from `seed` on, in one batch; the takes from dark to bright.

    Each is the same as that stretch of the whole song restored with its seed.
    """
    heard = stretch.heard * stretch.gain
    restored = restorer.candidates(heard, stretch.sample_rate, n, seed, brightness=brightness) / stretch.gain
    takes = []
    for index, whole in enumerate(restored):
        audio = stretch.inside(whole)
        level = upper_level_db(audio, stretch.sample_rate, above_hz)
        takes.append(Take(seed + index, audio, level, brightness_curve(audio, stretch.sample_rate, above_hz)))
    return sorted(takes, key=lambda take: take.brightness_db)


def brightness_curve(audio: Float32, sample_rate: int, above_hz: float) -> NDArray[np.float64]:
    """Level above a frequency in dB, a value for each quarter of a second; 0 dB is a mean square of 1.

    Shape: (channels, samples) -> (quarters,), at least one.
    """
    power = upper_power(audio, sample_rate, above_hz)
    points = max(1, int(audio.shape[1] / sample_rate / CURVE_SECONDS))
    return np.array([power_db(part.mean()) for part in np.array_split(power, min(points, len(power)))])


def upper_band_hz(stretch: Stretch) -> float:
    """Where what is missing begins, in Hz."""
    return find_upper_band_hz(stretch.inside(stretch.heard), stretch.sample_rate)


def compare_takes(takes: Sequence[Take]) -> Differences:
    """Compare the profiles of all pairs of takes."""
    profiles = [measure_profiles(take.audio) for take in takes]
    frequency, rhythm = np.zeros((2, len(takes), len(takes)))
    for i, j in combinations(range(len(takes)), 2):
        frequency[i, j] = frequency[j, i] = profile_difference(profiles[i].frequency, profiles[j].frequency)
        rhythm[i, j] = rhythm[j, i] = profile_difference(profiles[i].rhythm, profiles[j].rhythm)
    return Differences(frequency, rhythm)
