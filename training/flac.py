"""Originals as FLAC files."""

import io
from pathlib import Path

import numpy as np
import soundfile

from restorer.training.mp3 import SAMPLE_RATE
from restorer.whole_file import whole_file


def write_flac(path: Path, audio: np.ndarray) -> None:
    """Write (channels, samples) at 44.1 kHz with 16 bits, whole or not at all.

    Raises
    ------
    OSError
        The disk refuses.
    """
    flac = io.BytesIO()  # of a disk that refuses, libsndfile would not tell why
    soundfile.write(flac, audio.T, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    with whole_file(path) as partial:
        partial.write_bytes(flac.getbuffer())
