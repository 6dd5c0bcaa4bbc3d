"""What drums play: patterns by style, fills, and the drums of MIDI files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from restorer.training.rendering.draws import chance, choose, sample, whole
from restorer.training.rendering.notes import DRUM_CHANNEL, Note

# General MIDI's pitches on the drum channel, by sound.
PITCHES = {
    "kick": (35, 36),
    "snare": (38, 40),
    "clap": (39,),
    "hat": (42,),
    "open hat": (46,),
    "ride": (51, 59),
    "crash": (49, 57, 55, 52),
    "tom": (45, 47),
    "high tom": (48, 50),
    "shaker": (70, 82, 54, 69),
    "percussion": (37, 56, 60, 62, 63, 64, 75, 76, 67, 65, 61),
}
SOUNDS = {pitch: sound for sound, pitches in PITCHES.items() for pitch in pitches}

STRAIGHT = ("four", "house", "synthwave", "ambient")  # styles with a kick on every beat
HATS = (range(0, 16, 2), range(16), range(2, 16, 4), range(0, 16, 4), (0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15))


@dataclass(frozen=True, order=True)
class Hit:
    """A stroke of a drum, with a velocity from 0 to 1."""

    start_seconds: float
    sound: str
    velocity: float


@dataclass(frozen=True)
class Pattern:
    """A bar of drums, as sixteenths."""

    style: str
    kicks: Sequence[int]
    snares: Sequence[int]
    hats: Sequence[int]
    extras: Sequence[int]
    snare_sounds: Sequence[str]
    hat_sound: str


def draw_hits(
    rng: Generator, style: str, drums_play: Sequence[bool], beat_seconds: float, swing: float, seconds: float
) -> list[Hit]:
    """Drums for a song, one bar for each of `drums_play`, as far as they start within `seconds`.

    `swing` is in beats, as in `Song`.
    """
    pattern = _draw_pattern(rng, style)
    hits = []
    for bar, playing in enumerate(drums_play):
        strokes = _bar(pattern, bar, rng) if playing else _rest(pattern, rng)
        for sixteenth, sound, velocity in strokes:
            beat = bar * 4 + sixteenth / 4 + (swing if sixteenth % 2 == 1 else 0.0)
            hits.append(Hit(beat * beat_seconds, sound, max(0.15, min(1.0, rng.normal(velocity, 0.07)))))
    return [hit for hit in hits if hit.start_seconds < seconds]


def drums_of(notes: Sequence[Note]) -> list[Hit]:
    """The notes of the drum channel as hits."""
    drums = (note for note in notes if note.channel == DRUM_CHANNEL)
    return [Hit(note.start_seconds, SOUNDS.get(note.pitch, "percussion"), note.velocity / 127) for note in drums]


def as_notes(hits: Sequence[Hit], rng: Generator) -> list[Note]:
    """Hits as notes of the drum channel, one pitch for each sound."""
    pitches = {sound: choose(rng, options) for sound, options in PITCHES.items()}
    return [Note(h.start_seconds, 0.12, pitches[h.sound], int(40 + 87 * h.velocity), DRUM_CHANNEL) for h in hits]


def _draw_pattern(rng: Generator, style: str) -> Pattern:
    if style in STRAIGHT:
        kicks = [0, 4, 8, 12]
    elif style == "break":
        kicks = [0, 10, *sample(rng, (2, 3, 6, 7, 11, 13), 2)]
    elif style == "trap":
        kicks = [0, *sample(rng, (3, 6, 7, 10, 11, 14), 3)]
    elif style == "dnb":
        kicks = [0, 10]
    elif style == "rock":
        kicks = [0, 8, *sample(rng, (2, 6, 7, 10, 14), 2)]
    elif style == "ballad":
        kicks = [0, choose(rng, (8, 10))]
    else:
        kicks = [0, *sample(rng, range(2, 16), whole(rng, 1, 4))]
    if style == "trap":
        snares: Sequence[int] = (8,)
    elif style == "dnb":
        snares = (4, 12)
    elif style == "ballad":
        snares = (choose(rng, (4, 8)), 12)[: whole(rng, 1, 2)]
    else:
        snares = choose(rng, ((4, 12), (4, 12), (4, 12, 15), (4, 10, 12)))
    return Pattern(
        style=style,
        kicks=kicks,
        snares=snares,
        hats=(2, 6, 10, 14) if style == "house" else choose(rng, HATS),
        extras=sample(rng, range(16), whole(rng, 0, 6)),
        snare_sounds=choose(rng, (("snare",), ("snare",), ("clap",), ("snare", "clap"))),
        hat_sound=choose(rng, ("hat", "hat", "hat", "ride", "shaker")),
    )


def _rest(pattern: Pattern, rng: Generator) -> Iterator[tuple[float, str, float]]:
    """A bar in which drums pause: hats at most."""
    if chance(rng, 0.4):
        yield from ((place, "hat", 0.4) for place in pattern.hats)


def _bar(pattern: Pattern, bar: int, rng: Generator) -> Iterator[tuple[float, str, float]]:
    """A bar of drums: (sixteenth, sound, mean velocity)."""
    if bar % choose(rng, (4, 8)) == 0 and chance(rng, 0.6):
        yield 0, "crash", 0.7
    yield from ((place, "kick", 0.92) for place in pattern.kicks)
    if bar % 8 == 7 and chance(rng, 0.6):  # a fill, louder and louder
        for place in range(8, 16):
            if chance(rng, 0.75):
                yield place, choose(rng, ("tom", "snare", "high tom")), 0.5 + place / 35
    else:
        yield from ((place, sound, 0.85) for place in pattern.snares for sound in pattern.snare_sounds)
        yield from ((place, "snare", 0.3) for place in range(16) if chance(rng, 0.03))
    open_share = 0.5 if pattern.style in STRAIGHT else 0.08
    for place in pattern.hats:
        sound = "open hat" if place % 4 == 2 and chance(rng, open_share) else pattern.hat_sound
        yield place, sound, 0.6 if place % 4 == 0 else 0.45
        if pattern.style == "trap" and chance(rng, 0.12):
            yield from ((place + roll / 3, "hat", 0.35) for roll in (1, 2, 3))
    yield from ((place, "percussion", 0.5) for place in pattern.extras if chance(rng, 0.7))
