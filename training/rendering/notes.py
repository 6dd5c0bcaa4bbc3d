"""Notes, and stretches of MIDI files as notes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mido
from numpy.random import Generator

from restorer.errors import RestorerError
from restorer.model_checks import shown
from restorer.training.rendering.draws import chance

DRUM_CHANNEL = 9
LOWEST, HIGHEST = 14, 115  # pitches after a transposition
SHORTEST_NOTE_SECONDS = 0.04
BASS_BELOW = 46  # mean pitch of a channel that is a bass
RELEASE_SECONDS = 0.3  # by which a last note may outlast its stretch
LARGEST_BYTES = 2 << 20  # of a MIDI file; an hour of piano has a tenth


@dataclass(frozen=True, order=True)
class Note:
    """A note: MIDI's pitch and velocity (1 to 127), and the channel that says who plays it."""

    start_seconds: float
    length_seconds: float
    pitch: int
    velocity: int
    channel: int = 0


@dataclass(frozen=True)
class Score:
    """What a MIDI file holds: notes by time, the first program of each channel, the last tempo."""

    notes: list[Note]
    programs: dict[int, int]
    beat_seconds: float


def read_midi(path: Path) -> Score:
    """The notes of a MIDI file.

    Raises
    ------
    RestorerError
        It cannot be read, is damaged or too large, or has no notes.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RestorerError(f"MIDI file '{path}' is larger than {LARGEST_BYTES >> 20} MiB")
        score = _read(mido.MidiFile(path, clip=True))
    except RestorerError:
        raise
    except Exception as error:  # mido raises whatever damage leads its parser to
        raise RestorerError(f"MIDI file '{path}' cannot be read: {shown(str(error))}") from error
    if not score.notes:
        raise RestorerError(f"MIDI file '{path}' has no notes")
    return score


def _read(file: mido.MidiFile) -> Score:
    if file.ticks_per_beat <= 0:
        raise RestorerError(f"MIDI file '{file.filename}' counts time in SMPTE frames; only beats are read")
    sounding: dict[tuple[int, int], list[tuple[float, int]]] = {}
    programs: dict[int, int] = {}
    notes: list[Note] = []
    now, beat_seconds = 0.0, 0.5
    for message in file:
        now += message.time
        if message.type == "set_tempo":
            beat_seconds = max(message.tempo, 1) / 1e6
        elif message.type == "program_change":
            programs.setdefault(message.channel, message.program)
        elif message.type == "note_on" and message.velocity > 0:
            sounding.setdefault((message.channel, message.note), []).append((now, message.velocity))
        elif message.type in ("note_on", "note_off") and sounding.get((message.channel, message.note)):
            start, velocity = sounding[message.channel, message.note].pop(0)
            length = max(SHORTEST_NOTE_SECONDS, now - start)
            notes.append(Note(start, length, message.note, velocity, message.channel))
    return Score(sorted(notes), programs, beat_seconds)


def cut(notes: Sequence[Note], seconds: float, rng: Generator, semitones: int = 0, stretch: float = 1.0) -> list[Note]:
    """A stretch of notes by time, from the beginning or (four of five) from anywhere.

    Parameters
    ----------
    notes : sorted, at least one.
    seconds : all notes start within them; the first starts at 0.
    semitones : by which all but drums are higher; what leaves the range moves by octaves.
    stretch : by which everything lasts longer.
    """
    melodic = [note.start_seconds for note in notes if note.channel != DRUM_CHANNEL]
    end = max(melodic, default=notes[-1].start_seconds)
    begin = rng.uniform(0, max(0.0, end - seconds / stretch)) if chance(rng, 0.8) else 0.0
    kept = []
    for note in notes:
        start = (note.start_seconds - begin) * stretch
        if 0 <= start < seconds:
            length = min(note.length_seconds * stretch, seconds - start + RELEASE_SECONDS)
            kept.append(Note(start, length, _transposed(note, semitones), note.velocity, note.channel))
    return starting_at_zero(kept)


def starting_at_zero(notes: Sequence[Note]) -> list[Note]:
    """The notes, sorted, moved so that the first starts at 0."""
    first = min((note.start_seconds for note in notes), default=0.0)
    return sorted(
        Note(note.start_seconds - first, note.length_seconds, note.pitch, note.velocity, note.channel) for note in notes
    )


def _transposed(note: Note, semitones: int) -> int:
    if note.channel == DRUM_CHANNEL:
        return note.pitch
    pitch = note.pitch + semitones
    while pitch > HIGHEST:
        pitch -= 12
    while pitch < LOWEST:
        pitch += 12
    return pitch


def by_channel(notes: Sequence[Note]) -> dict[int, list[Note]]:
    """The notes of each channel that has some."""
    channels: dict[int, list[Note]] = {}
    for note in notes:
        channels.setdefault(note.channel, []).append(note)
    return channels


def mean_pitch(notes: Sequence[Note]) -> float:
    """The mean of their pitches."""
    return sum(note.pitch for note in notes) / len(notes)
