"""PEAQ basic (ITU-R BS.1387-1): objective difference grade and distortion index.

The standard leaves details open; they follow Kabal, "An Examination and Interpretation of ITU-R BS.1387",
McGill University, 2002.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from restorer.errors import RestorerError
from restorer.metrics.pairs import as_pair, check_rate
from restorer.metrics.peaq_ear import FRAME, HOP, SAMPLE_RATE_HZ, listen
from restorer.metrics.peaq_movs import DELAY_FRAMES, WINDOW_FRAMES, channel_movs, detection, grade, loud_from
from restorer.metrics.peaq_patterns import process

# The signal starts and ends where five samples in a row sum to 200 sixteen-bit steps.
_BOUNDARY_SAMPLES = 5
_BOUNDARY_SUM = 200 / 32768


@dataclass(frozen=True)
class PeaqResult:
    """Result of one PEAQ basic comparison.

    odg
        Objective difference grade: 0 imperceptible, -1 perceptible, -2 slightly annoying, -3 annoying, -4
        very annoying. Equal signals give about +0.2.
    di
        Distortion index: the grade before its last squashing; higher is better. Separates very bad signals.
    movs
        The eleven model output variables by their names in the standard.
    """

    odg: float
    di: float
    movs: dict[str, float]


def _as_played(signal: np.ndarray, sample_rate: int) -> np.ndarray:
    """The signal as a 48 kHz, 16-bit file would hold it, still full scale = 1.0.

    The rounding is part of the measure: the bandwidth variables take the loudest bin above 21.6 kHz as the
    noise floor. In floating point that floor is far below hearing, inaudible residue counts as bandwidth, and
    a 64 kbit/s MP3 gains 0.7 grades.
    """
    if sample_rate != SAMPLE_RATE_HZ:
        signal = soxr.resample(signal.T, sample_rate, SAMPLE_RATE_HZ, quality="VHQ").T
    return np.clip(np.round(signal * 32768), -32768, 32767) / 32768


def _bounds(reference: np.ndarray) -> tuple[int, int]:
    """First frame inside the data and number of frames up to its end, over all channels."""
    begin, end = reference.shape[1], 0
    for channel in reference:
        sums = np.convolve(np.abs(channel), np.ones(_BOUNDARY_SAMPLES), mode="valid")
        loud = np.flatnonzero(sums >= _BOUNDARY_SUM)
        if loud.size:
            begin = min(begin, int(loud[0]))
            end = max(end, int(loud[-1]) + _BOUNDARY_SAMPLES)
    return begin // HOP, (end - FRAME // 2) // HOP + 1


def peaq(reference: npt.ArrayLike, test: npt.ArrayLike, sample_rate: int) -> PeaqResult:
    """Grade `test` against `reference` as a listener would: PEAQ basic, always at 48 kHz.

    Two channels are judged binaurally as in the standard: a difference heard in one ear counts, all other
    variables are means over channels. More channels follow the same rule. PEAQ was made for small
    impairments: a test that is missing altogether gets only about -1.4.

    Parameters
    ----------
    reference, test
        Floats in [-1, 1], time-aligned; full scale plays at 92 dB SPL.
    sample_rate
        Of both, in Hz; other rates than 48 kHz are resampled (soxr VHQ). Then both are rounded to 16 bits.

    Shape
    -----
    Both (samples,) or (channels, samples), equal.

    Raises
    ------
    RestorerError
        The signals do not match, or the reference has less than about 0.6 s of sound.
    """
    pair = as_pair(reference, test)
    check_rate(sample_rate)
    one, other = (_as_played(signal, sample_rate) for signal in pair)
    first, frames = _bounds(one)
    if frames - max(first, DELAY_FRAMES) < WINDOW_FRAMES:
        seconds = (DELAY_FRAMES + WINDOW_FRAMES) * HOP / SAMPLE_RATE_HZ
        raise RestorerError(
            f"reference has {max(frames - first, 0) * HOP / SAMPLE_RATE_HZ:.2f} s of sound; "
            f"PEAQ needs a reference that is not silent, of at least {seconds:.1f} s"
        )
    padding = ((0, 0), (0, max((frames + 1) * HOP - one.shape[1], 0)))
    one, other = np.pad(one, padding), np.pad(other, padding)

    ears = [listen(*channel, frames) for channel in zip(one, other, strict=True)]
    patterns = [process(ear) for ear in ears]
    start = loud_from(patterns, first)
    per_channel = [channel_movs(e, p, first, start) for e, p in zip(ears, patterns, strict=True)]
    movs = {name: float(np.mean([movs[name] for movs in per_channel])) for name in per_channel[0]}
    movs |= detection(patterns, first)
    odg, di = grade(movs)
    return PeaqResult(odg, di, movs)
