"""What a group of instruments goes through before the mix: amplifier, exciter, channel strip."""

from typing import Any

import numpy as np
from numpy.random import Generator
from pedalboard import (
    Chorus,
    Compressor,
    Delay,
    HighpassFilter,
    HighShelfFilter,
    LowpassFilter,
    PeakFilter,
    Phaser,
    Reverb,
)

from restorer.training.rendering.draws import chance, whole
from restorer.training.rendering.levels import gain, saturate, through, usual_peak
from restorer.transform import Float32

AMP_LEVEL = 0.3
DRIVE_DB = (4.0, 16.0)  # of a guitar amplifier


def amp(audio: Float32, rng: Generator, drive_db: tuple[float, float] = DRIVE_DB) -> Float32:
    """A guitar amplifier and its cabinet: (2, samples) in, both sides the same or one later, as if played twice."""
    before = [HighpassFilter(rng.uniform(80, 200)), PeakFilter(rng.uniform(500, 1200), rng.uniform(0, 8), 0.7)]
    dry = through(before, audio.mean(axis=0, keepdims=True))
    driven = saturate(dry * (gain(rng.uniform(*drive_db)) / usual_peak(dry, 99)), 4, rng.uniform(0, 0.25))
    cabinet = [
        HighpassFilter(rng.uniform(60, 130)),
        PeakFilter(rng.uniform(2000, 4500), rng.uniform(0, 7), 0.8),
        LowpassFilter(rng.uniform(5000, 12000)),
        LowpassFilter(rng.uniform(7000, 15000)),
    ]
    left = through(cabinet, driven)[0]
    late = min(len(left), whole(rng, 300, 1200)) if chance(rng, 0.6) else 0
    right = np.pad(left, (late, 0))[: len(left)]
    return np.stack([left, right]) * np.float32(AMP_LEVEL)


def excite(audio: Float32, rng: Generator) -> Float32:
    """Add harmonics of the treble to (2, samples), as an exciter does."""
    treble = through([HighpassFilter(rng.uniform(2500, 6000)), HighpassFilter(3000)], audio)
    level = usual_peak(treble)
    made = saturate(treble * (rng.uniform(1.5, 4) / level), 2, 0.3)
    made = through([HighpassFilter(rng.uniform(5000, 8000))], made)
    return audio + made * (level * gain(rng.uniform(-12, 3)))


def strip(audio: Float32, rng: Generator, role: str) -> Float32:
    """A channel strip with what a producer may have switched on: filters, compressor, effects, saturation.

    `role` matters where it is "bass" or "drums".
    """
    audio = through(_strip_effects(rng, role), audio)
    if chance(rng, 0.12):
        level, drive = usual_peak(audio), rng.uniform(1, 4)
        audio = saturate(audio * (drive / level)) * (level / float(np.tanh(drive)))
    return audio


def _strip_effects(rng: Generator, role: str) -> list[Any]:
    u, low = rng.uniform, role in ("bass", "drums")
    effects: list[Any] = []
    if chance(rng, 0.6):
        effects.append(HighpassFilter(u(20, 40) if low else u(40, 180)))
    if chance(rng, 0.7):
        effects.append(PeakFilter(u(150, 6000), u(-6, 6), u(0.5, 2)))
    if chance(rng, 0.6):
        effects.append(HighShelfFilter(u(3000, 9000), u(-4, 6) if role == "bass" else u(-2, 9)))
    if low or chance(rng, 0.5):
        effects.append(Compressor(u(-30, -14), u(2, 8), u(1, 30), u(40, 250)))
    if not low:
        if chance(rng, 0.3):
            effects.append(Chorus(u(0.2, 2.5), u(0.1, 0.5), u(5, 12), u(0, 0.3), u(0.2, 0.6)))
        if chance(rng, 0.1):
            effects.append(Phaser(u(0.1, 1), u(0.3, 0.8), u(400, 2000), u(0, 0.4), u(0.3, 0.6)))
        if chance(rng, 0.25):
            effects.append(Delay(u(0.12, 0.55), u(0.1, 0.5), u(0.08, 0.35)))
    if chance(rng, 0.1 if role == "bass" else 0.5):
        effects.append(Reverb(u(0.1, 0.95), u(0.05, 0.8), u(0.05, 0.3), 0.8, u(0.5, 1)))
    return effects
