"""Pieces that FluidSynth plays with soundfonts, each group of instruments in a channel strip of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from restorer.errors import RestorerError
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.channel import amp, strip
from restorer.training.rendering.draws import chance, choose, whole
from restorer.training.rendering.drum_patterns import Hit, as_notes, draw_hits, drums_of
from restorer.training.rendering.drums import play_hits
from restorer.training.rendering.fluidsynth import play
from restorer.training.rendering.levels import SILENCE, at_level, gain, rms
from restorer.training.rendering.mastering import master
from restorer.training.rendering.materials import Draft, Materials
from restorer.training.rendering.notes import BASS_BELOW, DRUM_CHANNEL, Note, by_channel, mean_pitch
from restorer.training.rendering.songs import compose
from restorer.training.rendering.soundfont import FAMILY
from restorer.transform import Float32

MIDI_SHARE = 0.62
SPEEDS = (0.8, 1.25)
LEAST_SHARE = 30 / 45  # of the longest piece's length
LATENESS_SECONDS = 0.012  # of musicians
LIGHT_DRIVE_DB = (0.0, 8.0)  # of instruments that are no guitars

# General MIDI's programs, as ensembles that some pieces are played by ...
ENSEMBLES = (
    *((48, 49, 50, 51), (52, 53, 54, 91), (0, 1, 2, 4), (24, 25, 26, 27), (56, 57, 60, 61), (73, 71, 68, 70)),
    *((6, 7, 8, 46), (16, 17, 18, 19), (21, 22, 23, 15), (27, 28, 29, 30), (45, 46, 12, 11), (40, 41, 42, 110)),
    *((4, 5, 89, 95), (61, 62, 63, 81), (9, 11, 13, 14), (29, 30, 30, 27), (80, 81, 87, 90), (73, 24, 46, 104)),
    *((104, 105, 106, 107), (64, 65, 66, 67), (88, 91, 92, 94), (75, 77, 79, 108), (98, 96, 99, 103)),
)
BASSES = (32, 33, 34, 35, 36, 38, 39, 42, 43, 58, 70)
LAST_MUSICAL = 114  # percussion and effects follow
# ... and by the role in a song made by chance.
PROGRAMS = {
    "bass": (32, 33, 33, 34, 34, 35, 36, 37, 38, 39),
    "chord": (0, 1, 2, 4, 5, 7, 16, 17, 18, 19, 48, 50, 61, 62, 63, 90, 27, 25),
    "pad": (48, 49, 50, 51, 52, 53, 54, 88, 89, 90, 91, 92, 93, 94, 95, 19),
    "arpeggio": (0, 4, 6, 8, 9, 10, 11, 12, 13, 14, 24, 25, 45, 46, 80, 81, 98, 99, 104, 106, 107, 108, 114),
    "lead": (
        *(40, 56, 57, 60, 61, 64, 65, 66, 68, 71, 73, 75, 77, 78),
        *(80, 81, 82, 84, 85, 86, 87, 22, 29, 30, 26, 110, 109, 111),
    ),
    "guitar": (24, 25, 26, 27, 28, 29, 30, 30, 29),
}


@dataclass(frozen=True)
class _Arrangement:
    """Notes by channel, the programs of channels, and drums that no soundfont plays."""

    notes: list[Note]
    programs: dict[int, int]
    hits: list[Hit]
    title: str
    sources: tuple[str, ...]


def render(materials: Materials, rng: Generator) -> Draft:
    """A piece by FluidSynth: a MIDI file's notes (six of ten, if there are any) or a song made by chance.

    Raises
    ------
    RestorerError
        Nothing sounds, FluidSynth fails, or no MIDI file can be read.
    """
    soundfont = choose(rng, materials.soundfonts)
    seconds = materials.draw_seconds(rng, LEAST_SHARE)
    from_midi = chance(rng, MIDI_SHARE) and bool(materials.midi)
    arrangement = _from_midi(materials, seconds, rng) if from_midi else _by_chance(seconds, rng)
    kit = soundfont.draw_kit(rng)
    if kit is None:
        arrangement = _with_own_drums(arrangement)
    used = sorted(set(by_channel(arrangement.notes)) - {DRUM_CHANNEL})
    programs = {channel: soundfont.nearest(arrangement.programs.get(channel, 0), rng) for channel in used}

    def sound(notes: Sequence[Note]) -> Float32:
        return play(materials.fluidsynth, soundfont.path, notes, programs, kit or 0, rng)

    groups = _groups(arrangement.notes, programs, rng)
    parts = [_through_strip(sound(notes), name, len(groups), rng) for name, notes in groups.items()]
    mix = _sum([part for part in parts if part.shape[1] >= SAMPLE_RATE and rms(part) >= SILENCE])
    if arrangement.hits:
        drums = strip(play_hits(arrangement.hits, rng, mix.shape[1], materials.one_shots), rng, "drums")
        mix += at_level(drums, rms(mix) * gain(rng.uniform(-5, 4)))
    own = ("single sounds",) if arrangement.hits and materials.one_shots else ()
    title = f"{arrangement.title} ({soundfont.path.stem})"
    return Draft(master(mix, rng), "rendered", title, (*arrangement.sources, "soundfont", *own))


def _from_midi(materials: Materials, seconds: float, rng: Generator) -> _Arrangement:
    path, score = materials.draw_stretch(rng, seconds, SPEEDS)
    programs = _recast(score.notes, score.programs, rng) if chance(rng, 0.34) else score.programs
    return _Arrangement(score.notes, programs, [], path.stem, ("score",))


def _recast(notes: Sequence[Note], programs: Mapping[int, int], rng: Generator) -> dict[int, int]:
    """Other programs for all channels: of an ensemble, or of the same family."""
    ensemble, cast = choose(rng, ENSEMBLES), {}
    for channel, part in by_channel(notes).items():
        if mean_pitch(part) < BASS_BELOW and chance(rng, 0.7):
            cast[channel] = choose(rng, BASSES)
            continue
        relative = programs.get(channel, 0) // FAMILY * FAMILY + whole(rng, 0, FAMILY - 1)
        program = choose(rng, (relative, choose(rng, ensemble), choose(rng, ensemble)))
        cast[channel] = program if program <= LAST_MUSICAL else choose(rng, ensemble)
    return cast


def _by_chance(seconds: float, rng: Generator) -> _Arrangement:
    song = compose(rng, seconds)
    notes, programs = [], {}
    for channel, (role, track) in enumerate(song.tracks.items()):
        programs[channel] = choose(rng, PROGRAMS[role])
        for note in track:
            start = note.start_seconds + rng.uniform(0, LATENESS_SECONDS)
            notes.append(replace(note, start_seconds=start, channel=channel))
    hits = []
    if chance(rng, 0.88):
        hits = draw_hits(rng, song.style, song.drums_play, song.beat_seconds, song.swing, seconds)
    if hits and not chance(rng, 0.35):  # the soundfont's drums
        notes += as_notes(hits, rng)
        hits = []
    return _Arrangement(sorted(notes), programs, hits, f"made by chance, {song.style}", ())


def _with_own_drums(arrangement: _Arrangement) -> _Arrangement:
    """The same for a soundfont that has no drums."""
    notes = [note for note in arrangement.notes if note.channel != DRUM_CHANNEL]
    return replace(arrangement, notes=notes, hits=arrangement.hits or drums_of(arrangement.notes))


def _groups(notes: Sequence[Note], programs: Mapping[int, int], rng: Generator) -> dict[str, list[Note]]:
    """Notes by the channel strip that they go through: drums, bass, guitars, and others in one group or two."""
    groups: dict[str, list[Note]] = {}
    for note in notes:
        groups.setdefault(_group(note.channel, programs.get(note.channel, 0)), []).append(note)
    if len(groups) > 2 and {"odd", "even"} <= set(groups) and chance(rng, 0.5):
        groups["even"] = sorted(groups["even"] + groups.pop("odd"))
    if len(groups) > 1 and chance(rng, 0.25):  # as a player of MIDI files gives it
        return {"all": list(notes)}
    return groups


def _group(channel: int, program: int) -> str:
    if channel == DRUM_CHANNEL:
        return "drums"
    if 32 <= program < 40:
        return "bass"
    if 24 <= program < 31:
        return "guitar"
    return "odd" if channel % 2 else "even"


def _through_strip(part: Float32, name: str, groups: int, rng: Generator) -> Float32:
    """A group's sound after amplifier and channel strip, most often at the level that it had."""
    level = rms(part)
    if level < SILENCE or part.shape[1] < SAMPLE_RATE:
        return part
    if name == "guitar" and chance(rng, 0.5):
        part = at_level(amp(part, rng), level)
    elif name in ("even", "odd") and chance(rng, 0.05):
        part = at_level(amp(part, rng, LIGHT_DRIVE_DB), level)
    if chance(rng, 0.75):
        part = strip(part, rng, name)
        part = at_level(part, level) if chance(rng, 0.8) else part
    return part * gain(rng.uniform(-5, 5)) if groups > 1 else part


def _sum(parts: Sequence[Float32]) -> Float32:
    if not parts:
        raise RestorerError("nothing sounds")
    mix = np.zeros((2, max(part.shape[1] for part in parts)), np.float32)
    for part in parts:
        mix[:, : part.shape[1]] += part
    return mix
