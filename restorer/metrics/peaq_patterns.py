"""Pattern processing of PEAQ basic: spreading, smearing, adaptation, modulation, loudness.

ITU-R BS.1387-1, annex 2, sections 2.1.7 to 3.4. Every pattern has shape (frames, bands).
"""

from dataclasses import dataclass

import numpy as np
import scipy.signal

from restorer.metrics.peaq_ear import (
    BAND_WIDTH_BARK,
    BANDS,
    CENTRE_HZ,
    FRAMES_PER_SECOND,
    INTERNAL_NOISE,
    EarFrames,
)

SPREADING_POWER = 0.4
_MIN_SECONDS = 0.008
SMEARING_SECONDS = 0.030
ADAPTATION_SECONDS = 0.050
# The adaptation ratios are averaged over this many bands below and above each band.
_BANDS_BELOW, _BANDS_ABOVE = 3, 4


def decays(seconds_at_100_hz: float, frames_per_second: float = FRAMES_PER_SECOND) -> np.ndarray:
    """One-pole coefficient per band and frame for a time constant that shrinks with frequency to 8 ms."""
    seconds = _MIN_SECONDS + 100 / CENTRE_HZ * (seconds_at_100_hz - _MIN_SECONDS)
    return np.exp(-1 / (frames_per_second * seconds))


def _smooth(pattern: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """First-order low-pass over frames with unit gain, from rest."""
    out = np.empty_like(pattern)
    for band, a in enumerate(decay):
        out[:, band] = scipy.signal.lfilter([1 - a], [1, -a], pattern[:, band])
    return out


def spread_unscaled(pattern: np.ndarray) -> np.ndarray:
    down = 10 ** (-2.7 * BAND_WIDTH_BARK)
    up = 10 ** ((-2.4 - 23 / CENTRE_HZ) * BAND_WIDTH_BARK) * pattern ** (0.2 * BAND_WIDTH_BARK)
    index = np.arange(BANDS)
    area = (1 - down ** (index + 1)) / (1 - down) + (1 - up ** (BANDS - index)) / (1 - up) - 1
    source = (pattern / area) ** SPREADING_POWER
    down, up = down**SPREADING_POWER, up**SPREADING_POWER
    total = source.copy()
    for band in range(BANDS - 2, -1, -1):
        total[:, band] += down * total[:, band + 1]
    rising = source
    for distance in range(1, BANDS):
        rising = rising[:, :-1] * up[:, : BANDS - distance]
        total[:, distance:] += rising
    return total ** (1 / SPREADING_POWER)


def spread(pattern: np.ndarray) -> np.ndarray:
    """Spread each band's power over its neighbours; the upper slope flattens with level."""
    return spread_unscaled(pattern) / spread_unscaled(np.ones((1, BANDS)))


def smear(pattern: np.ndarray) -> np.ndarray:
    """Forward masking: a band decays slowly but rises at once."""
    return np.maximum(_smooth(pattern, decays(SMEARING_SECONDS)), pattern)


def adapt(reference: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take level differences and slow spectral differences out of a pair of excitation patterns."""
    decay = decays(ADAPTATION_SECONDS)
    slow_reference, slow_test = _smooth(reference, decay), _smooth(test, decay)
    cross = np.sqrt(slow_reference * slow_test).sum(axis=1, keepdims=True)
    level = (cross / slow_test.sum(axis=1, keepdims=True)) ** 2
    reference, test = reference / np.maximum(level, 1), test * np.minimum(level, 1)

    ratio = _smooth(reference * test, decay) / _smooth(reference**2, decay)
    neighbours = np.arange(BANDS)
    first = np.maximum(neighbours - _BANDS_BELOW, 0)
    end = np.minimum(neighbours + _BANDS_ABOVE, BANDS - 1) + 1
    corrections = []
    for gain in (np.minimum(ratio, 1), np.minimum(1 / ratio, 1)):
        sums = np.cumsum(np.pad(gain, ((0, 0), (1, 0))), axis=1)
        corrections.append(_smooth((sums[:, end] - sums[:, first]) / (end - first), decay))
    return reference * corrections[0], test * corrections[1]


def modulation(spread_pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Envelope modulation per band and the average loudness it is relative to."""
    decay = decays(ADAPTATION_SECONDS)
    loudness = spread_pattern**0.3
    change = FRAMES_PER_SECOND * np.abs(np.diff(loudness, axis=0, prepend=0))
    average = _smooth(loudness, decay)
    return _smooth(change, decay) / (1 + average / 0.3), average


def total_loudness(excitation: np.ndarray) -> np.ndarray:
    """Loudness in sone, (frames,)."""
    threshold = 10 ** (0.364 * (CENTRE_HZ / 1000) ** -0.8)
    s_db = -2 - 2.05 * np.arctan(CENTRE_HZ / 4000) - 0.75 * np.arctan((CENTRE_HZ / 1600) ** 2)
    s = 10 ** (s_db / 10)
    scale = 1.07664 * (threshold / s / 1e4) ** 0.23
    loudness = scale * ((1 - s + s * excitation / threshold) ** 0.23 - 1)
    return 24 / BANDS * np.maximum(loudness, 0).sum(axis=1)


def noise_loudness(
    reference: np.ndarray, test: np.ndarray, reference_modulation: np.ndarray, test_modulation: np.ndarray
) -> np.ndarray:
    """Partial loudness of what `test` has more than `reference`, from adapted patterns; (frames,)."""
    s_reference, s_test = 0.15 * reference_modulation + 0.5, 0.15 * test_modulation + 0.5
    beta = np.exp(-1.5 * (test - reference) / reference)
    excess = np.maximum(s_test * test - s_reference * reference, 0)
    partial = (1 + excess / (INTERNAL_NOISE + s_reference * reference * beta)) ** 0.23 - 1
    return 24 / BANDS * ((INTERNAL_NOISE / s_test) ** 0.23 * partial).sum(axis=1)


@dataclass(frozen=True)
class Patterns:
    """All patterns of one channel, each (frames, bands)."""

    reference_excitation: np.ndarray
    test_excitation: np.ndarray
    reference_adapted: np.ndarray
    test_adapted: np.ndarray
    reference_modulation: np.ndarray
    test_modulation: np.ndarray
    reference_average_loudness: np.ndarray


def process(ear: EarFrames) -> Patterns:
    """From the ear model's band powers to the patterns that the model output variables compare."""
    spread_reference, spread_test = spread(ear.reference), spread(ear.test)
    excitations = smear(spread_reference), smear(spread_test)
    reference_modulation, average_loudness = modulation(spread_reference)
    return Patterns(
        *excitations, *adapt(*excitations), reference_modulation, modulation(spread_test)[0], average_loudness
    )
