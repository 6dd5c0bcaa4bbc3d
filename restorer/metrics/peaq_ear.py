"""FFT ear model of PEAQ basic: from samples to energies in 109 bands (ITU-R BS.1387-1, annex 2, section 2.1).

Sample scale: full scale is 1.0 and plays at 92 dB SPL. Powers are relative to 0 dB SPL.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

SAMPLE_RATE_HZ = 48000
FRAME = 2048
HOP = 1024
FRAMES_PER_SECOND = SAMPLE_RATE_HZ / HOP
BAND_WIDTH_BARK = 0.25
MIN_POWER = 1e-12
_PLAYBACK_DB = 92.0
_CALIBRATION_HZ = 1019.5
_BLOCK_FRAMES = 256

# Bandwidth: bins above 21.6 kHz hold only noise; a reference below 8.1 kHz does not count.
_NOISE_BIN = 921
_MIN_BANDWIDTH_BIN = 346
# Error harmonic structure: 256 lags of the log-spectrum difference; energies of samples in [-1, 1].
LAGS = 256
_MIN_ENERGY = 8000 / 32768**2


def _band_edges() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower, centre and upper frequencies in Hz of the quarter-Bark bands from 80 Hz to 18 kHz."""
    low, high = 7 * np.arcsinh(80 / 650), 7 * np.arcsinh(18000 / 650)
    lower = np.arange(low, high, BAND_WIDTH_BARK)
    upper = np.minimum(lower + BAND_WIDTH_BARK, high)
    return tuple(650 * np.sinh(bark / 7) for bark in (lower, (lower + upper) / 2, upper))  # type: ignore[return-value]


LOWER_HZ, CENTRE_HZ, UPPER_HZ = _band_edges()
BANDS = len(CENTRE_HZ)
INTERNAL_NOISE = 10 ** (0.1456 * (CENTRE_HZ / 1000) ** -0.8)


def frame_window() -> np.ndarray:
    """Symmetric Hann window, scaled so that a full-scale sine at 1019.5 Hz shows 92 dB in its nearest bin."""
    bin_offset = (_CALIBRATION_HZ * FRAME / SAMPLE_RATE_HZ) % 1
    offset = min(bin_offset, 1 - bin_offset) * (FRAME - 1) / FRAME
    peak = np.sin(np.pi * offset) / (np.pi * offset * (1 - offset**2))
    return 10 ** (_PLAYBACK_DB / 20) * np.hanning(FRAME) / (peak * (FRAME - 1) / 4)


def ear_weights(sample_rate_hz: float = SAMPLE_RATE_HZ) -> np.ndarray:
    """Power response of the outer and middle ear, one value per bin."""
    khz = np.arange(1, FRAME // 2 + 1) * sample_rate_hz / FRAME / 1000
    response_db = -2.184 * khz**-0.8 + 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) - 0.001 * khz**3.6
    return np.concatenate(([0.0], 10 ** (response_db / 10)))


def grouping(sample_rate_hz: float = SAMPLE_RATE_HZ) -> np.ndarray:
    """Share of each bin that falls into each band, (bins, bands); a bin reaches half a bin to either side."""
    edges = (np.arange(FRAME // 2 + 2) - 0.5) * sample_rate_hz / FRAME
    top = np.minimum(edges[1:, None], UPPER_HZ)
    bottom = np.maximum(edges[:-1, None], LOWER_HZ)
    return np.maximum(top - bottom, 0) * FRAME / sample_rate_hz


@dataclass(frozen=True)
class EarFrames:
    """What the ear model says of one channel: arrays of shape (frames, bands) or (frames,).

    reference, test
        Band powers with the ear's internal noise added ("pitch patterns").
    noise
        Band powers of the difference between the two weighted magnitude spectra.
    reference_bandwidth, test_bandwidth
        In bins; NaN in frames that do not count.
    harmonic_error
        How periodic the error is along frequency; NaN in frames too quiet to count.
    """

    reference: np.ndarray
    test: np.ndarray
    noise: np.ndarray
    reference_bandwidth: np.ndarray
    test_bandwidth: np.ndarray
    harmonic_error: np.ndarray


def _bandwidths(reference: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest bins 10 dB (reference) and 5 dB (test) above the test's top-end noise, (frames,) each."""
    noise = test[:, _NOISE_BIN : FRAME // 2].max(axis=1, keepdims=True)

    def highest(present: np.ndarray) -> np.ndarray:
        return np.where(present.any(axis=1), present.shape[1] - np.argmax(present[:, ::-1], axis=1), 0)

    reference_top = highest(reference[:, :_NOISE_BIN] > 10 * noise)
    below_reference = np.arange(_NOISE_BIN) < reference_top[:, None]
    test_top = highest((test[:, :_NOISE_BIN] >= 10**0.5 * noise) & below_reference)
    counted = reference_top > _MIN_BANDWIDTH_BIN
    return np.where(counted, reference_top, np.nan), np.where(counted, test_top, np.nan)


def _harmonic_error(reference: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Strength of a harmonic pattern in the error, from power spectra (frames, bins); (frames,)."""
    needed = 2 * LAGS - 1
    difference = np.log(np.maximum(test[:, :needed], MIN_POWER) / np.maximum(reference[:, :needed], MIN_POWER))
    head = scipy.fft.rfft(difference[:, :LAGS], 2 * LAGS)
    correlation = scipy.fft.irfft(head.conj() * scipy.fft.rfft(difference, 2 * LAGS))[:, :LAGS]
    energy = np.cumsum(np.pad(difference**2, ((0, 0), (1, 0))), axis=1)
    energy = energy[:, LAGS:] - energy[:, :LAGS]
    scale = np.sqrt(np.maximum(energy[:, :1] * energy, 0))
    correlation = np.divide(correlation, scale, out=np.ones_like(correlation), where=scale > 0)
    correlation -= correlation.mean(axis=1, keepdims=True)
    spectrum = np.abs(scipy.fft.rfft(correlation * np.hanning(LAGS) * np.sqrt(8 / 3) / LAGS)) ** 2
    rising = np.diff(spectrum, axis=1) > 0
    return np.where(rising, spectrum[:, 1:], 0).max(axis=1)


def listen(reference: np.ndarray, test: np.ndarray, frames: int) -> EarFrames:
    """Run the ear model over the first `frames` frames of one channel.

    Shape
    -----
    Both (samples,) float64 at 48 kHz, at least (frames + 1) * 1024 samples each.
    """
    window, weights, shares = frame_window(), ear_weights(), grouping()
    views = [np.lib.stride_tricks.sliding_window_view(x, FRAME)[::HOP][:frames] for x in (reference, test)]
    blocks = []
    for start in range(0, frames, _BLOCK_FRAMES):
        samples = [view[start : start + _BLOCK_FRAMES] for view in views]
        powers = [np.abs(scipy.fft.rfft(block * window)) ** 2 for block in samples]
        noise = (np.sqrt(powers[0]) - np.sqrt(powers[1])) ** 2
        bands = [np.maximum((power * weights) @ shares, MIN_POWER) for power in (*powers, noise)]
        energies = [np.einsum("ij,ij->i", block[:, HOP:], block[:, HOP:]) for block in samples]
        quiet = np.maximum(*energies) < _MIN_ENERGY
        blocks.append(
            (
                bands[0] + INTERNAL_NOISE,
                bands[1] + INTERNAL_NOISE,
                bands[2],
                *_bandwidths(*powers),
                np.where(quiet, np.nan, _harmonic_error(*powers)),
            )
        )
    return EarFrames(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
