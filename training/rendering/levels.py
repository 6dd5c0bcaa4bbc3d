"""Levels and saturation, which every stage of a mix needs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pedalboard import Pedalboard
from scipy.signal import resample_poly

from restorer.training.mp3 import SAMPLE_RATE
from restorer.transform import Float32

SILENCE = 1e-6  # effective value below which nothing sounds
FRAME = 2048  # samples over which a level is taken
QUIET = 1e-3  # of the loudest frame's power: what is below is a pause and no part of the level


def gain(db: float) -> float:
    """The factor of a change in dB."""
    return float(10 ** (db / 20))


def rms(audio: Float32) -> float:
    """Effective value of (channels, samples) where it sounds: pauses do not count. 0 for less than a frame."""
    frames = audio[:, : audio.shape[1] // FRAME * FRAME].reshape(len(audio), -1, FRAME)
    power = (frames * frames).mean(axis=(0, 2))
    power = power[power > power.max(initial=0.0) * QUIET]
    return float(np.sqrt(power.mean())) if len(power) else 0.0


def at_level(audio: Float32, level: float) -> Float32:
    """The audio with the effective value `level`; silence stays silence."""
    found = rms(audio)
    return audio * (level / found) if found >= SILENCE else audio


def usual_peak(audio: Float32, percent: float = 99.5) -> float:
    """The amplitude below which so many percent of all samples are, 1e-4 at least."""
    return max(1e-4, float(np.percentile(np.abs(audio[..., ::23]), percent)))


def saturate(audio: Float32, oversampling: int = 2, bias: float = 0.0) -> Float32:
    """Bend (..., samples) by tanh at a multiple of the sample rate, so that little folds back."""
    bent = np.tanh(resample_poly(audio, oversampling, 1, axis=-1) + bias) - float(np.tanh(bias))
    return resample_poly(bent, 1, oversampling, axis=-1).astype(np.float32, copy=False)


def through(effects: Sequence[Any], audio: Float32) -> Float32:
    """(channels, samples) after pedalboard's effects one after another; without any, the audio itself."""
    return Pedalboard(list(effects))(np.ascontiguousarray(audio), SAMPLE_RATE) if effects else audio
