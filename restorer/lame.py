"""MP3 coding with LAME through lameenc, an optional package (extra `mp3`)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DELAY_SAMPLES = 1105  # LAME's encoder delay 576 + the decoder's 529, at the coded rate
TAIL_SAMPLES = 4096  # zeros appended before coding, so that the delay cuts nothing off


def encode_mp3(audio: NDArray[Any], sample_rate: int, kbps: int, quality: int = 2) -> bytes:
    """Code audio at a constant bitrate and LAME's choice of coded rate; two channels become joint stereo.

    There is no LAME tag, so nothing trims the decoded audio: it comes DELAY_SAMPLES late, at the coded rate,
    and TAIL_SAMPLES of silence longer.

    Parameters
    ----------
    audio : (1 or 2 channels, samples) float in [-1, 1], clipped beyond.
    quality : LAME's, 0 (best) to 9.

    Raises
    ------
    ImportError : without lameenc.
    """
    import lameenc

    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_bit_rate(kbps)
    encoder.set_in_sample_rate(sample_rate)
    encoder.set_channels(len(audio))
    encoder.set_quality(quality)
    padded = np.pad(np.clip(audio, -1.0, 1.0), ((0, 0), (0, TAIL_SAMPLES)))
    integers = np.rint(padded * 32767.0).astype("<i2")
    return bytes(encoder.encode(np.ascontiguousarray(integers.T).tobytes())) + bytes(encoder.flush())
