"""The paper's profiles of a sound (eq. 3, 4.1.1): its magnitude spectrogram summed over time, and over frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restorer.transform import Analysis

_WINDOW_SAMPLES, _HOP_SAMPLES = 2048, 512
_POOL = 4  # bins and frames per value


@dataclass(frozen=True)
class Profiles:
    """Means of the magnitude, not sums, so that length does not count.

    `frequency` has one value per four bins (86 Hz at 44.1 kHz), 256 of them; `rhythm` one per four frames
    (46 ms).
    """

    frequency: NDArray[np.float64]
    rhythm: NDArray[np.float64]


def measure_profiles(audio: NDArray[np.float32]) -> Profiles:
    """The profiles of the mean of all channels.

    Shape: (channels, samples); less than eight hops (93 ms at 44.1 kHz) give an empty rhythm profile.
    """
    maps = Analysis(1, _WINDOW_SAMPLES, _HOP_SAMPLES)(audio.mean(axis=0, keepdims=True))[0].astype(np.float64)
    # The first frames begin before the audio; Nyquist's bin stands alone.
    magnitude = np.hypot(maps[0] ** 2, maps[1] ** 2)[_WINDOW_SAMPLES // _HOP_SAMPLES - 1 :, :-1]
    frames = len(magnitude) // _POOL * _POOL
    return Profiles(
        frequency=magnitude.sum(axis=0).reshape(-1, _POOL).mean(axis=1) / max(1, len(magnitude)),
        rhythm=magnitude[:frames].mean(axis=1).reshape(-1, _POOL).mean(axis=1),
    )


def profile_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """L1 distance of two profiles relative to their mean size: 0 for equal ones, 2 at most."""
    size = 0.5 * float(np.abs(first).sum() + np.abs(second).sum())
    return float(np.abs(first - second).sum()) / size if size > 0 else 0.0
