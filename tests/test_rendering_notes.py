"""Notes out of MIDI files: what is in them is found, stretches keep their bounds, damage is told in one line."""

import mido
import numpy as np
import pytest

pytest.importorskip("mido")

from toy_rendering import write_midi

from restorer.errors import RestorerError
from restorer.training.rendering.notes import (
    DRUM_CHANNEL,
    HIGHEST,
    LOWEST,
    RELEASE_SECONDS,
    Note,
    cut,
    read_midi,
)


def test_notes_programs_and_tempo_are_found(tmp_path):
    score = read_midi(write_midi(tmp_path / "song.mid", seconds=4.0))
    assert score.programs == {0: 40, 1: 33} and score.beat_seconds == pytest.approx(0.5)
    melody = [note for note in score.notes if note.channel == 0]
    assert [note.pitch for note in melody] == [60 + step % 12 for step in range(16)]
    assert [note.start_seconds for note in melody] == pytest.approx([0.25 * step for step in range(16)])
    assert {round(note.length_seconds, 6) for note in score.notes} == {0.25} and score.notes == sorted(score.notes)


@pytest.mark.parametrize("seed", range(30))
def test_a_stretch_keeps_its_bounds(seed):
    rng = np.random.default_rng(seed)
    channels = rng.choice([0, 3, DRUM_CHANNEL], 200)
    notes = sorted(
        Note(rng.uniform(0, 60), rng.uniform(0.05, 9), int(rng.integers(128)), 90, int(channel)) for channel in channels
    )
    seconds, semitones, stretch = rng.uniform(5, 40), int(rng.integers(-5, 7)), rng.uniform(0.7, 1.3)
    kept = cut(notes, seconds, rng, semitones, stretch)
    assert kept and kept[0].start_seconds == 0 and kept == sorted(kept)
    classes = {note.pitch % 12 for note in notes if note.channel != DRUM_CHANNEL}
    drums = {note.pitch for note in notes if note.channel == DRUM_CHANNEL}
    for note in kept:
        assert 0 <= note.start_seconds < seconds
        assert note.length_seconds > 0 and note.start_seconds + note.length_seconds <= seconds + RELEASE_SECONDS + 1e-9
        if note.channel == DRUM_CHANNEL:
            assert note.pitch in drums
        else:
            assert LOWEST <= note.pitch <= HIGHEST and (note.pitch - semitones) % 12 in classes


def test_distances_are_stretched_and_pitches_moved():
    notes = [Note(1.0, 0.5, 60, 80), Note(2.0, 0.5, 64, 80), Note(2.0, 0.5, 40, 80, DRUM_CHANNEL)]
    kept = cut(notes, 30, np.random.default_rng(0), 5, 1.25)
    assert [note.start_seconds for note in kept] == pytest.approx([0, 1.25, 1.25])
    assert [(note.pitch, note.length_seconds) for note in kept] == [(65, 0.625), (40, 0.625), (69, 0.625)]


def test_damage_is_told_and_nothing_else_happens(tmp_path):
    whole = write_midi(tmp_path / "song.mid", seconds=3.0).read_bytes()
    rng = np.random.default_rng(0)
    broken, refused = tmp_path / "broken.mid", 0
    for number in range(250):
        data = bytearray(whole[: int(rng.integers(len(whole)))] if number % 2 else whole)
        for place in rng.integers(len(data) or 1, size=rng.integers(1, 6)) if data else ():
            data[place] = int(rng.integers(256))
        broken.write_bytes(data)
        try:
            assert read_midi(broken).notes
        except RestorerError as error:
            refused += 1
            assert "broken.mid" in str(error) and "\n" not in str(error)
    assert refused > 50


def test_what_has_no_notes_or_beats_is_refused(tmp_path):
    empty = mido.MidiFile()
    empty.tracks.append(mido.MidiTrack())
    empty.save(tmp_path / "empty.mid")
    (tmp_path / "large.mid").write_bytes(bytes(3 << 20))
    smpte = bytearray(write_midi(tmp_path / "song.mid", seconds=1.0).read_bytes())
    smpte[12:14] = b"\xe7\x28"  # 25 frames of 40 parts
    (tmp_path / "smpte.mid").write_bytes(smpte)
    for name, message in (("empty", "has no notes"), ("large", "larger than 2 MiB"), ("smpte", "SMPTE")):
        with pytest.raises(RestorerError, match=message):
            read_midi(tmp_path / f"{name}.mid")
    with pytest.raises(RestorerError, match="cannot be read"):
        read_midi(tmp_path / "none.mid")
