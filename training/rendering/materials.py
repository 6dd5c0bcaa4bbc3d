"""What pieces are made from, and a piece before it is a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numpy.random import Generator

from restorer.errors import RestorerError
from restorer.training.rendering.draws import whole
from restorer.training.rendering.drums import OneShots
from restorer.training.rendering.notes import Score, cut, read_midi
from restorer.training.rendering.soundfont import SoundFont
from restorer.transform import Float32

SHORTEST_SECONDS = 10.5  # of a piece
SHORTEST_WANTED_SECONDS = 11.0  # of its notes
TRANSPOSITIONS = (-5, 6)  # semitones


@dataclass(frozen=True)
class Materials:
    """What chance may draw from.

    Parameters
    ----------
    seconds : the longest piece.
    midi : MIDI files; without any, all songs are made by chance.
    soundfonts : without any, everything is synthesised; else FluidSynth is at `fluidsynth`.
    synthesised : share of pieces that the own synthesiser plays.
    """

    seconds: float
    seed: int = 0
    midi: Sequence[Path] = ()
    soundfonts: Sequence[SoundFont] = ()
    fluidsynth: str = ""
    one_shots: OneShots = field(default_factory=OneShots)
    synthesised: float = 0.3
    broken: dict[Path, str] = field(default_factory=dict)  # MIDI files that turned out to be, and why

    def draw_seconds(self, rng: Generator, least_share: float) -> float:
        """How long the notes of a piece go on."""
        return rng.uniform(max(SHORTEST_WANTED_SECONDS, least_share * self.seconds), self.seconds)

    def draw_stretch(self, rng: Generator, seconds: float, speeds: tuple[float, float]) -> tuple[Path, Score]:
        """A stretch of a MIDI file in another key and tempo.

        Raises
        ------
        RestorerError
            No file can be read. Those that cannot are noted in `broken` and passed over.
        """
        for index in rng.permutation(len(self.midi)):
            path = self.midi[index]
            if path in self.broken:
                continue
            try:
                score = read_midi(path)
            except RestorerError as error:
                self.broken[path] = str(error)
                continue
            notes = cut(score.notes, seconds, rng, whole(rng, *TRANSPOSITIONS), 1 / rng.uniform(*speeds))
            return path, Score(notes, score.programs, score.beat_seconds)
        raise RestorerError(f"none of the {len(self.midi)} MIDI files can be read")


@dataclass(frozen=True)
class Draft:
    """A mastered piece.

    `sources` names what in it has an author elsewhere; `bandwidth_hz` is None where nobody knows it.
    """

    audio: Float32
    artist: str
    title: str
    sources: tuple[str, ...]
    bandwidth_hz: float | None = None
