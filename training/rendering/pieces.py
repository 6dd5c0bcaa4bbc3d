"""A piece of music from its number: drawn again until it can be used, then a FLAC file and a row of a manifest."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from restorer.errors import DISK_REFUSALS, RestorerError
from restorer.training.flac import write_flac
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.draws import chance, choose
from restorer.training.rendering.levels import gain, rms
from restorer.training.rendering.materials import SHORTEST_SECONDS, Draft, Materials
from restorer.training.rendering.rendered import render
from restorer.training.rendering.synthesised import synthesise
from restorer.transform import Float32

TRIES = 4
AUDIBLE = 4e-3  # amplitude
AUDIBLE_SECONDS = 3.0  # at least
LEAST_RMS_DB = -42.0
MOST_DC = 0.02
LEAD_IN_SAMPLES = 2000  # before the first audible sample
FADE_IN_SAMPLES = 64
FADE_OUT_SECONDS = (0.01, 0.3, 2.0)


@dataclass(frozen=True)
class Outcome:
    """What became of a piece: a row of the manifest and its length, or why there is none.

    `broken` is one line for each MIDI file that was found to be. With `refused` no other piece can be made either.
    """

    row: tuple[str, ...] = ()
    seconds: float = 0.0
    why: str = ""
    broken: tuple[str, ...] = ()
    refused: bool = False


def file_name(seed: int, index: int) -> str:
    """The name of a piece's file."""
    return f"piece{seed}-{index:05d}.flac"


def make_piece(materials: Materials, index: int) -> tuple[Draft, Float32]:
    """The `index`-th piece, and it as it is written: the same for the same materials, in any process.

    Returns
    -------
    A draft, and (2, samples), 10.5 s to `materials.seconds` long, finite, with its peak at most at full scale.

    Raises
    ------
    RestorerError
        It could not be used however often it was drawn; why the last time.
    """
    for attempt in range(TRIES):
        rng = np.random.default_rng([materials.seed, index, attempt])
        kind = synthesise if chance(rng, materials.synthesised) or not materials.soundfonts else render
        try:
            draft = kind(materials, rng)
            return draft, finish(draft.audio, materials.seconds, rng)
        except RestorerError as error:
            last = error
    raise last


def finish(audio: Float32, longest_seconds: float, rng: Generator) -> Float32:
    """(2, samples) from where it begins to where it ends, at most so long, with its ends faded.

    Raises
    ------
    RestorerError
        It cannot be used: not finite, too quiet, too short, or off centre.
    """
    if not np.isfinite(audio).all():
        raise RestorerError("it is not finite")
    places = np.nonzero(np.abs(audio).max(axis=0) > AUDIBLE)[0]
    if len(places) < AUDIBLE_SECONDS * SAMPLE_RATE:
        raise RestorerError("it is too quiet")
    audio = audio[:, max(0, int(places[0]) - LEAD_IN_SAMPLES) : int(places[-1]) + 1]
    audio = audio[:, : int(longest_seconds * SAMPLE_RATE)].astype(np.float32)
    if audio.shape[1] < SHORTEST_SECONDS * SAMPLE_RATE:
        raise RestorerError("it is too short")
    if rms(audio) < gain(LEAST_RMS_DB) or abs(float(audio.mean())) > MOST_DC:
        raise RestorerError("it is too quiet or off centre")
    fade_out = int(SAMPLE_RATE * choose(rng, FADE_OUT_SECONDS))
    audio[:, :FADE_IN_SAMPLES] *= np.linspace(0, 1, FADE_IN_SAMPLES, dtype=np.float32)
    audio[:, -fade_out:] *= np.linspace(1, 0, fade_out, dtype=np.float32)
    return audio


def write_piece(materials: Materials, folder: Path, index: int) -> Outcome:
    """Make the `index`-th piece and write it to the folder, whole or not at all."""
    known = set(materials.broken)
    try:
        draft, audio = make_piece(materials, index)
        write_flac(folder / file_name(materials.seed, index), audio)
    except RestorerError as error:
        return Outcome(why=str(error), broken=_broken(materials, known))
    except OSError as error:
        if error.errno not in DISK_REFUSALS:
            raise
        return Outcome(why=f"cannot write to '{folder}': {os.strerror(error.errno)}; make room", refused=True)
    row = (file_name(materials.seed, index), "train", _hertz(draft.bandwidth_hz), draft.artist, draft.title)
    seconds = audio.shape[1] / SAMPLE_RATE
    return Outcome((*row, _licence(draft.sources)), seconds, broken=_broken(materials, known))


def _broken(materials: Materials, known: set[Path]) -> tuple[str, ...]:
    return tuple(why for path, why in materials.broken.items() if path not in known)


def _hertz(bandwidth_hz: float | None) -> str:
    return "" if bandwidth_hz is None else f"{bandwidth_hz:.0f}"


def _licence(sources: tuple[str, ...]) -> str:
    """Nothing in a piece has another licence than what it was made from."""
    return f"as its {' and '.join(sources)}" if sources else "made by restorer render alone"
