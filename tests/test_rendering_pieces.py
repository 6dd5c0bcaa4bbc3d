"""Pieces: the same wherever they are made, drawn again where they cannot be used, and written whole."""

import pickle

import numpy as np
import pytest
import soundfile

pytest.importorskip("mido")
pytest.importorskip("pedalboard")

from toy_rendering import soundfont, square, square_or_die, write_fluidsynth, write_midi

from restorer.errors import RestorerError
from restorer.training.rendering import pieces
from restorer.training.rendering.materials import SHORTEST_SECONDS, Materials
from restorer.training.rendering.notes import read_midi
from restorer.training.rendering.pieces import finish, make_piece, write_piece
from restorer.training.rendering.rendered import render
from restorer.training.rendering.soundfont import SoundFont
from restorer.training.rendering.workers import Lost, in_processes

RATE_HZ = 44100
SECONDS = 12.0


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """A MIDI file, a soundfont without most programs, and what plays it."""
    folder = tmp_path_factory.mktemp("materials")
    (folder / "toy.sf2").write_bytes(soundfont([(0, 0), (0, 33), (128, 0)]))
    font = SoundFont.read(folder / "toy.sf2")
    midi = [write_midi(folder / "song.mid", 30.0)]
    return Materials(SECONDS, 5, midi, [font], str(write_fluidsynth(folder)), synthesised=0.5)


@pytest.fixture(scope="module")
def made(materials):
    return [make_piece(materials, index) for index in range(4)]


def test_the_same_number_is_the_same_piece(materials, made):
    again = pickle.loads(pickle.dumps(materials))  # as processes get them
    for index in (3, 1):
        draft, audio = make_piece(again, index)
        assert draft.title == made[index][0].title and np.array_equal(audio, made[index][1])
    assert not np.array_equal(made[0][1][:, :RATE_HZ], made[1][1][:, :RATE_HZ])


def test_pieces_are_stereo_finite_centred_and_as_long_as_asked(made):
    for _, audio in made:
        assert audio.dtype == np.float32 and audio.shape[0] == 2 and np.isfinite(audio).all()
        assert SHORTEST_SECONDS * RATE_HZ <= audio.shape[1] <= SECONDS * RATE_HZ
        assert 0.4 < np.abs(audio).max() <= 1 and abs(audio.mean()) < 0.02
        assert not audio[:, 0].any() and not audio[:, -1].any()
    assert {draft.artist for draft, _ in made} == {"rendered", "synthesised"}


def test_what_a_piece_is_made_from_is_named(made):
    for draft, _ in made:
        assert ("soundfont" in draft.sources) == (draft.artist == "rendered") == ("(toy)" in draft.title)
        assert ("score" in draft.sources) == ("song" in draft.title)


def test_only_instruments_that_are_there_are_asked_for(materials, monkeypatch):
    asked = set()

    def play(program, path, notes, programs, kit, rng):
        asked.update(programs.values())
        assert kit == 0 and {note.channel for note in notes} <= {*programs, 9}
        return rng.standard_normal((2, 13 * RATE_HZ), dtype=np.float32) / 9

    monkeypatch.setattr("restorer.training.rendering.rendered.play", play)
    for seed in range(5):
        render(materials, np.random.default_rng(seed))
    assert asked == {0, 33}


def test_a_soundfont_without_drums_gets_others(materials, monkeypatch):
    channels = set()

    def play(program, path, notes, programs, kit, rng):
        channels.update(note.channel for note in notes)
        return rng.standard_normal((2, 13 * RATE_HZ), dtype=np.float32) / 9

    monkeypatch.setattr("restorer.training.rendering.rendered.play", play)
    bare = Materials(SECONDS, 0, materials.midi, [SoundFont(materials.soundfonts[0].path, frozenset({0}), frozenset())])
    for seed in range(3):
        render(bare, np.random.default_rng(seed))
    assert channels and 9 not in channels


def test_broken_scores_are_passed_over_and_named(materials, tmp_path):
    broken = tmp_path / "broken.mid"
    broken.write_bytes(b"MThd")
    some = Materials(SECONDS, 0, [broken, *materials.midi])
    for seed in range(6):
        path, _ = some.draw_stretch(np.random.default_rng(seed), 11.0, (0.8, 1.2))
        assert path == materials.midi[0]
    assert list(some.broken) == [broken] and "broken.mid" in some.broken[broken]
    with pytest.raises(RestorerError, match="none of the 1 MIDI files can be read"):
        Materials(SECONDS, 0, [broken]).draw_stretch(np.random.default_rng(0), 11.0, (0.8, 1.2))


def test_stretches_are_transposed_within_bounds(materials):
    pitches = {note.pitch for note in read_midi(materials.midi[0]).notes if note.channel == 0}
    low, high = min(pitches) - 5, max(pitches) + 6
    found = set()
    for seed in range(40):
        _, score = materials.draw_stretch(np.random.default_rng(seed), 11.0, (0.8, 1.2))
        found |= {note.pitch for note in score.notes if note.channel == 0}
    assert min(found) == low and max(found) == high


@pytest.mark.parametrize("failures", [3, 4])
def test_what_cannot_be_used_is_drawn_again_three_times(monkeypatch, failures):
    tried = []

    def synthesise(materials, rng):
        tried.append(rng.random())
        if len(tried) <= failures:
            raise RestorerError("nothing sounds")
        return pieces.Draft(rng.standard_normal((2, 13 * RATE_HZ), dtype=np.float32) / 9, "synthesised", "", ())

    monkeypatch.setattr(pieces, "synthesise", synthesise)
    if failures < pieces.TRIES:
        assert make_piece(Materials(SECONDS), 0)[1].shape == (2, SECONDS * RATE_HZ)
    else:
        with pytest.raises(RestorerError, match="nothing sounds"):
            make_piece(Materials(SECONDS), 0)
    assert len(set(tried)) == 4


def test_only_what_can_be_used_is_finished():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 14 * RATE_HZ), dtype=np.float32) / 9
    bad = noise.copy()
    bad[0, 5] = np.nan
    for audio, message in (
        (bad, "not finite"),
        (noise * 1e-6, "too quiet"),
        (noise[:, : 5 * RATE_HZ], "too short"),
        (noise + np.float32(0.05), "off centre"),
    ):
        with pytest.raises(RestorerError, match=message):
            finish(audio, SECONDS, rng)
    silence = np.zeros((2, RATE_HZ), np.float32)
    kept = finish(np.concatenate([silence, noise[:, : 11 * RATE_HZ], silence], axis=1), SECONDS, rng)
    assert kept.shape[1] == pytest.approx(11 * RATE_HZ, abs=2500)


def test_a_file_and_its_row(tmp_path):
    outcome = write_piece(Materials(SECONDS, 3), tmp_path, 7)
    assert outcome.row[:2] == ("piece3-00007.flac", "train") and outcome.row[3] == "synthesised"
    assert outcome.row[5] == "made by restorer render alone" and not outcome.why
    info = soundfile.info(tmp_path / "piece3-00007.flac")
    assert (info.subtype, info.channels, info.samplerate) == ("PCM_16", 2, RATE_HZ)
    assert info.frames / RATE_HZ == pytest.approx(outcome.seconds)
    assert [path.name for path in tmp_path.iterdir()] == ["piece3-00007.flac"]


def test_a_disk_that_refuses_is_told(tmp_path, monkeypatch):
    def refuse(path, audio):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pieces, "write_flac", refuse)
    outcome = write_piece(Materials(SECONDS), tmp_path, 0)
    assert outcome.refused and "No space left on device" in outcome.why and not outcome.row


def test_processes_share_tasks_and_one_that_dies_takes_none_with_it():
    results = dict(in_processes(square_or_die, range(5), 2, lambda: False))
    assert results == {0: 0, 1: 1, 2: Lost(7), 3: 9, 4: 16}
    assert list(in_processes(square, range(5), 2, lambda: True)) == []
