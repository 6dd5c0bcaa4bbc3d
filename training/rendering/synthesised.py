"""Pieces that the own synthesiser plays."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from pedalboard import Delay

from restorer.errors import RestorerError
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.channel import amp, strip
from restorer.training.rendering.draws import chance, choose, whole
from restorer.training.rendering.drum_patterns import Hit, draw_hits, drums_of
from restorer.training.rendering.drums import duck, highpass, play_hits
from restorer.training.rendering.levels import SILENCE, at_level, gain, rms, through
from restorer.training.rendering.mastering import master
from restorer.training.rendering.materials import Draft, Materials
from restorer.training.rendering.notes import BASS_BELOW, DRUM_CHANNEL, Note, by_channel, mean_pitch
from restorer.training.rendering.oscillator import TOP_HZ
from restorer.training.rendering.songs import compose
from restorer.training.rendering.synthesiser import play_track
from restorer.transform import Float32

MIDI_SHARE = 0.35
SPEEDS = (0.8, 1.3)
LEAST_SHARE = 28 / 45  # of the longest piece's length
MOST_TRACKS = 6
BUDGET = 150 / 45  # seconds that a track's oscillators may sound together, per second of the longest piece
LEVELS = {"bass": 0.26, "pad": 0.13, "chord": 0.16, "guitar": 0.15, "arpeggio": 0.13, "lead": 0.17}
DRUM_LEVEL, RISER_LEVEL = 0.2, 0.04
BRIGHTENING_DB = (-2.0, 6.0)


@dataclass(frozen=True)
class _Arrangement:
    """Notes by role, and drums."""

    tracks: list[tuple[str, list[Note]]]
    hits: list[Hit]
    beat_seconds: float
    title: str
    sources: tuple[str, ...]


def synthesise(materials: Materials, rng: Generator) -> Draft:
    """A piece by the synthesiser: a MIDI file's notes (a third, if there are any) or a song made by chance.

    Raises
    ------
    RestorerError
        Nothing sounds, or no MIDI file can be read.
    """
    seconds = materials.draw_seconds(rng, LEAST_SHARE)
    from_midi = chance(rng, MIDI_SHARE) and bool(materials.midi)
    arrangement = _from_midi(materials, seconds, rng) if from_midi else _by_chance(seconds, rng)
    samples = int((seconds + 1) * SAMPLE_RATE)
    mix = _tracks(arrangement, samples, BUDGET * materials.seconds, rng)
    if hits := arrangement.hits:
        drums = play_hits(hits, rng, samples, materials.one_shots)
        drums = strip(drums, rng, "drums") if chance(rng, 0.9) else drums
        mix += at_level(drums, DRUM_LEVEL * gain(rng.uniform(-5, 4)))
    if rises := chance(rng, 0.12):
        _add_riser(mix, rng)
    if rms(mix) < SILENCE:
        raise RestorerError("nothing sounds")
    sources = (*arrangement.sources, *(("single sounds",) if hits and materials.one_shots else ()))
    bandwidth_hz = None if hits or rises else TOP_HZ  # noise has no end
    return Draft(master(mix, rng, BRIGHTENING_DB), "synthesised", arrangement.title, sources, bandwidth_hz)


def _from_midi(materials: Materials, seconds: float, rng: Generator) -> _Arrangement:
    path, score = materials.draw_stretch(rng, seconds, SPEEDS)
    channels = by_channel(score.notes)
    tracks = [(_role(channel, notes), notes) for channel, notes in channels.items() if channel != DRUM_CHANNEL]
    hits, beat_seconds = drums_of(score.notes), score.beat_seconds
    if not hits and chance(rng, 0.5):
        beat_seconds = 0.5
        bars = int(seconds / beat_seconds / 4) + 1
        hits = draw_hits(rng, choose(rng, ("four", "break", "house")), (True,) * bars, beat_seconds, 0.0, seconds)
    return _Arrangement(tracks, hits, beat_seconds, path.stem, ("score",))


def _role(channel: int, notes: list[Note]) -> str:
    pitch = mean_pitch(notes)
    if pitch < BASS_BELOW:
        return "bass"
    if pitch > 70:
        return "lead"
    return "pad" if channel % 3 == 0 else "arpeggio"


def _by_chance(seconds: float, rng: Generator) -> _Arrangement:
    song = compose(rng, seconds)
    hits = []
    if chance(rng, 0.92):
        hits = draw_hits(rng, song.style, song.drums_play, song.beat_seconds, song.swing, seconds)
    return _Arrangement(list(song.tracks.items()), hits, song.beat_seconds, f"made by chance, {song.style}", ())


def _tracks(arrangement: _Arrangement, samples: int, budget_seconds: float, rng: Generator) -> Float32:
    """All tracks mixed, (2, samples), mostly turned down by every kick in six of ten pieces that have some."""
    mix = np.zeros((2, samples), np.float32)
    kicks = [hit.start_seconds for hit in arrangement.hits if hit.sound == "kick"]
    ducking = None
    if kicks and chance(rng, 0.6):
        ducking = duck(samples, kicks, rng.uniform(0.3, 0.95), rng.uniform(0.04, 0.14))
    for role, notes in arrangement.tracks[:MOST_TRACKS]:
        track = play_track(notes, role, rng, samples, budget_seconds)
        if rms(track) < SILENCE:
            continue
        track = at_level(track, 0.8 * LEVELS[role] * gain(rng.uniform(-5, 4)))
        if role == "guitar" and chance(rng, 0.5):
            track = amp(track, rng)
        if role != "bass" and chance(rng, 0.35):
            delay_seconds = arrangement.beat_seconds * choose(rng, (0.5, 0.75, 0.25, 1.0))
            track = through([Delay(delay_seconds, rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.35))], track)
        track = strip(track, rng, role)
        mix += track * ducking if ducking is not None and chance(rng, 0.85) else track
    return mix


def _add_riser(mix: Float32, rng: Generator) -> None:
    """Add noise that grows for some seconds."""
    length = min(mix.shape[1], int(SAMPLE_RATE * rng.uniform(2, 6)))
    start = whole(rng, 0, mix.shape[1] - length)
    noise = highpass(rng.standard_normal(length, dtype=np.float32), rng.uniform(1500, 6000))
    mix[:, start : start + length] += noise * np.linspace(0, 1, length, dtype=np.float32) ** 2 * RISER_LEVEL
