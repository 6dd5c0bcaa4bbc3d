"""Drums: sounds of noise and sines, single sounds from files, and hits played with them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.signal import butter, sosfilt

from restorer.audio_in import read_audio
from restorer.errors import RestorerError
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.draws import chance, choose
from restorer.training.rendering.drum_patterns import Hit
from restorer.training.rendering.levels import gain
from restorer.training.rendering.synthesiser import add_panned
from restorer.transform import Float32

LEVELS = {
    "kick": 1.0,
    "snare": 0.8,
    "clap": 0.6,
    "hat": 0.35,
    "open hat": 0.35,
    "ride": 0.3,
    "crash": 0.45,
    "tom": 0.7,
    "high tom": 0.7,
    "shaker": 0.3,
    "percussion": 0.4,
}
CENTRAL = ("kick", "snare")
# What the names of files say about what is in them, as free collections name theirs.
NAMES = {
    "kick": r"bd_|kick|drum_bass|rl\d",
    "snare": r"snare|_sn\b|_sn_|sn_|basic|rimshot|sl\d|gph2_ss",
    "clap": r"clap|snap",
    "hat": r"hat_|hihat-?closed|hhclosed|hhpedal|cymbal_closed|hatclosed|hatpedal|gph2_hc",
    "open hat": r"hihat-?open|hhopen|hhhalf|cymbal_open|semiopen|gph2_ho",
    "ride": r"ride",
    "crash": r"crash(?!.*choke)|splash|china|cymbal_hard",
    "tom": r"tom_lo|tom_mid|fuzz_tom",
    "high tom": r"tom_hi",
    "shaker": r"maraca|tamb",
    "percussion": r"perc_|tabla|elec_|cowbell|glitch|bellyc|bp_|sidestick|cajon|drum_cowbell|fx_perc",
}
LONGEST_SECONDS = 2.5
FADE_SAMPLES = 400
METAL = (1, 1.342, 1.531, 1.98, 2.63, 3.11)  # ratios of the squares in a cymbal
DECAY_SECONDS = {
    "hat": (0.02, 0.06),
    "open hat": (0.12, 0.35),
    "shaker": (0.03, 0.08),
    "ride": (0.3, 0.7),
    "crash": (0.5, 1.3),
}


class OneShots:
    """Recordings of single sounds, by what their names say that they are."""

    def __init__(self, files: Sequence[Path] = ()):
        named = {sound: re.compile(pattern) for sound, pattern in NAMES.items()}
        self.files = {
            sound: [path for path in files if pattern.search(path.stem.lower())] for sound, pattern in named.items()
        }

    def __bool__(self) -> bool:
        """Whether there are any that can be drawn."""
        return any(self.files.values())

    def draw(self, sound: str, rng: Generator) -> Float32 | None:
        """One channel of such a sound with its peak at 1, sometimes at another pitch; None if there is none."""
        if not self.files[sound]:
            return None
        try:
            audio = read_audio(choose(rng, self.files[sound]), SAMPLE_RATE)[0]
        except RestorerError:
            return None
        shot = audio.mean(axis=0)[: int(LONGEST_SECONDS * SAMPLE_RATE)]
        semitones = choose(rng, (0.0, 0.0, rng.uniform(-1, 3)))
        if semitones:
            places = np.arange(0, len(shot) - 1, 2 ** (semitones / 12))
            shot = np.interp(places, np.arange(len(shot)), shot).astype(np.float32)
        return _at_peak(_faded(shot))


def play_hits(hits: Sequence[Hit], rng: Generator, samples: int, one_shots: OneShots) -> Float32:
    """Drums as (2, samples): each sound is made or chosen once, and has its level and place."""
    drums = np.zeros((2, samples), np.float32)
    share = choose(rng, (0.0, 0.5, 0.5, 1.0))
    level = {sound: usual * gain(rng.uniform(-4, 4)) for sound, usual in LEVELS.items()}
    place = {sound: 0.0 if sound in CENTRAL else rng.uniform(-0.5, 0.5) for sound in LEVELS}
    made: dict[str, Float32] = {}
    for hit in hits:
        start = int(hit.start_seconds * SAMPLE_RATE)
        if not 0 <= start < samples:
            continue
        if hit.sound not in made:
            shot = one_shots.draw(hit.sound, rng) if chance(rng, share) else None
            made[hit.sound] = synthesise_drum(hit.sound, rng) if shot is None else shot
        stroke = made[hit.sound][: samples - start] * (hit.velocity * level[hit.sound])
        add_panned(drums[:, start : start + len(stroke)], stroke, place[hit.sound])
    return drums


def duck(samples: int, kick_seconds: Sequence[float], depth: float, release_seconds: float) -> Float32:
    """The gain of a side chain, (samples,): down by `depth` (0 to 1) after every kick, and back."""
    after = np.arange(int(SAMPLE_RATE * release_seconds * 5))
    dip = 1 - depth * np.exp(-after / (SAMPLE_RATE * release_seconds)) * np.minimum(1, after / 90)
    curve = np.ones(samples, np.float32)
    for seconds in kick_seconds:
        stretch = curve[int(seconds * SAMPLE_RATE) :][: len(dip)]
        np.minimum(stretch, dip[: len(stretch)].astype(np.float32), out=stretch)
    return curve


def highpass(audio: Float32, cutoff_hz: float, order: int = 2) -> Float32:
    """A Butterworth high-pass."""
    return sosfilt(butter(order, cutoff_hz, "high", fs=SAMPLE_RATE, output="sos"), audio).astype(np.float32)


def synthesise_drum(sound: str, rng: Generator) -> Float32:
    """A sound of `LEVELS` made of sines and noise: (samples,) with its peak at 1."""
    return _at_peak(_faded(RECIPES[sound](sound, rng).astype(np.float32)))


def _faded(audio: Float32) -> Float32:
    """Without a click at its end."""
    fade = min(len(audio), FADE_SAMPLES)
    return audio * np.concatenate([np.ones(len(audio) - fade, np.float32), np.linspace(1, 0, fade, dtype=np.float32)])


def _at_peak(audio: Float32) -> Float32:
    return audio / max(float(np.abs(audio).max(initial=0.0)), 1e-5)


def _time(seconds: float) -> Float32:
    return np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32) / np.float32(SAMPLE_RATE)


def _noise(time: Float32, rng: Generator, lowest_hz: float, order: int = 2) -> Float32:
    return highpass(rng.standard_normal(len(time), dtype=np.float32), lowest_hz, order)


def _falling(time: Float32, end_hz: float, above_hz: float, fall_seconds: float) -> Float32:
    """Phase in periods of a tone that falls to `end_hz` from so much above."""
    return end_hz * time + above_hz * fall_seconds * (1 - np.exp(-time / fall_seconds))


def _kick(_: str, rng: Generator) -> Float32:
    time = _time(rng.uniform(0.2, 0.6))
    phase = _falling(time, rng.uniform(42, 60), rng.uniform(80, 400), rng.uniform(0.01, 0.05))
    body = np.tanh(np.sin(2 * np.pi * phase) * rng.uniform(1, 3)) * np.exp(-time / rng.uniform(0.08, 0.25))
    return body + _noise(time, rng, rng.uniform(1500, 5000)) * np.exp(-time / 0.004) * rng.uniform(0, 0.5)


def _tom(sound: str, rng: Generator) -> Float32:
    time, hz = _time(0.5), rng.uniform(70, 130) * (1.6 if sound == "high tom" else 1)
    body = np.sin(2 * np.pi * _falling(time, hz, hz * 0.6, 0.06)) * np.exp(-time / rng.uniform(0.1, 0.2))
    return body + _noise(time, rng, 2000) * np.exp(-time / 0.02) * 0.2


def _snare(_: str, rng: Generator) -> Float32:
    time, hz = _time(0.45), rng.uniform(160, 250)
    body = np.sin(2 * np.pi * hz * time) + 0.6 * np.sin(2 * np.pi * hz * 1.6 * time)
    body = body * np.exp(-time / rng.uniform(0.03, 0.09))
    wires = _noise(time, rng, rng.uniform(800, 4000)) * np.exp(-time / rng.uniform(0.05, 0.16))
    return np.tanh(body * 0.6 + wires * rng.uniform(0.4, 0.9))


def _clap(_: str, rng: Generator) -> Float32:
    time, tail_seconds = _time(0.4), rng.uniform(0.05, 0.14)
    envelope = np.zeros_like(time)
    for hand, decay_seconds in enumerate((0.006, 0.006, 0.006, tail_seconds)):
        after = time - 0.011 * hand
        envelope += np.exp(-np.maximum(after, 0) / decay_seconds) * (after >= 0)
    return _noise(time, rng, rng.uniform(700, 1500)) * envelope


def _metal(sound: str, rng: Generator) -> Float32:
    decay_seconds = rng.uniform(*DECAY_SECONDS[sound])
    time, hz = _time(min(2.6, decay_seconds * 6)), rng.uniform(300, 600)
    metal = rng.standard_normal(len(time), dtype=np.float32)
    if sound != "shaker" and chance(rng, 0.6):
        for ratio in METAL:
            metal += 0.35 * np.sign(np.sin(2 * np.pi * hz * ratio * time))
    lowest_hz = rng.uniform(2000, 5000) if sound == "crash" else rng.uniform(3500, 9000)
    attack = np.minimum(time / 0.02, 1) if sound == "shaker" else 1.0
    return highpass(metal, lowest_hz, 3) * attack * np.exp(-time / decay_seconds)


def _percussion(_: str, rng: Generator) -> Float32:
    time, hz = _time(0.3), rng.uniform(300, 2500)
    modulator = rng.uniform(0, 3) * np.sin(2 * np.pi * hz * rng.uniform(1.3, 3) * time)
    return np.sin(2 * np.pi * hz * time + modulator) * np.exp(-time / rng.uniform(0.02, 0.1))


RECIPES: dict[str, Callable[[str, Generator], Float32]] = {
    "kick": _kick,
    "snare": _snare,
    "clap": _clap,
    "tom": _tom,
    "high tom": _tom,
    "hat": _metal,
    "open hat": _metal,
    "shaker": _metal,
    "ride": _metal,
    "crash": _metal,
    "percussion": _percussion,
}
