"""How much a quiet file is turned up before it is restored, and down again afterwards."""

from __future__ import annotations

import os

import numpy as np

from restorer.audio_in import AudioReader

QUIET_PEAK = 0.25  # below it models hold back more and more: they learnt from louder music (EXPERIMENTS 44)
_LARGEST = 2.0**12
_BLOCK_SAMPLES = 1 << 16


def gain_for_quiet(source: str | os.PathLike[str]) -> np.float32:
    """A gain that brings a file's peak to between 0.5 and 1 if it is below `QUIET_PEAK`; else 1.

    It is a power of two, so that undoing it changes no bit.

    Raises
    ------
    AudioFileError
        The file cannot be read, or holds NaN or infinity.
    """
    peak = 0.0
    with AudioReader(source, None) as reader:
        for block in reader.blocks(_BLOCK_SAMPLES):
            peak = max(peak, float(np.abs(block).max(initial=0)))
            if peak >= QUIET_PEAK:
                return np.float32(1)
    return np.float32(min(2.0 ** np.floor(-np.log2(peak)), _LARGEST) if peak else 1)
