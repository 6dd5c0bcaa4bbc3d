"""Several metrics of one pair at once, by name."""

from collections.abc import Callable, Sequence

import numpy.typing as npt

from restorer.errors import ConfigError
from restorer.metrics.distances import lsd, mse, si_snr, snr
from restorer.metrics.peaq import peaq
from restorer.metrics.visqol import visqol

DEFAULT_METRICS = ("odg", "di", "lsd", "mse", "snr", "si_snr")
METRICS = (*DEFAULT_METRICS, "visqol")
_DISTANCES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "lsd": lsd,
    "mse": mse,
    "snr": snr,
    "si_snr": si_snr,
}


def measure(
    reference: npt.ArrayLike, test: npt.ArrayLike, sample_rate: int, which: Sequence[str] = DEFAULT_METRICS
) -> dict[str, float]:
    """The chosen metrics of a time-aligned pair, by name and in the order asked for.

    PEAQ runs once for ``odg`` and ``di``. LSD and MSE depend on the sample rate; the project quotes 44.1 kHz.

    Parameters
    ----------
    reference, test
        Floats in [-1, 1].
    sample_rate
        Of both, in Hz.
    which
        Any of odg, di, lsd, mse, snr, si_snr, visqol; by default all but the slow ViSQOL.

    Shape
    -----
    Both (samples,) or (channels, samples), equal.

    Raises
    ------
    ConfigError
        An unknown name.
    RestorerError
        The signals do not match, or a metric cannot judge them.
    """
    unknown = [name for name in which if name not in METRICS]
    if unknown:
        raise ConfigError(f"unknown metric {unknown[0]!r}; allowed are {', '.join(METRICS)}")
    values: dict[str, float] = {}
    if "odg" in which or "di" in which:
        result = peaq(reference, test, sample_rate)
        values |= {"odg": result.odg, "di": result.di}
    if "visqol" in which:
        values["visqol"] = visqol(reference, test, sample_rate)
    values |= {name: _DISTANCES[name](reference, test) for name in which if name in _DISTANCES}
    return {name: values[name] for name in which}
