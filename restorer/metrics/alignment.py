"""Time alignment: a codec delays its output, and every metric but LSD punishes that."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.signal

from restorer.errors import RestorerError
from restorer.metrics.pairs import as_signal, check_rate

# Half a minute decides; more would only cost time and memory.
_DECIDING_SECONDS = 30


class Aligned(NamedTuple):
    """A pair brought together: how many samples the test was late, and what both signals have in common."""

    lag_samples: int
    reference: np.ndarray
    test: np.ndarray


def _find_lag(reference: np.ndarray, test: np.ndarray, max_lag: int) -> int:
    """Lag of the highest cross-correlation, summed over channels; the first difference sharpens its peak."""
    total = np.zeros(2 * max_lag + 1)
    for one, other in zip(np.diff(reference), np.diff(test), strict=True):
        size = len(one) + max_lag
        one, other = np.pad(one, (0, size - len(one))), np.pad(other, (0, size - len(other)))
        correlation = scipy.signal.correlate(other, one, mode="full", method="fft")
        total += correlation[size - 1 - max_lag : size + max_lag]
    return int(np.argmax(total)) - max_lag if total.any() else 0


def align(reference: npt.ArrayLike, test: npt.ArrayLike, sample_rate: int, max_lag_seconds: float = 0.5) -> Aligned:
    """Find the lag between two recordings of the same sound and cut both to what they have in common.

    ``test[n + lag_samples]`` is the same moment as ``reference[n]``: a positive lag means the test is late.
    Whole samples; up to 30 s around the middle decide.

    Parameters
    ----------
    reference, test
        Floats; the lengths may differ, the number of channels may not.
    sample_rate
        Of both, in Hz.
    max_lag_seconds
        Lags beyond this are not considered.

    Returns
    -------
    Aligned
        (lag_samples, reference, test); the signals have equal shapes and the dimensions of the input.

    Shape
    -----
    (samples,) or (channels, samples).
    """
    one, other = as_signal("reference", reference), as_signal("test", test)
    check_rate(sample_rate)
    if one.shape[:-1] != other.shape[:-1]:
        raise RestorerError(
            f"reference has shape {one.shape} and test {other.shape}; their channels must be equal, "
            "mix one of them first"
        )
    common = min(one.shape[-1], other.shape[-1])
    deciding = min(common, _DECIDING_SECONDS * sample_rate)
    middle = slice((common - deciding) // 2, (common + deciding) // 2)
    max_lag = min(round(max_lag_seconds * sample_rate), deciding - 1)
    lag = 0
    if max_lag > 0:
        lag = _find_lag(np.atleast_2d(one)[:, middle], np.atleast_2d(other)[:, middle], max_lag)
    one, other = one[..., max(-lag, 0) :], other[..., max(lag, 0) :]
    common = min(one.shape[-1], other.shape[-1])
    return Aligned(lag, one[..., :common], other[..., :common])
