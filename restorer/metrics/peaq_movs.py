"""Model output variables of PEAQ basic and the network that maps them to one grade.

ITU-R BS.1387-1, annex 2, sections 4 to 6.
"""

import math

import numpy as np

from restorer.metrics.peaq_ear import BAND_WIDTH_BARK, BANDS, FRAMES_PER_SECOND, INTERNAL_NOISE, EarFrames
from restorer.metrics.peaq_patterns import Patterns, noise_loudness, total_loudness

DELAY_FRAMES = math.ceil(0.5 * FRAMES_PER_SECOND)
WINDOW_FRAMES = math.floor(0.1 * FRAMES_PER_SECOND)
_LOUDNESS_DELAY_FRAMES = math.ceil(0.05 * FRAMES_PER_SECOND)
_LOUDNESS_THRESHOLD_SONE = 0.1
_DISTURBED = 10**0.15

_BAND_INDEX = np.arange(BANDS)
MASKING = 10 ** (np.where(_BAND_INDEX * BAND_WIDTH_BARK <= 12, 3, 0.25 * _BAND_INDEX * BAND_WIDTH_BARK) / 10)

LEVEL_STEP_POLYNOMIAL = (9.01033e-11, 5.05622e-6, -0.00102438, 0.0550197, -0.198719)  # highest power first

# Name, smallest value, largest value and weights into the three hidden nodes, as tabulated in section 6.
_NETWORK = {
    "BandwidthRefB": (393.916656, 921.0, (-0.502657, 0.436333, 1.219602)),
    "BandwidthTestB": (361.965332, 881.131226, (4.307481, 3.246017, 1.123743)),
    "TotalNMRB": (-24.045116, 16.212030, (4.984241, -2.211189, -0.192096)),
    "WinModDiff1B": (1.110661, 107.137772, (0.051056, -1.762424, 4.331315)),
    "ADBB": (-0.206623, 2.886017, (2.321580, 1.789971, -0.754560)),
    "EHSB": (0.074318, 13.933351, (-5.303901, -3.452257, -10.814982)),
    "AvgModDiff1B": (1.113683, 63.257874, (2.730991, -6.111805, 1.519223)),
    "AvgModDiff2B": (0.950345, 1145.018555, (0.624950, -1.331523, -5.955151)),
    "RmsNoiseLoudB": (0.029985, 14.819740, (3.102889, 0.871260, -5.922878)),
    "MFPDB": (0.000101, 1.0, (-1.051468, -0.939882, -0.142913)),
    "RelDistFramesB": (0.0, 1.0, (-1.804679, -0.503610, -0.620456)),
}
_HIDDEN_BIAS = np.array((-2.518254, 0.654841, -2.207228))
_OUTPUT_WEIGHTS = np.array((-3.817048, 4.107138, 4.629582))
_OUTPUT_BIAS = -0.307594


def _mean_of_counted(values: np.ndarray) -> float:
    """Mean without the NaN frames; 0 where no frame counts."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else 0.0


def _modulation_difference(patterns: Patterns, delay: int) -> dict[str, float]:
    reference, test = patterns.reference_modulation[delay:], patterns.test_modulation[delay:]
    difference = np.abs(test - reference)
    plain = 100 / BANDS * (difference / (1 + reference)).sum(axis=1)
    weighted = np.where(test >= reference, 1, 0.1) * difference / (0.01 + reference)
    asymmetric = 100 / BANDS * weighted.sum(axis=1)
    average = patterns.reference_average_loudness[delay:]
    weight = (average / (average + 100 * INTERNAL_NOISE**0.3)).sum(axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.sqrt(plain), WINDOW_FRAMES)
    return {
        "WinModDiff1B": float(np.sqrt(np.mean(windows.mean(axis=1) ** 4))),
        "AvgModDiff1B": float((weight * plain).sum() / weight.sum()),
        "AvgModDiff2B": float((weight * asymmetric).sum() / weight.sum()),
    }


def channel_movs(ear: EarFrames, patterns: Patterns, first: int, loud_from: int) -> dict[str, float]:
    """The nine variables that one channel has by itself.

    Parameters
    ----------
    first
        First frame inside the reference's data boundary; earlier ones only warm up the filters.
    loud_from
        First frame, from the start of the signal, of the noise loudness average.
    """
    nmr = (ear.noise * MASKING / patterns.reference_excitation)[first:]
    loudness = noise_loudness(
        patterns.reference_adapted,
        patterns.test_adapted,
        patterns.reference_modulation,
        patterns.test_modulation,
    )[loud_from:]
    return {
        "BandwidthRefB": _mean_of_counted(ear.reference_bandwidth[first:]),
        "BandwidthTestB": _mean_of_counted(ear.test_bandwidth[first:]),
        "TotalNMRB": float(10 * np.log10(nmr.mean())),
        **_modulation_difference(patterns, max(first, DELAY_FRAMES)),
        "EHSB": 1000 * _mean_of_counted(ear.harmonic_error[first:]),
        "RmsNoiseLoudB": float(np.sqrt(np.mean(loudness**2))) if loudness.size else 0.0,
        "RelDistFramesB": float(np.mean(nmr.max(axis=1) > _DISTURBED)),
    }


def loud_from(channels: list[Patterns], first: int) -> int:
    """First frame of the noise loudness average: 50 ms after both signals pass 0.1 sone in one channel."""
    loud = [
        np.minimum(total_loudness(c.reference_excitation), total_loudness(c.test_excitation))[first:]
        > _LOUDNESS_THRESHOLD_SONE
        for c in channels
    ]
    either = np.any(loud, axis=0)
    start = int(np.argmax(either)) if either.any() else len(either)
    return max(first + start + _LOUDNESS_DELAY_FRAMES, DELAY_FRAMES)


def level_steps_db(reference_db: np.ndarray, test_db: np.ndarray) -> np.ndarray:
    """Smallest level difference in dB that is heard between two excitations in dB."""
    level = 0.3 * np.maximum(reference_db, test_db) + 0.7 * test_db
    positive = np.maximum(level, 1e-3)
    polynomial = np.polyval(LEVEL_STEP_POLYNOMIAL, positive)
    return np.where(level > 0, 5.95072 * (6.39468 / positive) ** 1.71332 + polynomial, 1e30)


def detection(channels: list[Patterns], first: int) -> dict[str, float]:
    """The two binaural variables: how probable, and how many steps above threshold, a difference is."""
    probability, steps = [], []
    for patterns in channels:
        reference = 10 * np.log10(patterns.reference_excitation[first:])
        test = 10 * np.log10(patterns.test_excitation[first:])
        step_size = level_steps_db(reference, test)
        error = reference - test
        slope = np.where(reference > test, 4, 6)
        probability.append(1 - 0.5 ** np.minimum(np.abs(error / step_size) ** slope, 1000))
        steps.append(np.abs(np.trunc(error)) / step_size)
    per_frame = 1 - np.prod(1 - np.max(probability, axis=0), axis=1)
    steps_per_frame = np.max(steps, axis=0).sum(axis=1)

    heard = per_frame > 0.5
    if not heard.any():
        average_distorted_block = 0.0
    else:
        mean_steps = float(steps_per_frame[heard].mean())
        average_distorted_block = math.log10(mean_steps) if mean_steps > 0 else -0.5
    smoothed = peak = 0.0
    for value in per_frame:
        smoothed = 0.9 * smoothed + 0.1 * float(value)
        peak = max(peak, smoothed)
    return {"ADBB": average_distorted_block, "MFPDB": peak}


def grade(movs: dict[str, float]) -> tuple[float, float]:
    """Objective difference grade and distortion index of a full set of model output variables."""
    hidden = _HIDDEN_BIAS.copy()
    for name, (low, high, weights) in _NETWORK.items():
        hidden += (movs[name] - low) / (high - low) * np.array(weights)
    index = float(_OUTPUT_BIAS + (_OUTPUT_WEIGHTS / (1 + np.exp(-hidden))).sum())
    return -3.98 + 4.2 / (1 + math.exp(-index)), index
