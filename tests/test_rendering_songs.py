"""Songs made by chance stay in their key, and their drums on the grid."""

import itertools

import numpy as np
import pytest

pytest.importorskip("mido")

from restorer.training.rendering.drum_patterns import PITCHES, STRAIGHT, as_notes, draw_hits, drums_of
from restorer.training.rendering.notes import DRUM_CHANNEL
from restorer.training.rendering.songs import ROLES, STYLES, TEMPO_BPM, compose

SECONDS = 20.0


@pytest.fixture(scope="module")
def songs():
    return [compose(np.random.default_rng(seed), SECONDS) for seed in range(60)]


def test_same_seed_same_song(songs):
    assert compose(np.random.default_rng(3), SECONDS) == songs[3] != songs[4]


def test_all_styles_and_roles_come(songs):
    assert {song.style for song in songs} == set(STYLES) == set(TEMPO_BPM)
    assert {role for song in songs for role in song.tracks} == set(ROLES)


def test_notes_are_within_the_song_and_can_be_played(songs):
    for song in songs:
        low, high = TEMPO_BPM[song.style]
        assert low <= 60 / song.beat_seconds <= high
        assert len(song.drums_play) * 4 * song.beat_seconds >= SECONDS
        for notes in song.tracks.values():
            assert notes
            for note in notes:
                assert 0 <= note.start_seconds < SECONDS and note.length_seconds > 0
                assert 0 <= note.pitch < 128 and 30 <= note.velocity <= 127


def test_a_song_has_one_key(songs):
    for song in songs:
        roles = ("chord", "arpeggio", "lead", "pad")
        assert len({note.pitch % 12 for role in roles for note in song.tracks.get(role, ())}) <= 7


@pytest.mark.parametrize("style", sorted(set(STYLES)))
def test_drums_are_on_the_grid_and_swing_delays_every_second_sixteenth(style):
    beat_seconds, swing = 0.5, 0.1
    hits = [draw_hits(np.random.default_rng(seed), style, (True,) * 8, beat_seconds, swing, 15.0) for seed in range(6)]
    assert hits[0] == draw_hits(np.random.default_rng(0), style, (True,) * 8, beat_seconds, swing, 15.0)
    for hit in itertools.chain(*hits):
        assert 0 <= hit.start_seconds < 15 and 0.15 <= hit.velocity <= 1 and hit.sound in PITCHES
        sixteenth = hit.start_seconds / beat_seconds * 4
        roll = style == "trap" and hit.sound == "hat"
        straight, late = (np.round((sixteenth - delay) * 3) / 3 for delay in (0, 4 * swing))
        on_grid = abs(sixteenth - straight) < 1e-9 and (roll or straight % 2 == 0)
        assert on_grid or (abs(sixteenth - late - 4 * swing) < 1e-9 and late % 2 == 1)
        if hit.sound == "kick" and style in STRAIGHT:
            assert sixteenth % 4 == pytest.approx(0)


def test_drums_pause_where_they_should():
    hits = draw_hits(np.random.default_rng(1), "rock", (False, True, False), 0.5, 0.0, 60.0)
    assert all(2 <= hit.start_seconds < 4 for hit in hits if hit.sound != "hat")
    assert {"kick", "snare"} & {hit.sound for hit in hits}


def test_hits_become_notes_and_notes_hits():
    hits = draw_hits(np.random.default_rng(2), "pop", (True,) * 8, 0.4, 0.0, 12.0)
    notes = as_notes(hits, np.random.default_rng(0))
    assert {note.channel for note in notes} == {DRUM_CHANNEL} and all(40 < note.velocity <= 127 for note in notes)
    assert [(hit.start_seconds, hit.sound) for hit in drums_of(notes)] == [(h.start_seconds, h.sound) for h in hits]
