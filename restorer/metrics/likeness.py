"""Likeness: whether two aligned recordings are of the same sound at all, which alignment alone does not tell."""

import numpy as np
import numpy.typing as npt

from restorer.metrics.pairs import as_pair


def likeness(reference: npt.ArrayLike, test: npt.ArrayLike) -> float:
    """Correlation of two aligned signals: 1 is the same but for level and offset, 0 unrelated, -1 inverted.

    Over all channels and samples; 1 if both are constant and 0 if one is.

    Parameters
    ----------
    reference, test
        Floats in [-1, 1], both (samples,) or both (channels, samples).

    Raises
    ------
    RestorerError
        As `restorer.metrics.pairs.as_pair`.
    """
    one, other = (signal - signal.mean(axis=1, keepdims=True) for signal in as_pair(reference, test))
    energies = np.square(one).sum(), np.square(other).sum()
    if not all(energies):
        return float(not any(energies))
    return float((one * other).sum() / np.sqrt(energies[0] * energies[1]))
