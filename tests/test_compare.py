"""`restorer compare` finds delay and level by band, and draws what it found."""

import re

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from matplotlib.image import imread

from restorer.cli import main
from restorer.metrics.likeness import likeness
from restorer.synthesis import synthesize

RATE_HZ = 44100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    music = synthesize(seconds=3, seed=5, channels=1)[0] * 0.5
    spectrum = np.fft.rfft(music)
    spectrum[np.fft.rfftfreq(len(music), 1 / RATE_HZ) > 8000] = 0
    dull = np.fft.irfft(spectrum, len(music)) / 2
    soundfile.write(folder / "a.wav", music, RATE_HZ)
    soundfile.write(folder / "late.wav", np.pad(dull, (1000, 0)), RATE_HZ, subtype="FLOAT")
    soundfile.write(folder / "early.wav", np.stack([music[300:]] * 2, axis=1), RATE_HZ)
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def rows(output):
    return {
        line.split(" to ")[0]: re.findall(r"[+-]\d+\.\d", line)[-2:] for line in output.splitlines() if " to " in line
    }


def test_delays_and_levels_are_found(folder):
    result = run(folder / "a.wav", folder / "late.wav", folder / "early.wav")
    assert result.exit_code == 0, result.output
    assert "+1000 samples" in result.output and "-300 samples" in result.output
    late, early = (float(value) for value in rows(result.output)["1"])
    assert late == pytest.approx(-6.0, abs=0.2) and early == pytest.approx(0.0, abs=0.1)
    assert float(rows(result.output)["12"][0]) < -25


def test_strangers_are_warned_of_and_versions_are_not(folder, tmp_path):
    soundfile.write(tmp_path / "other.wav", synthesize(seconds=3, seed=6, channels=1)[0], RATE_HZ)
    result = run(folder / "a.wav", folder / "late.wav", tmp_path / "other.wav", folder / "early.wav")
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"Warning: {tmp_path / 'other.wav'}: correlates with {folder / 'a.wav'} by ")
    assert "another song" in warning


def test_likeness_is_a_correlation(rng):
    one, other = rng.uniform(-0.5, 0.5, (2, 2, 50000))
    assert likeness(one, 0.1 + one / 3) == pytest.approx(1) and likeness(one, -one) == pytest.approx(-1)
    assert abs(likeness(one, other)) < 0.02
    assert likeness(one, one + other) == pytest.approx(0.5**0.5, abs=0.02)
    silence = np.zeros((2, 50000))
    assert (likeness(silence, silence), likeness(one, silence), likeness(silence, one)) == (1, 0, 0)


def test_picture_is_drawn_and_complete(folder, tmp_path):
    result = run(folder / "a.wav", folder / "late.wav", "--png", tmp_path / "out.png", "--seconds", 2)
    assert result.exit_code == 0, result.output
    picture = imread(tmp_path / "out.png")
    assert picture.shape[0] > 500 and picture.shape[1] > 900
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_impossible_requests_are_one_line(folder, tmp_path):
    for arguments, words in (
        ((folder / "a.wav", folder / "late.wav", "--png", tmp_path / "out.jpg"), ".png"),
        ((folder / "a.wav", folder / "late.wav", "--png", tmp_path / "no" / "out.png"), "does not exist"),
        ((folder / "a.wav", folder / "late.wav", "--start", 100), "--start"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and words in result.output
        assert len(result.output.strip().splitlines()) == 1
