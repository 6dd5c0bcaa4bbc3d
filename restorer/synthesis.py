"""A piece of music made by code: the demo's song, and the test audio of the whole project.

`synthesize` writes a score from its seed (tempo, key, progression, patterns, timbres), plays it on the
instruments of `restorer.instruments` and mixes them in stereo with reverb, as loud as a modern master.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

from restorer import instruments as band
from restorer.errors import ConfigError
from restorer.instruments import Samples

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10)}
# One chord per bar, as degrees of the scale counted from 0.
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 2, 3, 4), (0, 6, 5, 6))
# Sixteenths of a bar of four beats at which an instrument plays.
KICKS = ((0, 8), (0, 6, 8), (0, 4, 8, 12), (0, 7, 10), (0, 3, 8, 11), (0, 10))
SNARES = ((4, 12), (4, 12, 15), (4, 11, 12), (8,))
BASSES = ((0, 6, 8, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 6, 8, 11, 14), (0, 8), (0, 4, 7, 8, 12))
# The lead's notes in a bar: (first sixteenth, length in sixteenths).
PHRASES = (
    ((0, 6), (6, 2), (8, 6)),
    ((0, 3), (3, 3), (6, 8)),
    ((2, 2), (4, 4), (8, 7)),
    ((0, 4), (4, 2), (6, 2), (8, 4), (12, 4)),
    ((0, 12),),
    ((4, 2), (6, 2), (8, 8)),
)
# Mastering: loudness, and the level that no sample exceeds.
TARGET_RMS, CEILING = 0.25, 0.97


@dataclass(frozen=True)
class Score:
    """What a seed decides about a piece before the first note sounds."""

    tempo_bpm: float
    root_midi: int
    scale: tuple[int, ...]
    progression: tuple[int, ...]
    kicks: tuple[int, ...]
    snares: tuple[int, ...]
    hat_step: int
    basses: tuple[int, ...]
    pad: Callable[..., Samples]
    rhythm: Callable[..., Samples]
    colour: float
    swing: float

    @classmethod
    def write(cls, rng: Generator) -> "Score":
        """A score drawn from `rng`."""

        def pick(options: tuple) -> tuple:
            return options[rng.integers(len(options))]

        return cls(
            tempo_bpm=float(rng.uniform(84, 136)),
            root_midi=int(rng.integers(43, 55)),
            scale=pick(tuple(SCALES.values())),
            progression=pick(PROGRESSIONS),
            kicks=pick(KICKS),
            snares=pick(SNARES),
            hat_step=int(rng.choice((1, 2, 2, 4))),
            basses=pick(BASSES),
            pad=(band.bowed, band.organ)[rng.integers(2)],
            rhythm=(band.plucked, band.plucked, band.organ)[rng.integers(3)],
            colour=float(rng.random()),
            swing=float(rng.choice((0.0, 0.0, 0.25))),
        )

    def sixteenth_seconds(self) -> float:
        """Length of a sixteenth note."""
        return 15.0 / self.tempo_bpm

    def when(self, bar: int, step: int) -> float:
        """The time in seconds of a sixteenth of a bar; odd sixteenths come late when the piece swings."""
        return (16 * bar + step + self.swing * (step % 2)) * self.sixteenth_seconds()

    def pitch_hz(self, degree: int, octave: int = 0) -> float:
        """The frequency of a degree of the scale, 0 at the root, going on above and below."""
        octaves, index = divmod(degree, len(self.scale))
        return 440.0 * 2 ** ((self.root_midi + self.scale[index] - 69) / 12 + octaves + octave)


class Tape:
    """A stereo track of fixed length that notes are laid on; what sticks out at the end is cut.

    Shape: `track` is (2, samples).
    """

    def __init__(self, samples: int, sample_rate: int) -> None:
        self.track = np.zeros((2, samples))
        self.sample_rate = sample_rate

    def lay(self, second: float, note: Samples, level: float, pan: float = 0.0) -> None:
        """Adds a note of shape (samples,) or (2, samples), with `pan` from -1 (left) to 1 (right)."""
        start = round(second * self.sample_rate)
        length = min(note.shape[-1], self.track.shape[1] - start)
        if length > 0:
            angle = 0.25 * np.pi * (1.0 + pan)
            sides = level * np.array([[np.cos(angle)], [np.sin(angle)]])
            self.track[:, start : start + length] += sides * note[..., :length]


def play_drums(score: Score, tape: Tape, bars: int, rng: Generator) -> None:
    """Kick, snare with ghost notes, hi-hats in two or four to the beat, a crash every fourth bar, fills."""
    rate = tape.sample_rate
    kick_hz, snare_hz = rng.uniform(42, 56), rng.uniform(165, 230)
    ride = rng.random() < 0.4
    for bar in range(bars):
        last = bar % 4 == 3
        if bar % 4 == 0:
            wide = np.stack([band.cymbal(rng, rate, 1.1), band.cymbal(rng, rate, 1.1)])
            tape.lay(score.when(bar, 0), wide, 0.17)
        for step in score.kicks:
            tape.lay(score.when(bar, step), band.kick(rng, rate, kick_hz), rng.uniform(0.85, 1.0))
        fill = (10, 12, 13, 14, 15) if last else ()
        for step in sorted({*score.snares, *fill}):
            tape.lay(score.when(bar, step), band.snare(rng, rate, snare_hz), rng.uniform(0.45, 0.62), 0.08)
        for step in range(0, 16, score.hat_step):
            open_hat = step == 14 or (score.hat_step == 4 and step == 6)
            level = (0.16 if step % 4 == 0 else 0.09) * rng.uniform(0.8, 1.15)
            tape.lay(score.when(bar, step), band.hi_hat(rng, rate, 0.2 if open_hat else 0.03), level, 0.45)
        if ride:
            for step in (2, 6, 10, 14):
                tape.lay(score.when(bar, step), band.cymbal(rng, rate, 0.3), 0.05, -0.5)


def play_bass(score: Score, tape: Tape, bars: int, rng: Generator) -> None:
    """The bass on the roots of the chords, now and then on the fifth or the octave."""
    ends = (*score.basses[1:], 16)
    for bar in range(bars):
        degree = score.progression[bar % len(score.progression)]
        for step, end in zip(score.basses, ends, strict=True):
            leap = 0 if step == 0 else int(rng.choice((0, 0, 0, 4, 7)))
            pitch_hz = score.pitch_hz(degree + leap, -1)
            while pitch_hz > 110.0:
                pitch_hz /= 2.0
            seconds = 0.92 * (end - step) * score.sixteenth_seconds()
            tape.lay(score.when(bar, step), band.bass(rng, tape.sample_rate, pitch_hz, seconds), 0.42)


def play_chords(score: Score, tape: Tape, bars: int, rng: Generator) -> None:
    """A pad that holds each chord for a bar, spread across the stereo field, and a broken chord above it."""
    rate = tape.sample_rate
    for bar in range(bars):
        root = score.progression[bar % len(score.progression)] - (7 if score.root_midi > 49 else 0)
        bar_seconds = 16 * score.sixteenth_seconds()
        for degree, pan in zip((0, 4, 7, 9, 13), (-0.8, 0.3, -0.3, 0.8, 0.5), strict=True):
            note = score.pad(rng, rate, score.pitch_hz(root + degree), bar_seconds + 0.1, score.colour)
            tape.lay(score.when(bar, 0), note, 0.06, pan)
        order = rng.permutation((7, 9, 11, 14, 16))
        for index, step in enumerate(range(0, 16, 2)):
            if rng.random() < 0.85:
                pitch_hz = score.pitch_hz(root + int(order[index % 5]))
                note = score.rhythm(rng, rate, pitch_hz, 4 * score.sixteenth_seconds(), score.colour)
                side = 0.6 if index % 2 else -0.6
                tape.lay(score.when(bar, step), note, 0.13 * rng.uniform(0.7, 1.1), side)


def play_lead(score: Score, tape: Tape, bars: int, rng: Generator) -> None:
    """A sung melody: it walks along the scale, rests on notes of the chord, breathes and hisses."""
    rate = tape.sample_rate
    source = Tape(tape.track.shape[1], rate)
    vowels: list[tuple[float, str]] = [(0.0, "a")]
    degree, last_hz = 7, score.pitch_hz(7)
    for bar in range(bars):
        chord = score.progression[bar % len(score.progression)]
        for step, length in PHRASES[rng.integers(len(PHRASES))]:
            degree += int(rng.choice((-2, -1, 1, 2, 3)))
            if length >= 4:
                tones = chord + np.array((-5, -3, 0, 2, 4, 7, 9, 11, 14))
                degree = int(tones[np.argmin(np.abs(tones - degree))])
            degree = int(np.clip(degree, 3, 13))
            start, seconds = score.when(bar, step), (length - 0.15) * score.sixteenth_seconds()
            pitch_hz = score.pitch_hz(degree)
            pulses, breath = band.glottis(rng, rate, pitch_hz, seconds, last_hz)
            source.lay(start, pulses + 0.07 * breath, 1.0)
            vowel, glide = rng.choice(list(band.VOWELS), 2)
            vowels += [(start, vowel), (start + 0.6 * seconds, vowel), (start + 0.98 * seconds, glide)]
            if rng.random() < 0.35:
                hiss = band.noise(rng, round(0.09 * rate), 4500, 13000, rate)
                hiss *= np.hanning(len(hiss))
                tape.lay(max(0.0, start - 0.05), hiss, 0.1)
            last_hz = pitch_hz
    tape.lay(0.0, band.sing(source.track[0], vowels, rate), 1.3)


def reverberate(dry: Samples, sample_rate: int, rng: Generator, decay_seconds: float) -> Samples:
    """The sound of a room: both channels through decaying noise of their own, the highs dying first.

    Shape: (2, samples) -> (2, samples).
    """
    time = band.seconds_axis(1.6 * decay_seconds, sample_rate)
    low, high = rng.standard_normal((2, 2, len(time)))
    high = signal.sosfilt(band.band(3500, 19000, sample_rate), high)
    low = signal.sosfilt(band.band(180, 3500, sample_rate), low)
    room = low * np.exp(-5.0 * time / decay_seconds) + high * np.exp(-8.0 * time / decay_seconds)
    room /= np.sqrt(np.sum(room**2, axis=1, keepdims=True))
    ahead = round(0.012 * sample_rate)
    wet = signal.oaconvolve(dry, room, axes=1)[:, : dry.shape[1]]
    return np.pad(wet, ((0, 0), (ahead, 0)))[:, : dry.shape[1]]


def synthesize(
    seconds: float = 12.0, sample_rate: int = 44100, seed: int = 0, channels: int = 2
) -> NDArray[np.float32]:
    """A piece of music with drums, cymbals, bass, chords and a voice, different for every seed.

    Parameters
    ----------
    seconds : length of the piece.
    sample_rate : in Hz, 8000 or more; the music reaches up to 20 kHz where the rate can carry it.
    seed : decides tempo, key, chords, patterns and timbres; the same seed gives the same samples.
    channels : 1 (the mean of left and right) or 2.

    Returns
    -------
    float32 array of shape (channels, samples) in [-1, 1].

    Raises
    ------
    ConfigError : one of them is outside what is said here; `seconds` may be 3600 at most.
    """
    if not 0 < seconds <= 3600 or seconds * sample_rate < 1:
        raise ConfigError(f"seconds must be above 0 and at most 3600 and not {seconds}")
    if sample_rate < 8000:
        raise ConfigError(f"sample_rate must be 8000 Hz or more and not {sample_rate}")
    if channels not in (1, 2):
        raise ConfigError(f"channels must be 1 or 2 and not {channels}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more and not {seed}")
    rng = np.random.default_rng(seed)
    score = Score.write(rng)
    samples = round(seconds * sample_rate)
    bars = int(np.ceil(seconds / (16 * score.sixteenth_seconds())))
    mix = np.zeros((2, samples))
    # Every part has a generator of its own, so that one part's notes do not change another's.
    for play, send in ((play_drums, 0.07), (play_bass, 0.0), (play_chords, 0.25), (play_lead, 0.22)):
        part = np.random.default_rng(rng.integers(2**63))
        tape = Tape(samples, sample_rate)
        play(score, tape, bars, part)
        mix += tape.track
        if send:
            mix += send * reverberate(tape.track, sample_rate, part, 1.4 if send > 0.1 else 0.7)
    mix *= TARGET_RMS / max(np.sqrt(np.mean(mix**2)), 1e-9)
    mix = CEILING * np.tanh(mix / CEILING)
    fade = min(samples, round(0.02 * sample_rate))
    mix[:, samples - fade :] *= np.linspace(1.0, 0.0, fade)
    return (mix if channels == 2 else mix.mean(axis=0, keepdims=True)).astype(np.float32)
