"""A metric compares a pair of signals: the checks and the channel rule that all metrics share."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from restorer.errors import RestorerError

_LARGEST_SAMPLE = 1e6  # 120 dB over full scale: beyond it nothing is sound


def as_signal(name: str, value: npt.ArrayLike) -> np.ndarray:
    """The signal as an array, checked: (samples,) or (channels, samples) floats, at most 120 dB over full scale.

    `name` is what the RestorerError calls it.
    """
    signal = np.asarray(value)
    if not np.issubdtype(signal.dtype, np.floating):
        raise RestorerError(
            f"{name} has dtype {signal.dtype}; metrics need floats in [-1, 1], divide integers by full scale"
        )
    if signal.ndim not in (1, 2) or signal.size == 0:
        raise RestorerError(
            f"{name} has shape {signal.shape}; allowed are non-empty (samples,) and (channels, samples)"
        )
    if not np.isfinite(signal).all():
        raise RestorerError(f"{name} contains NaN or infinity; metrics need finite samples")
    if (loudest := np.abs(signal).max()) > _LARGEST_SAMPLE:
        raise RestorerError(f"{name} has samples of {loudest:.0e}; metrics need audio in [-1, 1]")
    return signal


def as_pair(reference: npt.ArrayLike, test: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both signals become float64 of shape (channels, samples).

    Parameters
    ----------
    reference, test
        Floats in [-1, 1], both (samples,) or both (channels, samples).

    Raises
    ------
    RestorerError
        The dtype is not floating, the shapes differ, or there is an empty axis, a NaN or an infinity.
    """
    one, other = as_signal("reference", reference), as_signal("test", test)
    if one.shape != other.shape:
        raise RestorerError(
            f"reference has shape {one.shape} and test {other.shape}; "
            "they must be equal, bring them together with restorer.metrics.align"
        )
    return np.atleast_2d(one).astype(np.float64), np.atleast_2d(other).astype(np.float64)


def check_rate(sample_rate: int) -> None:
    """Raise RestorerError unless the sample rate is positive."""
    if sample_rate <= 0:
        raise RestorerError(f"sample_rate is {sample_rate} Hz; it must be positive")


def mean_over_channels(
    metric: Callable[[np.ndarray, np.ndarray], float], reference: npt.ArrayLike, test: npt.ArrayLike
) -> float:
    """The value of several channels is the mean of the metric over them; `metric` sees (samples,) float64."""
    pair = as_pair(reference, test)
    return float(np.mean([metric(one, other) for one, other in zip(*pair, strict=True)]))
