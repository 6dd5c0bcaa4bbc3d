"""Objective measures of how close a signal is to its original.

All take floats in [-1, 1], (samples,) or (channels, samples), in the order reference, test.
"""

from restorer.metrics.alignment import Aligned, align
from restorer.metrics.distances import lsd, mse, si_snr, snr
from restorer.metrics.measure import DEFAULT_METRICS, METRICS, measure
from restorer.metrics.peaq import PeaqResult, peaq
from restorer.metrics.visqol import visqol

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Aligned",
    "PeaqResult",
    "align",
    "lsd",
    "measure",
    "mse",
    "peaq",
    "si_snr",
    "snr",
    "visqol",
]
