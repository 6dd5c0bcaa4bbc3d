"""Songs made by chance: a key, a progression of four chords, patterns of sixteenths, and who plays when."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from restorer.training.rendering.draws import chance, choose, sample, whole
from restorer.training.rendering.notes import Note

# Listed as often as they are likely.
STYLES = (
    *("four", "four", "house", "break", "trap", "dnb", "rock", "rock", "pop", "pop"),
    *("funk", "ballad", "synthwave", "ambient", "shuffle"),
)
TEMPO_BPM = {
    "four": (118, 142),
    "house": (115, 128),
    "break": (95, 140),
    "trap": (120, 160),
    "dnb": (160, 178),
    "rock": (90, 180),
    "pop": (85, 130),
    "funk": (90, 120),
    "ballad": (60, 90),
    "synthwave": (80, 118),
    "ambient": (60, 100),
    "shuffle": (80, 150),
}
SCALES = (
    (0, 2, 3, 5, 7, 8, 10),
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 9, 10),
    (0, 1, 3, 5, 7, 8, 10),
    (0, 2, 4, 5, 7, 9, 10),
    (0, 2, 3, 5, 7, 8, 11),
)
# One chord per bar, as degrees of the scale counted from 0.
PROGRESSIONS = (
    *((0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4), (0, 3, 4, 3), (0, 6, 5, 4), (0, 5, 2, 6)),
    *((0, 0, 3, 4), (1, 4, 0, 0), (0, 2, 5, 3), (0, 6, 3, 0), (5, 6, 0, 0), (3, 4, 2, 5)),
)
ROLES = ("bass", "chord", "arpeggio", "lead", "pad", "guitar")
SECTIONS = (0.5, 0.75, 0.85, 0.75, 0.8, 0.9)  # how likely each role plays in a section of four bars
# Sixteenths of a bar.
EIGHTHS, SIXTEENTHS = tuple(range(0, 16, 2)), tuple(range(16))
DANCE_BASSES = ((2, 6, 10, 14), EIGHTHS, SIXTEENTHS, (0, 3, 6, 10, 12, 14))
CHORDS = (
    *((0,), (0, 8), (0, 6, 12), (0, 3, 6, 8, 11, 14), (4, 12)),
    *((2, 6, 10, 14), EIGHTHS, (0, 6, 10)),
)
ARPEGGIOS = (SIXTEENTHS, EIGHTHS, (0, 3, 6, 9, 12, 14), (0, 2, 3, 6, 8, 10, 11, 14), (0, 3, 6, 8, 11, 14))

Strokes = Iterator[tuple[float, float, int, int]]  # beat, length in beats, pitch, mean velocity


@dataclass(frozen=True)
class Plan:
    """What is decided about a song before its first bar."""

    style: str
    bpm: float
    key: int
    scale: tuple[int, ...]
    progressions: tuple[tuple[int, ...], tuple[int, ...]]
    swing: float  # beats by which every second sixteenth is late
    sections: tuple[frozenset[str], ...]
    bass: tuple[int, ...]
    chords: tuple[int, ...]
    arpeggio: tuple[tuple[int, int], ...]  # sixteenth, note of the chord
    motifs: tuple[tuple[tuple[int, int, int], ...], ...]  # sixteenth of two bars, length, degree
    guitar: tuple[int, ...]
    power_chords: bool
    sevenths: bool

    def pitch(self, degree: int) -> int:
        """Semitones above the key of a degree of the scale, octaves above included."""
        return self.scale[degree % 7] + 12 * (degree // 7)

    def beat(self, bar: int, sixteenth: int) -> float:
        """Where a sixteenth is, in beats from the start."""
        return bar * 4 + sixteenth / 4 + (self.swing if sixteenth % 2 else 0.0)

    def chord(self, degree: int) -> list[int]:
        """Degrees of the chord on a degree."""
        return [degree, degree + 2, degree + 4, *([degree + 6] if self.sevenths else [])]


@dataclass(frozen=True)
class Song:
    """A song as notes by role, and what its drums need to know."""

    style: str
    beat_seconds: float
    swing: float
    tracks: dict[str, list[Note]]
    drums_play: tuple[bool, ...]  # for each bar


def compose(rng: Generator, seconds: float) -> Song:
    """A song of pop, rock or electronic music that lasts at least `seconds`; its notes start within them."""
    plan = _draw_plan(rng)
    beat_seconds = 60 / plan.bpm
    tracks: dict[str, list[Note]] = {role: [] for role in ROLES}
    drums_play = []
    for bar in range(int(seconds / beat_seconds / 4) + 1):
        section = bar // (choose(rng, (4, 4, 8)) if chance(rng, 0.05) else 4) % len(SECTIONS)
        degree = plan.progressions[bar // 8 % 2][bar % 4]
        for role in ROLES:
            if role not in plan.sections[section]:
                continue
            for beat, length, pitch, loudness in WRITERS[role](plan, bar, degree, rng):
                velocity = max(30, min(127, int(rng.normal(loudness, 8))))
                if beat * beat_seconds < seconds:
                    tracks[role].append(Note(beat * beat_seconds, length * beat_seconds, pitch, velocity))
        pause = (section == 0 and chance(rng, 0.4)) or (plan.style == "ambient" and chance(rng, 0.7))
        drums_play.append(not pause)
    return Song(plan.style, beat_seconds, plan.swing, {k: v for k, v in tracks.items() if v}, tuple(drums_play))


def _draw_plan(rng: Generator) -> Plan:
    style = choose(rng, STYLES)
    first = choose(rng, PROGRESSIONS)
    second = choose(rng, PROGRESSIONS) if chance(rng, 0.6) else tuple(whole(rng, 0, 6) for _ in range(4))
    if style in ("shuffle", "funk") and chance(rng, 0.8):
        swing = rng.uniform(0.04, 0.16)
    else:
        swing = rng.uniform(0, 0.05) if chance(rng, 0.3) else 0.0
    sections = []
    for likely in SECTIONS:
        playing = {role for role in ROLES if chance(rng, likely)}
        sections.append(
            frozenset(playing | {choose(rng, ("bass", "chord")), choose(rng, ("lead", "arpeggio", "pad", "guitar"))})
        )
    bass = tuple(sorted({0, *sample(rng, SIXTEENTHS, whole(rng, 3, 8))}))
    if style in ("four", "house", "synthwave") and chance(rng, 0.5):
        bass = choose(rng, DANCE_BASSES)
    return Plan(
        style=style,
        bpm=rng.uniform(*TEMPO_BPM[style]),
        key=whole(rng, 0, 11),
        scale=choose(rng, SCALES),
        progressions=(first, second),
        swing=swing,
        sections=tuple(sections),
        bass=bass,
        chords=choose(rng, CHORDS),
        arpeggio=tuple((place, whole(rng, 0, 7)) for place in choose(rng, ARPEGGIOS)),
        motifs=(_motif(rng), _motif(rng)),
        guitar=tuple(sorted(sample(rng, SIXTEENTHS, whole(rng, 4, 10)))),
        power_chords=chance(rng, 0.5),
        sevenths=chance(rng, 0.4),
    )


def _motif(rng: Generator) -> tuple[tuple[int, int, int], ...]:
    """Two bars of melody: (sixteenth, length, degree), mostly in steps, with rests."""
    notes, place, degree = [], 0, whole(rng, 0, 7)
    while place < 32:
        length = choose(rng, (1, 2, 2, 2, 3, 4, 4, 6, 8))
        if chance(rng, 0.78):
            notes.append((place, length, degree))
        degree += choose(rng, (-2, -1, -1, 0, 1, 1, 2, whole(rng, -4, 4)))
        degree = max(-3, min(11, degree))
        place += length
    return tuple(notes)


def _until_next(pattern: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Each sixteenth of a pattern, and the beats until the next or the end of the bar."""
    for place, following in zip(pattern, [*pattern[1:], 16], strict=True):
        yield place, (following - place) / 4


def _bass(plan: Plan, bar: int, degree: int, rng: Generator) -> Strokes:
    root = plan.key + 24 + plan.pitch(degree) % 12
    for place, beats in _until_next(plan.bass):
        leap = 12 * chance(rng, 0.12) + 7 * chance(rng, 0.06)
        yield plan.beat(bar, place), max(0.15, beats * choose(rng, (0.5, 0.8, 0.95))), root + leap, 98


def _chord(plan: Plan, bar: int, degree: int, rng: Generator) -> Strokes:
    for place, beats in _until_next(plan.chords):
        for note in plan.chord(degree):
            octave = 0 if chance(rng, 0.9) else 12
            yield plan.beat(bar, place), beats * 0.9, plan.key + 48 + plan.pitch(note) + octave, 82


def _pad(plan: Plan, bar: int, degree: int, _: Generator) -> Strokes:
    for note in plan.chord(degree):
        yield plan.beat(bar, 0), 3.95, plan.key + 60 + plan.pitch(note) % 12, 74


def _arpeggio(plan: Plan, bar: int, degree: int, _: Generator) -> Strokes:
    chord = plan.chord(degree)
    for place, number in plan.arpeggio:
        note = chord[number % len(chord)] + 7 * (number // len(chord)) % 14
        yield plan.beat(bar, place), 0.22, plan.key + 60 + plan.pitch(note), 84


def _lead(plan: Plan, bar: int, _: int, __: Generator) -> Strokes:
    if bar % 2 == 0:
        for place, length, note in plan.motifs[bar // 8 % 2]:
            yield plan.beat(bar, place), length / 4 * 0.92, plan.key + 60 + plan.pitch(note), 96


def _guitar(plan: Plan, bar: int, degree: int, rng: Generator) -> Strokes:
    root = plan.key + 40 + plan.pitch(degree) % 12
    third = plan.pitch(degree + 2) - plan.pitch(degree)
    for place in plan.guitar:
        for pitch in (root, root + 7, root + 12, *(() if plan.power_chords else (root + 12 + third,))):
            yield plan.beat(bar, place) + rng.uniform(0, 0.02), choose(rng, (0.2, 0.45, 0.9)), pitch, 92


WRITERS: dict[str, Callable[[Plan, int, int, Generator], Strokes]] = {
    "bass": _bass,
    "chord": _chord,
    "arpeggio": _arpeggio,
    "lead": _lead,
    "pad": _pad,
    "guitar": _guitar,
}
