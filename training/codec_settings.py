"""The ways in which other people's MP3s came about: constant, average and variable bitrates, once and again."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restorer import lame
from restorer.errors import ConfigError
from restorer.model_checks import shown
from restorer.training.mp3 import LAME_GAIN, SAMPLE_RATE, Mp3

Float32 = NDArray[np.float32]

QUALITIES = (2, 2, 2, 5, 7)  # of LAME, drawn evenly
EARLIER = ("64j", "96j", "128j", "192j", "a128j", "v4j", "v6j")  # what a file was before somebody coded it again
_NAME = re.compile(r"(?P<kind>[av]?)(?P<number>\d{1,3})(?P<channels>[mj])")
# By which LAME 3.100 scales its input, up to each bitrate; a variable one is not scaled.
_GAINS = {160: LAME_GAIN, 192: 0.97, 224: 0.98, 320: 1.0}


@dataclass(frozen=True)
class CodecSetting:
    """How LAME codes a song. `vbr_quality` is its -V, 0 (best) to 9 (smallest), and leaves `kbps` at 0."""

    kbps: int
    stereo: bool
    average: bool = False
    vbr_quality: int | None = None

    @classmethod
    def parse(cls, name: str) -> "CodecSetting":
        """Read a name: 64m (kbit/s, mono), 128j (joint stereo), a96j (on average), v5m (-V 5).

        Raises
        ------
        ConfigError
            It is none.
        """
        found = _NAME.fullmatch(name)
        number = int(found["number"]) if found else -1
        if not found or (number > 9 if found["kind"] == "v" else not 8 <= number <= 320):
            raise ConfigError(f"a coding must be such as 16m, 64j, a96j or v5m and not {shown(name)}")
        stereo = found["channels"] == "j"
        if found["kind"] == "v":
            return cls(0, stereo, vbr_quality=number)
        return cls(number, stereo, average=found["kind"] == "a")

    @property
    def gain(self) -> float:
        """By which LAME scales what it codes."""
        return 1.0 if self.vbr_quality is not None else next(g for most, g in _GAINS.items() if self.kbps <= most)

    def round_trip(self, audio: Float32, quality: int = 2) -> Float32:
        """Code and decode audio; whatever the setting, it comes at the level of most of LAME's MP3s, `LAME_GAIN`.

        Shape: (channels, samples) at 44.1 kHz -> (1, if not stereo, or channels, samples), aligned.
        """
        channels = audio if self.stereo else audio.mean(axis=0, keepdims=True)
        data = lame.encode_mp3(
            channels, SAMPLE_RATE, self.kbps, quality, average=self.average, vbr_quality=self.vbr_quality
        )
        return Mp3.index(data).decode(0, audio.shape[1]) * np.float32(LAME_GAIN / self.gain)


def code_earlier(audio: Float32, rng: np.random.Generator) -> Float32:
    """What is left of (2, samples) in a file that will be coded again, at its own level."""
    setting = CodecSetting.parse(str(rng.choice(EARLIER)))
    return setting.round_trip(audio, int(rng.choice(QUALITIES))) / np.float32(LAME_GAIN)
