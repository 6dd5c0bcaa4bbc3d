"""MP3 coding with LAME through lameenc, an optional package (extra `mp3`)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DELAY_SAMPLES = 1105  # LAME's encoder delay 576 + the decoder's 529, at the coded rate
TAIL_SAMPLES = 4096  # zeros appended before coding, so that the delay cuts nothing off

_ABR, _VBR = 3, 4  # of LAME's vbr_mode


def encode_mp3(
    audio: NDArray[Any],
    sample_rate: int,
    kbps: int,
    quality: int = 2,
    coded_rate_hz: int | None = None,
    average: bool = False,
    vbr_quality: int | None = None,
) -> bytes:
    """Code audio, at a constant bitrate unless told otherwise; two channels become joint stereo.

    There is no LAME tag, so nothing trims the decoded audio: it comes DELAY_SAMPLES late, at the coded rate,
    and TAIL_SAMPLES of silence longer.

    Parameters
    ----------
    audio : (1 or 2 channels, samples) float in [-1, 1], clipped beyond.
    quality : LAME's, 0 (best) to 9.
    coded_rate_hz : sample rate of the MP3; None: LAME's choice for the bitrate, 16 to 32 kHz below 64 kbit/s a channel.
        A bitrate that MPEG audio does not have at this rate is rounded to the nearest, and the low-pass stays the
        asked bitrate's: 16 kbit/s at 44100 Hz becomes 32 kbit/s with nothing above 5.5 kHz.
    average : `kbps` holds in the mean alone (LAME's ABR).
    vbr_quality : LAME's -V, 0 (best) to 9 (smallest): a variable bitrate, and `kbps` says nothing; None: by `kbps`.

    Raises
    ------
    ImportError : without lameenc.
    """
    import lameenc

    encoder = lameenc.Encoder()
    encoder.silence()
    if vbr_quality is not None:
        encoder.set_vbr(_VBR)
        encoder.set_vbr_quality(vbr_quality)
    elif average:
        encoder.set_vbr(_ABR)
        encoder.set_vbr_mean_bitrate_kbps(kbps)
    else:
        encoder.set_bit_rate(kbps)
    encoder.set_in_sample_rate(sample_rate)
    if coded_rate_hz is not None:
        encoder.set_out_sample_rate(coded_rate_hz)
    encoder.set_channels(len(audio))
    encoder.set_quality(quality)
    padded = np.pad(np.clip(audio, -1.0, 1.0), ((0, 0), (0, TAIL_SAMPLES)))
    integers = np.rint(padded * 32767.0).astype("<i2")
    return bytes(encoder.encode(np.ascontiguousarray(integers.T).tobytes())) + bytes(encoder.flush())
