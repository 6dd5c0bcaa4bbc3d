"""Signal distances: LSD, MSE and SNR as in section 3.4 of the paper, and SI-SNR."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal

from restorer.metrics.pairs import mean_over_channels

FRAME = 2048
HOP = 512
# Added to both power spectra before the logarithm. With audio in [-1, 1] and an un-normalised transform this
# reproduces the scale of the paper's table; LSD depends strongly on it and on the level of the audio.
LSD_POWER_FLOOR = 1e-3
_FRAMES_AT_ONCE = 1024


def _magnitudes(signal: np.ndarray) -> Iterator[np.ndarray]:
    """Magnitudes of the un-normalised STFT in pieces of at most (1024, 1025), so that memory stays flat."""
    if signal.size < FRAME:
        signal = np.pad(signal, (0, FRAME - signal.size))
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::HOP]
    window = scipy.signal.get_window("hann", FRAME)  # periodic
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        yield np.abs(scipy.fft.rfft(frames[start : start + _FRAMES_AT_ONCE] * window))


def lsd(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Log-spectral distance in dB, the paper's eq. 5; 0 for equal signals.

    Un-normalised STFT 2048/512, periodic Hann, whole frames only, of audio in [-1, 1]; 1e-3 is added to both
    power spectra. Mean over channels.

    Shape
    -----
    Both (samples,) or (channels, samples), equal.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(44100)
    >>> round(lsd(10 * noise, noise), 1)
    20.0
    """

    def one_channel(one: np.ndarray, other: np.ndarray) -> float:
        per_frame = [
            np.sqrt(np.mean((10 * np.log10((a**2 + LSD_POWER_FLOOR) / (b**2 + LSD_POWER_FLOOR))) ** 2, axis=1))
            for a, b in zip(_magnitudes(one), _magnitudes(other), strict=True)
        ]
        return float(np.mean(np.concatenate(per_frame)))

    return mean_over_channels(one_channel, reference, test)


def mse(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Mean squared error between magnitude spectra, the paper's eq. 6, with the STFT of `lsd`; 0 if equal.

    Shape
    -----
    Both (samples,) or (channels, samples), equal. Mean over channels.
    """

    def one_channel(one: np.ndarray, other: np.ndarray) -> float:
        per_frame = [np.mean((a - b) ** 2, axis=1) for a, b in zip(_magnitudes(one), _magnitudes(other), strict=True)]
        return float(np.mean(np.concatenate(per_frame)))

    return mean_over_channels(one_channel, reference, test)


def _ratio_db(signal: np.ndarray, error: np.ndarray) -> float:
    signal_energy, error_energy = float(np.dot(signal, signal)), float(np.dot(error, error))
    if error_energy == 0.0:
        return math.inf
    return 10 * math.log10(signal_energy / error_energy) if signal_energy > 0.0 else -math.inf


def snr(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Signal-to-noise ratio in dB, the paper's eq. 7; infinite if equal, -infinite for a silent reference.

    Shape
    -----
    Both (samples,) or (channels, samples), equal. Mean over channels.
    """
    return mean_over_channels(lambda one, other: _ratio_db(one, one - other), reference, test)


def si_snr(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-noise ratio in dB: gain and offset of `test` do not matter.

    Both means are removed, `test` is projected on `reference`, and the energies of the projection and of the
    rest are compared. -infinite for a silent reference or a test without any of it.

    Shape
    -----
    Both (samples,) or (channels, samples), equal. Mean over channels.
    """

    def one_channel(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one - one.mean(), other - other.mean()
        energy = float(np.dot(one, one))
        if energy == 0.0:
            return -math.inf
        projection = one * (float(np.dot(one, other)) / energy)
        if not projection.any():
            return -math.inf
        return _ratio_db(projection, other - projection)

    return mean_over_channels(one_channel, reference, test)
