"""MP3 coding with LAME, frame lookup, and decoding that lands on the original's sample grid.

A coded song is kept as the MP3 itself: a tenth of the size of decoded audio, and exactly what users have.
Any stretch of it can be decoded without the rest, because frames have a constant length in samples; the first
few frames after a cut are discarded, until the bit reservoir and the overlap are filled again.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from restorer import lame
from restorer.mpeg_frames import RATES_HZ, frame_bytes, frame_samples, info_frames

SAMPLE_RATE = 44100
LAME_GAIN = 0.95  # by which LAME scales its input
CODED_RATES_HZ = (16000, 22050, 24000, 32000, 44100, 48000)  # that can be asked for: MPEG-2 and MPEG-1
WARMUP_FRAMES = 12  # more than the nine frames a bit reservoir can reach back


@dataclass(frozen=True)
class Coding:
    """One way to code a song, mono or joint stereo: a constant bitrate unless it says otherwise.

    `vbr_quality` is LAME's -V, 0 (best) to 9 (smallest), and leaves `kbps` at 0.
    """

    kbps: int
    stereo: bool
    average: bool = False
    vbr_quality: int | None = None

    @property
    def name(self) -> str:
        rate = f"{'a' * self.average}{self.kbps}" if self.vbr_quality is None else f"v{self.vbr_quality}"
        return f"{rate}{'j' if self.stereo else 'm'}"

    @classmethod
    def parse(cls, name: str) -> "Coding":
        """Read the name of a constant bitrate; `codec_settings.parse_setting` reads the others too."""
        return cls(int(name[:-1]), name[-1] == "j")


def encode_mp3(
    audio: np.ndarray,
    coding: Coding,
    sample_rate: int = SAMPLE_RATE,
    quality: int = 2,
    coded_rate_hz: int | None = None,
) -> bytes:
    """Code audio with LAME as `coding` says: (channels, samples) float, averaged to one channel for mono."""
    channels = audio if coding.stereo else audio.mean(axis=0, keepdims=True)
    return lame.encode_mp3(
        channels, sample_rate, coding.kbps, quality, coded_rate_hz, coding.average, coding.vbr_quality
    )


@dataclass(frozen=True)
class Mp3:
    """An MP3 in memory with the byte offset of each frame, for decoding any stretch of it."""

    data: bytes
    offsets: np.ndarray  # (frames + 1,) int64, the last is the end
    frame_samples: int
    sample_rate: int
    channels: int

    @classmethod
    def index(cls, data: bytes) -> "Mp3":
        offsets, position = [], 0
        samples, sample_rate, channels = 1152, SAMPLE_RATE, 1
        while position + 4 <= len(data):
            header = int.from_bytes(data[position : position + 4], "big")
            length = frame_bytes(header)
            if not length:
                raise ValueError(f"no MPEG frame header at byte {position}")
            version = (header >> 19) & 3
            sample_rate = RATES_HZ[version][(header >> 10) & 3]
            samples = frame_samples(header)
            channels = 1 if (header >> 6) & 3 == 3 else 2
            offsets.append(position)
            position += length
        return cls(data, np.array([*offsets, len(data)], np.int64), samples, sample_rate, channels)

    @property
    def kbps(self) -> int:
        """The bitrate as it is written; of many frames, since their padding evens out."""
        frames = len(self.offsets) - 1
        return round(8e-3 * int(self.offsets[-1]) * self.sample_rate / (frames * self.frame_samples))

    def decode(self, start: int, samples: int, quick: bool = False) -> np.ndarray:
        """Decode samples [start, start + samples) of the ORIGINAL's 44.1 kHz time line.

        With `quick` decoding begins a few frames before the stretch and not at the start of the file: the
        same samples hundreds of times faster, but libmpg123 complains on stderr about the cut bit reservoir.

        Returns
        -------
        (channels, samples) float32 at 44.1 kHz; silence where the MP3 has nothing.
        """
        up, down = SAMPLE_RATE, self.sample_rate
        divisor = np.gcd(up, down)
        up, down = up // divisor, down // divisor
        margin = 512  # resampler transient, in periods of `down` coded samples where that is short
        unit = down * max(1, -(-margin // down))
        first = (start * down // up) // unit * unit - unit  # coded sample, a multiple of `down`
        last = -(-(start + samples) * down // up) + unit
        coded = self._decode_coded(first, last, quick)
        audio = coded if up == down else soxr.resample(coded, down, up, quality="VHQ")
        skip = start - first * up // down
        audio = audio[skip : skip + samples]
        if len(audio) < samples:
            audio = np.pad(audio, ((0, samples - len(audio)), (0, 0)))
        return np.ascontiguousarray(audio.T)

    def _decode_coded(self, first: int, last: int, quick: bool) -> np.ndarray:
        """Decode aligned samples [first, last) at the coded rate as (samples, channels)."""
        begin, end = first + lame.DELAY_SAMPLES, last + lame.DELAY_SAMPLES
        frames = len(self.offsets) - 1
        if begin >= frames * self.frame_samples:
            return np.zeros((last - first, self.channels), np.float32)
        frame0 = 0
        if quick:
            frame0 = int(np.clip(begin // self.frame_samples - WARMUP_FRAMES, 0, max(0, frames - WARMUP_FRAMES)))
        frame1 = int(np.clip(-(-end // self.frame_samples) + 1, frame0 + 1, frames))
        piece = self.data[self.offsets[frame0] : self.offsets[frame1]]
        # Without a count of frames libsndfile guesses a length from the first one's size, and stops there.
        header = int.from_bytes(piece[:4], "big")
        piece = info_frames(header, frame1 - frame0) + piece
        audio, _ = soundfile.read(io.BytesIO(piece), dtype="float32", always_2d=True)
        begin, end = begin - frame0 * self.frame_samples, end - frame0 * self.frame_samples
        before, after = max(0, -begin), max(0, end - len(audio))
        audio = audio[max(0, begin) : max(0, end)]
        return np.pad(audio, ((before, after), (0, 0)))


def round_trip(audio: np.ndarray, coding: Coding, quality: int = 2) -> np.ndarray:
    """Code and decode audio: what a listener gets of it, aligned with it.

    Shape: (channels, samples) at 44.1 kHz -> (1 or channels, samples) at 44.1 kHz.
    """
    return Mp3.index(encode_mp3(audio, coding, quality=quality)).decode(0, audio.shape[1])


def rounded_codings(codings: Iterable[str], coded_rate_hz: int | None) -> dict[str, int]:
    """The bitrates in kbit/s that LAME really writes where a coded rate does not have the asked ones.

    Found by coding a second of silence.
    """
    written = {}
    for name in codings if coded_rate_hz is not None else ():
        coding = Coding.parse(name)
        mp3 = Mp3.index(encode_mp3(np.zeros((2, SAMPLE_RATE)), coding, quality=9, coded_rate_hz=coded_rate_hz))
        if mp3.kbps != coding.kbps:
            written[name] = mp3.kbps
    return written


def describe_rounding(written: dict[str, int], coded_rate_hz: int | None) -> str:
    """One line about what `rounded_codings` found."""
    pairs = ", ".join(f"{name} as {kbps}" for name, kbps in written.items())
    return (
        f"there is no such bitrate at {coded_rate_hz} Hz, so LAME writes {pairs} kbit/s, "
        "low-passed as for the bitrate that was asked for"
    )
