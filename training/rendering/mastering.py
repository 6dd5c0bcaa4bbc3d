"""Mastering: width, equalisation, how bright and how loud a piece is, and the noise below it."""

from typing import Any

import numpy as np
from numpy.random import Generator
from pedalboard import Compressor, HighpassFilter, HighShelfFilter, LowShelfFilter, PeakFilter, Reverb
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.rendering.channel import excite
from restorer.training.rendering.draws import chance, choose
from restorer.training.rendering.levels import SILENCE, at_level, gain, saturate, through
from restorer.transform import Float32

LOUD_SHARE = 0.6
LOUDNESS_DB = (-17.0, -8.5)  # effective value of what is loud, before the second limiter
SOFT_PEAK_DB = (-6.0, -0.2)  # of the other pieces
CEILING = 0.9999
FIRST_LIMIT, LAST_LIMIT = 1.25, 0.98  # a slow limiter first, then a fast one
TREBLE_HZ = 9000.0
TREBLE_DB = (-30.0, -18.0, -11.0)  # share of the energy above it: least, most frequent, most
BRIGHTENING_DB = (-2.0, 9.0)  # of a shelf that every piece goes through
FLOOR_DB = (-96.0, -70.0)
MIX_LEVEL = 0.1  # effective value before the last stage
STFT = 4096


def master(audio: Float32, rng: Generator, brightening_db: tuple[float, float] = BRIGHTENING_DB) -> Float32:
    """A mix as a finished piece: (2, samples), six of ten as loud as modern masters, no sample above `CEILING`."""
    audio = through(_equaliser(rng, brightening_db), _widen(audio, rng))
    audio = at_level(_tilt(audio, rng), MIX_LEVEL)
    audio = loud(audio, rng) if chance(rng, LOUD_SHARE) else _soft(audio, rng)
    if chance(rng, 0.85):
        audio = audio + _noise_floor(audio.shape, rng)
    return audio * min(1.0, CEILING / max(_peak(audio), SILENCE))


def limit(audio: Float32, threshold: float, lookahead: int) -> Float32:
    """Turn (channels, samples) down where it would pass the threshold, smoothly, from `lookahead` samples before."""
    turned = np.minimum(1, threshold / np.maximum(np.abs(audio).max(axis=0), 1e-9)).astype(np.float32)
    if turned.min(initial=1) >= 1:
        return audio
    turned = minimum_filter1d(turned, 2 * lookahead + 1)
    for _ in range(2):
        turned = uniform_filter1d(turned, lookahead | 1)
    return audio * turned


def treble_db(audio: Float32) -> float:
    """Share of the energy of (2, samples) above 9 kHz, -90 dB at least, over eighty frames of its sum."""
    mono = audio.sum(axis=0)
    mono = np.pad(mono, (0, max(0, STFT - len(mono))))
    starts = np.linspace(0, len(mono) - STFT, 80).astype(int)
    frames = np.stack([mono[start : start + STFT] for start in starts]) * np.hanning(STFT).astype(np.float32)
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).sum(axis=0)
    share = float(power[round(TREBLE_HZ * STFT / SAMPLE_RATE) :].sum() / max(power.sum(), 1e-20))
    return 10 * float(np.log10(max(share, 1e-9)))


def loud(audio: Float32, rng: Generator) -> Float32:
    """A mix compressed, brought up and limited twice; its peak is between -2 and -0.05 dBFS."""
    if chance(rng, 0.8):
        compressor = Compressor(rng.uniform(-24, -12), rng.uniform(1.5, 4), rng.uniform(3, 40), rng.uniform(60, 300))
        audio = through([compressor], audio)
    level = gain(rng.uniform(*LOUDNESS_DB))
    for threshold in (FIRST_LIMIT, 1.0):
        audio = at_level(audio, level)
        if threshold == FIRST_LIMIT and chance(rng, 0.4):
            knee = rng.uniform(0.9, 1.6)
            audio = saturate(audio / knee) * knee
        audio = limit(audio, threshold, int(SAMPLE_RATE * rng.uniform(0.02, 0.08)))
        audio = limit(audio, LAST_LIMIT, int(SAMPLE_RATE * rng.uniform(0.0015, 0.006)))
    return _to_peak(audio, -choose(rng, (0.05, 0.1, 0.3, 0.3, 0.5, 1.0, 1.0, rng.uniform(0, 2))))


def _soft(audio: Float32, rng: Generator) -> Float32:
    u = rng.uniform
    if chance(rng, 0.5):
        audio = through([Compressor(u(-20, -10), u(1.3, 2.5), u(10, 50), u(100, 400))], audio)
    return _to_peak(audio, u(*SOFT_PEAK_DB))


def _widen(audio: Float32, rng: Generator) -> Float32:
    """Wider, narrower or nearly mono; the sides are never louder than 0.8 of the middle before."""
    middle, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2
    energy, side_energy = (float(np.sqrt((part * part).mean())) for part in (middle, side))
    width = choose(rng, (rng.uniform(0.5, 1), 1.0, rng.uniform(1, 1.7), rng.uniform(1, 1.5)))
    if chance(rng, 0.05):
        width = rng.uniform(0, 0.2)
    side = side * (width * min(1.0, 0.8 * energy / max(1e-9, side_energy)))
    return np.stack([middle + side, middle - side])


def _equaliser(rng: Generator, brightening_db: tuple[float, float]) -> list[Any]:
    u = rng.uniform
    effects = [
        HighpassFilter(u(15, 32)),
        HighShelfFilter(u(3500, 10000), u(*brightening_db)),
        LowShelfFilter(u(70, 250), u(-4, 5)),
        PeakFilter(u(200, 1500), u(-4, 3), u(0.5, 1.5)),
        PeakFilter(u(1500, 6000), u(-4, 4), u(0.5, 1.5)),
    ]
    if chance(rng, 0.35):
        effects.append(Reverb(u(0.2, 0.8), u(0.1, 0.7), u(0.04, 0.2), 0.85, u(0.6, 1)))
    return effects


def _tilt(audio: Float32, rng: Generator) -> Float32:
    """Bring the treble near a share that is drawn: down if there is more, up (mostly) if there is much less."""
    wanted_db = rng.triangular(*TREBLE_DB)
    found_db = treble_db(audio)
    dull = found_db < wanted_db - 3 and chance(rng, 0.7)
    if chance(rng, 0.75 if dull else 0.3):
        audio = excite(audio, rng)
        found_db = treble_db(audio)
    if found_db > wanted_db:
        return through([HighShelfFilter(rng.uniform(5000, 9000), max(-20.0, (wanted_db - found_db) * 1.1), 0.6)], audio)
    if dull:
        return through([HighShelfFilter(rng.uniform(5000, 11000), min(9.0, (wanted_db - found_db) * 0.6), 0.6)], audio)
    return audio


def _noise_floor(shape: tuple[int, ...], rng: Generator) -> Float32:
    noise = rng.standard_normal(shape, dtype=np.float32)
    if chance(rng, 0.4):
        low = LowShelfFilter(rng.uniform(300, 3000), rng.uniform(0, 12))
        high = HighShelfFilter(rng.uniform(4000, 10000), rng.uniform(-9, 3))
        noise = at_level(through([low, high], noise), 1.0)
    return noise * gain(rng.uniform(*FLOOR_DB))


def _peak(audio: Float32) -> float:
    return float(np.abs(audio).max(initial=0.0))


def _to_peak(audio: Float32, db: float) -> Float32:
    found = _peak(audio)
    return audio * (gain(db) / found) if found >= SILENCE else audio
