"""Soundfonts say what is in them, lie without effect, and are played by a program that may fail."""

import shutil
import time

import numpy as np
import pytest

pytest.importorskip("mido")
pytest.importorskip("pedalboard")

from toy_rendering import RATE_HZ, soundfont, write_fluidsynth

from restorer.errors import ConfigError, RestorerError
from restorer.training.rendering.fluidsynth import find_fluidsynth, play
from restorer.training.rendering.notes import DRUM_CHANNEL, Note
from restorer.training.rendering.soundfont import SoundFont

PRESETS = [(0, 0), (0, 4), (0, 41), (0, 100), (128, 0), (128, 25), (8, 3)]
NOTES = [Note(0.0, 1.0, 69, 100), Note(0.5, 0.5, 76, 100, 1), Note(1.0, 0.1, 36, 100, DRUM_CHANNEL)]


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.sf2").write_bytes(soundfont(PRESETS))
    return SoundFont.read(tmp_path / "toy.sf2")


def test_presets_are_those_of_the_file(toy):
    assert toy.programs == {0, 4, 41, 100} and toy.kits == {0, 25}


def test_what_is_missing_is_replaced_by_its_family_or_a_piano(toy):
    rng = np.random.default_rng(0)
    assert toy.nearest(41, rng) == 41
    assert {toy.nearest(44, rng) for _ in range(9)} == {41}
    assert {toy.nearest(70, rng) for _ in range(40)} == {0, 4}
    assert {toy.draw_kit(rng) for _ in range(60)} == {0, 25}
    lonely = SoundFont(toy.path, frozenset({77}), frozenset())
    assert lonely.nearest(3, rng) == 77 and lonely.draw_kit(rng) is None
    assert SoundFont(toy.path, frozenset({77}), frozenset({99})).draw_kit(rng) == 99


def test_truncated_and_lying_files_are_refused_or_read_and_nothing_else(tmp_path):
    whole, path = soundfont(PRESETS), tmp_path / "broken.sf2"
    head = len(whole) - whole.index(b"phdr") + 300
    rng = np.random.default_rng(0)
    for length in [*range(0, 80), *range(80, len(whole), 97)]:
        path.write_bytes(whole[:length])
        with pytest.raises(RestorerError, match="no soundfont"):
            SoundFont.read(path)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for place in rng.integers(head, size=rng.integers(1, 5)):  # where its structure is
            data[place if place < 300 else place - head] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
        path.write_bytes(data)
        try:
            font = SoundFont.read(path)
        except RestorerError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert font.programs and all(0 <= number < 128 for number in font.programs | font.kits)
    assert refused > 10


def test_other_files_are_refused(tmp_path):
    (tmp_path / "drums.sf2").write_bytes(soundfont([(128, 0)]))
    with pytest.raises(RestorerError, match="no melodic instruments"):
        SoundFont.read(tmp_path / "drums.sf2")
    (tmp_path / "song.wav").write_bytes(b"RIFF\x04\0\0\0WAVE")
    with pytest.raises(RestorerError, match=r"song\.wav' is no soundfont"):
        SoundFont.read(tmp_path / "song.wav")
    with pytest.raises(RestorerError, match="cannot be read"):
        SoundFont.read(tmp_path / "none.sf2")


def test_fluidsynth_is_found_on_the_path_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no program 'fluidsynth' is on the PATH; install it"):
        find_fluidsynth()
    program = write_fluidsynth(tmp_path)
    assert find_fluidsynth() == str(program)


def sound(program, font, **words):
    return play(str(program), font.path, NOTES, {0: 0, 1: 4}, 0, np.random.default_rng(0), **words)


def test_notes_become_sound(tmp_path, toy):
    audio = sound(write_fluidsynth(tmp_path), toy)
    assert audio.shape[0] == 2 and audio.dtype == np.float32
    assert RATE_HZ < audio.shape[1] < 6 * RATE_HZ and np.abs(audio).max() > 0.05


def test_a_fluidsynth_that_fails_or_hangs_does_not_stop_anything(tmp_path, toy):
    for mode, message in (("fail", "status 1: fluidsynth: error: no such luck"), ("mute", "wrote no sound")):
        with pytest.raises(RestorerError, match=message):
            sound(write_fluidsynth(tmp_path / mode, mode), toy)
    started = time.monotonic()
    with pytest.raises(RestorerError, match="did not end within"):
        sound(write_fluidsynth(tmp_path / "hang", "hang"), toy, timeout_seconds=0.5)
    assert time.monotonic() - started < 10
    with pytest.raises(RestorerError, match="cannot be started"):
        sound(tmp_path / "none", toy)


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs FluidSynth")
def test_the_real_fluidsynth_plays_pitches(toy):
    audio = play(find_fluidsynth(), toy.path, NOTES[:1], {0: 0}, 0, np.random.default_rng(0))
    mono = audio.mean(axis=0)[:RATE_HZ]
    spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
    assert np.abs(audio).max() > 0.01
    assert spectrum.argmax() * RATE_HZ / len(mono) == pytest.approx(441, abs=3)
