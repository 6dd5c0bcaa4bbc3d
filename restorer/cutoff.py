"""Where a signal's spectrum ends, and whether it ends in the steep edge that codecs and resamplers leave.

Music falls off gently, by a few dB from one kilohertz to the next; a codec's low-pass falls by 20 dB and
more within one, and nothing comes above it. That step in the long-term spectrum of loud passages is the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_SAMPLES, HOP_SAMPLES = 4096, 2048
_LOUD_SHARE = 0.5  # of the frames, the loudest, make the long-term spectrum
_BAND_HZ = 100.0
_LOWEST_EDGE_HZ = 2500.0  # below it, edges are notes and not codecs
_EDGE_DB = 18.0
_AUDIBLE_DB = 75.0  # below the strongest band: what is weaker counts as empty
_DENSE_DB = 12.0  # mean power above median power just below an edge: more is a few pure tones
_FLOOR = 1e-16


@dataclass(frozen=True)
class Cutoff:
    """`edge_hz` is the -6 dB point of a steep edge, or None; `bandwidth_hz` is where audible content ends."""

    edge_hz: float | None
    bandwidth_hz: float


class LongTermSpectrum:
    """Collects the power spectra of frames of a signal; memory grows by 8 kB per frame added."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._window = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
        self._frames: list[NDArray[np.float32]] = []

    @property
    def frames(self) -> int:
        """How many frames have been added."""
        return len(self._frames)

    def add(self, audio: NDArray[np.float32]) -> None:
        """Add a stretch of ``(channels, samples)`` float32; one shorter than a frame is padded with zeros."""
        samples = audio.shape[1]
        if samples < WINDOW_SAMPLES:
            audio = np.pad(audio, ((0, 0), (0, WINDOW_SAMPLES - samples)))
        from scipy import fft

        frames = np.lib.stride_tricks.sliding_window_view(audio, WINDOW_SAMPLES, axis=1)[:, ::HOP_SAMPLES]
        spectra = fft.rfft(frames * self._window, axis=2)
        power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
        self._frames += list(power.astype(np.float32))

    def loud_power(self) -> NDArray[np.float64]:
        """Mean power per bin over the loudest frames, ``(WINDOW_SAMPLES / 2 + 1,)``; silence gives zeros."""
        if not self._frames:
            return np.zeros(WINDOW_SAMPLES // 2 + 1)
        frames = np.stack(self._frames)
        loudness = frames.sum(axis=1)
        count = max(1, round(_LOUD_SHARE * len(frames)))
        return frames[np.argsort(loudness)[-count:]].mean(axis=0, dtype=np.float64)


def find_cutoff(power: NDArray[np.float64], sample_rate: int) -> Cutoff:
    """Find the edge in a long-term power spectrum.

    An edge is a fall of at least 18 dB within about 800 Hz, from audible and dense content to a level that
    nothing above it reaches again.

    Parameters
    ----------
    power : ``(bins,)`` from 0 Hz to half of `sample_rate`, in Hz.
    """
    nyquist = sample_rate / 2
    bin_hz = nyquist / (len(power) - 1)
    per_band = max(1, round(_BAND_HZ / bin_hz))
    bands = len(power) // per_band
    grid = power[: bands * per_band].reshape(bands, per_band)
    level = 10 * np.log10(grid.mean(axis=1) + _FLOOR)
    width = per_band * bin_hz
    strongest = level.max()
    if strongest <= 10 * np.log10(_FLOOR) + 20:
        return Cutoff(None, 0.0)
    audible = np.flatnonzero(level > strongest - _AUDIBLE_DB)
    bandwidth = min(nyquist, (audible[-1] + 1) * width)

    def span(hz: float) -> int:
        return max(1, round(hz / width))

    best, edge = _EDGE_DB, None
    for at in range(span(_LOWEST_EDGE_HZ), bands - span(250)):
        below_start = at - span(500)
        below = float(level[below_start : at - span(50)].mean())
        above = level[at + span(250) :]
        fall = below - float(above[: span(600)].mean())
        if fall < best or below < strongest - _AUDIBLE_DB or above.max() > below - _EDGE_DB * 0.8:
            continue
        region = power[(at - span(1000)) * per_band : at * per_band]
        if 10 * np.log10((region.mean() + _FLOOR) / (np.median(region) + _FLOOR)) > _DENSE_DB:
            continue
        best = fall
        passed = float(level[at - span(1500) : at - span(500)].mean())
        edge = (int(np.flatnonzero(level >= passed - 6.0)[-1]) + 1) * width
    return Cutoff(edge, bandwidth)
