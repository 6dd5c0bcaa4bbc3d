"""The ways in which other people's MP3s came about: constant, average and variable bitrates, once and again."""

import re

import numpy as np

from restorer.errors import ConfigError
from restorer.model_checks import shown
from restorer.training.mp3 import LAME_GAIN, Coding, round_trip
from restorer.transform import Float32

QUALITIES = (2, 2, 2, 5, 7)  # of LAME, drawn evenly
EARLIER = ("64j", "96j", "128j", "192j", "a128j", "v4j", "v6j")  # what a file was before somebody coded it again
_NAME = re.compile(r"(?P<kind>[av]?)(?P<number>\d{1,3})(?P<channels>[mj])")
# By which LAME 3.100 scales its input, up to each bitrate; a variable one is not scaled.
_GAINS = {160: LAME_GAIN, 192: 0.97, 224: 0.98, 320: 1.0}


def parse_setting(name: str) -> Coding:
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
        return Coding(0, stereo, vbr_quality=number)
    return Coding(number, stereo, average=found["kind"] == "a")


def gain_of(coding: Coding) -> float:
    """By which LAME scales what it codes."""
    return 1.0 if coding.vbr_quality is not None else next(g for most, g in _GAINS.items() if coding.kbps <= most)


def levelled_round_trip(audio: Float32, coding: Coding, quality: int) -> Float32:
    """`round_trip`, but whatever the coding, it comes at the level of most of LAME's MP3s, `LAME_GAIN`."""
    return round_trip(audio, coding, quality) * np.float32(LAME_GAIN / gain_of(coding))


def code_earlier(audio: Float32, rng: np.random.Generator) -> Float32:
    """What is left of (2, samples) in a file that will be coded again, at its own level."""
    coding = parse_setting(str(rng.choice(EARLIER)))
    return levelled_round_trip(audio, coding, int(rng.choice(QUALITIES))) / np.float32(LAME_GAIN)
