"""The instruments of the synthesiser: what a voice is made of, and between what its values are for each role."""

from dataclasses import dataclass

from numpy.random import Generator

from restorer.training.rendering.draws import choose

FM_RATIOS = (1.0, 1.0, 2.0, 3.0, 0.5, 3.5, 1.41, 7.0)
FM_INDEX = (0.8, 5.0)
ANY = ("saw", "saw", "square", "pulse", "fm", "random")


@dataclass(frozen=True)
class Voice:
    """An instrument of the synthesiser. Cut-offs count as in `Oscillator.note`."""

    shape: str  # of an oscillator, or "fm"
    oscillators: int
    detune_semitones: float
    attack_seconds: float
    decay_seconds: float
    sustain: float
    release_seconds: float
    cutoff: float
    cutoff_envelope: float
    cutoff_decay_seconds: float
    sub: float  # a sine at the pitch
    fm_ratio: float
    fm_index: float


@dataclass(frozen=True)
class _Range:
    """Between what the values of a role's voices are, in the order of `Voice`."""

    shapes: tuple[str, ...]
    oscillators: tuple[int, ...]
    detune_semitones: tuple[float, float]
    attack_seconds: tuple[float, float]
    decay_seconds: tuple[float, float]
    sustain: tuple[float, float]
    release_seconds: tuple[float, float]
    cutoff: tuple[float, float]
    cutoff_envelope: tuple[float, float]
    cutoff_decay_seconds: tuple[float, float]
    sub: tuple[float, float] = (0, 0)


BASS = _Range(
    shapes=ANY,
    oscillators=(1, 1, 2),
    detune_semitones=(0.03, 0.12),
    attack_seconds=(0.003, 0.003),
    decay_seconds=(0.1, 0.6),
    sustain=(0.4, 1),
    release_seconds=(0.05, 0.05),
    cutoff=(1.5, 5),
    cutoff_envelope=(0, 4),
    cutoff_decay_seconds=(0.05, 0.4),
    sub=(0.2, 0.8),
)
PAD = _Range(
    shapes=("saw", "saw", "pulse", "random", "organ"),
    oscillators=(3, 5),
    detune_semitones=(0.08, 0.3),
    attack_seconds=(0.05, 0.8),
    decay_seconds=(1, 1),
    sustain=(1, 1),
    release_seconds=(0.2, 0.9),
    cutoff=(3.5, 8),
    cutoff_envelope=(-2, 3),
    cutoff_decay_seconds=(0.5, 3),
)
CHORD = _Range(
    shapes=(*ANY, "organ"),
    oscillators=(1, 3, 3, 5),
    detune_semitones=(0.05, 0.3),
    attack_seconds=(0.002, 0.02),
    decay_seconds=(0.15, 1.2),
    sustain=(0, 0.9),
    release_seconds=(0.05, 0.3),
    cutoff=(2.5, 7.5),
    cutoff_envelope=(0, 5),
    cutoff_decay_seconds=(0.05, 0.7),
)
ARPEGGIO = _Range(
    shapes=("saw", "square", "pulse", "fm", "fm", "random"),
    oscillators=(1, 1, 2, 3),
    detune_semitones=(0.03, 0.2),
    attack_seconds=(0.002, 0.002),
    decay_seconds=(0.08, 0.35),
    sustain=(0, 0.5),
    release_seconds=(0.05, 0.3),
    cutoff=(3, 6.5),
    cutoff_envelope=(1, 5),
    cutoff_decay_seconds=(0.04, 0.25),
)
LEAD = _Range(
    shapes=ANY,
    oscillators=(1, 2, 3, 5, 7),
    detune_semitones=(0.05, 0.25),
    attack_seconds=(0.003, 0.04),
    decay_seconds=(0.2, 1),
    sustain=(0.5, 1),
    release_seconds=(0.08, 0.3),
    cutoff=(5, 8),
    cutoff_envelope=(0, 3),
    cutoff_decay_seconds=(0.1, 0.8),
)
RANGES = {"bass": BASS, "pad": PAD, "chord": CHORD, "guitar": CHORD, "arpeggio": ARPEGGIO, "lead": LEAD}


def draw_voice(role: str, rng: Generator) -> Voice:
    """A voice that suits a role; see `songs.ROLES`."""
    between = RANGES[role]
    return Voice(
        shape=choose(rng, between.shapes),
        oscillators=choose(rng, between.oscillators),
        detune_semitones=rng.uniform(*between.detune_semitones),
        attack_seconds=rng.uniform(*between.attack_seconds),
        decay_seconds=rng.uniform(*between.decay_seconds),
        sustain=rng.uniform(*between.sustain),
        release_seconds=rng.uniform(*between.release_seconds),
        cutoff=rng.uniform(*between.cutoff),
        cutoff_envelope=rng.uniform(*between.cutoff_envelope),
        cutoff_decay_seconds=rng.uniform(*between.cutoff_decay_seconds),
        sub=rng.uniform(*between.sub),
        fm_ratio=choose(rng, FM_RATIOS),
        fm_index=rng.uniform(*FM_INDEX),
    )
