"""Every way to code lands on the original's samples, at one level."""

import numpy as np
import pytest

pytest.importorskip("lameenc")
pytest.importorskip("torch")

from restorer.errors import ConfigError
from restorer.metrics import snr
from restorer.synthesis import synthesize
from restorer.training.codec_settings import code_earlier, levelled_round_trip, parse_setting
from restorer.training.mp3 import LAME_GAIN, Coding

RATE_HZ = 44100


@pytest.fixture(scope="module")
def music():
    """Half of it nearly silent, where a variable bitrate saves."""
    audio = synthesize(4.0, RATE_HZ, 11, 2)
    audio[:, : 2 * RATE_HZ] *= 1e-3
    return audio


@pytest.mark.parametrize("name", ["32m", "128j", "192m", "224m", "320j", "a56m", "a112j", "v9m", "v4j", "v0m"])
def test_what_comes_back_is_aligned_whole_and_at_one_level(music, name):
    coding = parse_setting(name)
    coded = levelled_round_trip(music, coding, 2)
    original = music if coding.stereo else music.mean(axis=0, keepdims=True)
    assert coded.shape == original.shape and coded.dtype == np.float32
    assert snr(original, coded / LAME_GAIN) > 12  # one sample of shift, or a stretch that is missing, would leave less
    assert np.vdot(original, coded) / np.vdot(original, original) == pytest.approx(LAME_GAIN, rel=0.02)


def test_names_are_read_or_refused():
    assert parse_setting("a96j") == Coding(96, True, average=True)
    assert parse_setting("v5m") == Coding(0, False, vbr_quality=5)
    for name in ("64m", "128j", "a96j", "v5m"):
        assert parse_setting(name).name == name
    for name in ("", "64", "v10m", "5m", "321j", "b64m", "64jm", "a96", "²m"):
        with pytest.raises(ConfigError, match="a coding must be such as"):
            parse_setting(name)


def test_what_was_coded_before_is_the_same_music(music):
    earlier = code_earlier(music, np.random.default_rng(3))
    assert earlier.shape == music.shape
    assert 12 < snr(music, earlier) < 60
