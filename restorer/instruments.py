"""The instruments of the built-in band; most functions render one note or one hit as mono float64 samples.

Pitched sounds read wavetables that hold every partial up to 20 kHz (or just below Nyquist), so a note costs a
few table look-ups instead of a hundred sines; bright and dark tables that decay apart make its colour move.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

Samples = NDArray[np.float64]

TABLE_SIZE = 8192
HIGHEST_PARTIAL_HZ = 20000.0

# Centre frequencies (Hz) and levels (dB) of the first five formants of a sung vowel.
VOWELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "a": ((800, 1150, 2900, 3900, 4950), (0, -5, -22, -26, -36)),
    "e": ((450, 1800, 2700, 3600, 4950), (0, -12, -22, -24, -34)),
    "i": ((330, 2100, 2950, 3700, 4950), (0, -16, -20, -26, -38)),
    "o": ((450, 800, 2830, 3800, 4950), (0, -8, -22, -26, -40)),
    "u": ((325, 700, 2700, 3800, 4950), (0, -14, -28, -34, -44)),
}


def seconds_axis(seconds: float, sample_rate: int) -> Samples:
    """The time of each sample of a note, in seconds; at least one sample."""
    return np.arange(max(1, round(seconds * sample_rate))) / sample_rate


def gate(time: Samples, attack_seconds: float, release_seconds: float) -> Samples:
    """A rounded rise from 0 to 1 and the fall back to 0 at the end of the note."""
    shape = np.ones_like(time)
    rate = 1.0 / time[1] if len(time) > 1 else 1.0
    for seconds, edge in ((attack_seconds, shape), (release_seconds, shape[::-1])):
        ramp = min(len(time), max(1, round(seconds * rate)))
        edge[:ramp] *= np.sin(0.5 * np.pi * np.arange(ramp) / ramp)
    return shape


@lru_cache(maxsize=64)
def band(low_hz: float, high_hz: float, sample_rate: int) -> Samples:
    """Second-order sections of a band-pass kept inside the band that `sample_rate` can carry."""
    top = 0.49 * sample_rate
    return signal.butter(2, (min(low_hz, 0.5 * top), min(high_hz, top)), "bandpass", fs=sample_rate, output="sos")


def noise(rng: Generator, size: int, low_hz: float, high_hz: float, sample_rate: int) -> Samples:
    """White noise between two frequencies."""
    return signal.sosfilt(band(low_hz, high_hz, sample_rate), rng.standard_normal(size))


def partials(pitch_hz: float, sample_rate: int) -> Samples:
    """The numbers 1, 2, 3, ... of the partials of `pitch_hz` that fit below 20 kHz and below Nyquist."""
    top_hz = min(HIGHEST_PARTIAL_HZ, 0.47 * sample_rate)
    return np.arange(1.0, max(2.0, np.floor(top_hz / pitch_hz) + 1.0))


def wavetable(amplitudes: Samples, rng: Generator | None = None) -> Samples:
    """One period of the partials at unit RMS, with its first sample repeated at the end.

    Phases are random with `rng`; without, all are zero and the period is a pulse, as the voice's source is.
    """
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    phases = rng.uniform(0.0, 2.0 * np.pi, len(amplitudes)) if rng is not None else np.zeros(len(amplitudes))
    spectrum[1 : len(amplitudes) + 1] = amplitudes * np.exp(1j * phases)
    period = np.fft.irfft(spectrum)
    period /= np.sqrt(np.mean(period**2))
    return np.append(period, period[0])


def turns(pitch_hz: Samples, sample_rate: int, start: float = 0.0) -> Samples:
    """The phase of an oscillator in turns (periods), modulo one, for a pitch that changes with time."""
    return (start + np.cumsum(pitch_hz) / sample_rate) % 1.0


def read_table(table: Samples, phase: Samples) -> Samples:
    """The wavetable read at a phase in turns, with linear interpolation."""
    position = phase * TABLE_SIZE
    index = position.astype(np.intp)
    return table[index] + (position - index) * (table[index + 1] - table[index])


def kick(rng: Generator, sample_rate: int, pitch_hz: float) -> Samples:
    """A bass drum: a sine that falls to `pitch_hz` within a few periods, and the beater's click."""
    time = seconds_axis(0.45, sample_rate)
    body = np.sin(2.0 * np.pi * turns(pitch_hz * (1.0 + 3.5 * np.exp(-time / 0.028)), sample_rate))
    click = noise(rng, len(time), 1500, 9000, sample_rate) * np.exp(-time / 0.004)
    return np.tanh(1.8 * body * np.exp(-time / 0.16)) * gate(time, 0.001, 0.05) + 0.25 * click


def snare(rng: Generator, sample_rate: int, pitch_hz: float) -> Samples:
    """A snare drum: two modes of the head under the rattle of the wires, which fills the band to 20 kHz."""
    time = seconds_axis(0.4, sample_rate)
    head = np.sin(2.0 * np.pi * pitch_hz * time) + 0.6 * np.sin(2.0 * np.pi * 1.72 * pitch_hz * time)
    wires = noise(rng, len(time), 900, 9000, sample_rate) * np.exp(-time / 0.09)
    air = noise(rng, len(time), 7000, 19500, sample_rate) * np.exp(-time / 0.055)
    return (0.7 * head * np.exp(-time / 0.07) + 0.6 * wires + 0.25 * air) * gate(time, 0.0005, 0.03)


def hi_hat(rng: Generator, sample_rate: int, decay_seconds: float) -> Samples:
    """A hi-hat: closed with a decay of about 0.03 s, open with 0.2 s or more."""
    time = seconds_axis(min(1.2, 5.0 * decay_seconds), sample_rate)
    sizzle = noise(rng, len(time), 5500, 11000, sample_rate) * np.exp(-time / decay_seconds)
    air = noise(rng, len(time), 10000, 20000, sample_rate) * np.exp(-time / (0.6 * decay_seconds))
    stick = noise(rng, len(time), 3000, 12000, sample_rate) * np.exp(-time / 0.006)
    return (sizzle + 0.6 * air + 0.5 * stick) * gate(time, 0.0005, 0.01)


def cymbal(rng: Generator, sample_rate: int, decay_seconds: float) -> Samples:
    """A crash cymbal: a wash whose top dies first, over a cluster of ringing inharmonic modes."""
    time = seconds_axis(min(4.0, 3.5 * decay_seconds), sample_rate)
    wash = np.zeros_like(time)
    for low_hz, high_hz, level, life in (
        (500, 3000, 0.35, 0.5),
        (2500, 7000, 0.8, 1.0),
        (6000, 12000, 0.55, 0.75),
        (11000, 20000, 0.3, 0.45),
    ):
        fall = np.exp(-time / (life * decay_seconds))
        wash += level * fall * noise(rng, len(time), low_hz, high_hz, sample_rate)
    for mode_hz in np.geomspace(380, min(9000, 0.45 * sample_rate), 14) * rng.uniform(0.93, 1.07, 14):
        ring = np.exp(-time / (decay_seconds * rng.uniform(0.5, 1.2)))
        wash += 0.06 * ring * np.sin(2.0 * np.pi * (mode_hz * time + rng.random()))
    return wash * gate(time, 0.002, 0.1)


def bass(rng: Generator, sample_rate: int, pitch_hz: float, seconds: float) -> Samples:
    """A picked electric bass: the bright part dies in a tenth of a second, the fundamental stays."""
    time = seconds_axis(seconds, sample_rate)
    phase = turns(np.full(len(time), pitch_hz), sample_rate)
    number = partials(pitch_hz, sample_rate)
    bright = read_table(wavetable(number**-0.9 * np.exp(-number / 60), rng), phase)
    dark = read_table(wavetable(number**-2.2, rng), phase)
    return (0.35 * bright * np.exp(-time / 0.12) + dark * np.exp(-time / 0.9)) * gate(time, 0.004, 0.03)


def plucked(rng: Generator, sample_rate: int, pitch_hz: float, seconds: float, colour: float) -> Samples:
    """A plucked string: partials combed by the place of the pluck, high ones decaying faster."""
    time = seconds_axis(seconds, sample_rate)
    phase = turns(np.full(len(time), pitch_hz * 2 ** (rng.normal(0, 2) / 1200)), sample_rate)
    number = partials(pitch_hz, sample_rate)
    comb = np.abs(np.sin(np.pi * number * (0.11 + 0.17 * colour))) + 0.02
    note = np.zeros_like(time)
    for level, slope, decay in ((0.45, 0.55, 0.06), (0.6, 1.1, 0.25), (0.8, 1.9, 0.8)):
        note += level * np.exp(-time / decay) * read_table(wavetable(comb * number**-slope, rng), phase)
    return note * gate(time, 0.0015, 0.06)


def bowed(rng: Generator, sample_rate: int, pitch_hz: float, seconds: float, colour: float) -> Samples:
    """Bowed strings: two players with their own vibrato, a body's resonances, and bow noise."""
    time = seconds_axis(seconds, sample_rate)
    number = partials(1.02 * pitch_hz, sample_rate)
    octave = np.log2(number * pitch_hz / 1000.0)
    body = 1.0 + 1.5 * np.exp(-(((octave + 0.9) / 0.35) ** 2))
    body += 2.0 * np.exp(-(((octave - 1.3 - colour) / 0.4) ** 2))
    note = np.zeros_like(time)
    for _ in range(2):
        depth = rng.uniform(0.003, 0.007) * np.minimum(1.0, time / 0.4)
        vibrato = depth * np.sin(2.0 * np.pi * (rng.uniform(4.8, 6.2) * time + rng.random()))
        pitch = pitch_hz * 2 ** (rng.normal(0, 4) / 1200) * (1.0 + vibrato)
        note += read_table(wavetable(body * number ** -(1.4 - 0.2 * colour), rng), turns(pitch, sample_rate))
    rosin = noise(rng, len(time), 2000, 14000, sample_rate)
    return (0.6 * note + 0.02 * rosin) * gate(time, 0.09, 0.14)


def organ(rng: Generator, sample_rate: int, pitch_hz: float, seconds: float, colour: float) -> Samples:
    """A reed-and-pipe organ: octave and fifth ranks over a steady reed, with a key click."""
    time = seconds_axis(seconds, sample_rate)
    number = partials(pitch_hz, sample_rate)
    ranks = np.isin(number, (1, 2, 3, 4, 6, 8, 10, 12, 16)) * number**-1.0
    reed = (0.08 + 0.15 * colour) * number**-0.9
    tremulant = 1.0 + 0.08 * np.sin(2.0 * np.pi * (6.3 * time + rng.random()))
    phase = turns(np.full(len(time), pitch_hz), sample_rate, rng.random())
    click = noise(rng, len(time), 2000, 12000, sample_rate) * np.exp(-time / 0.005)
    pipes = read_table(wavetable(ranks + reed, rng), phase)
    return (pipes * tremulant + 0.15 * click) * gate(time, 0.006, 0.04)


def glottis(
    rng: Generator, sample_rate: int, pitch_hz: float, seconds: float, from_hz: float
) -> tuple[Samples, Samples]:
    """The source of one sung note: (pulse train gliding from `from_hz`, with vibrato; breath noise)."""
    time = seconds_axis(seconds, sample_rate)
    vibrato = 0.021 * np.clip((time - 0.18) / 0.3, 0.0, 1.0) * np.sin(2.0 * np.pi * 5.6 * time)
    knots = np.arange(0.0, seconds + 0.08, 0.04)
    jitter = 0.002 * np.interp(time, knots, rng.standard_normal(len(knots)))
    pitch = pitch_hz * (from_hz / pitch_hz) ** np.exp(-time / 0.035) * (1.0 + vibrato + jitter)
    phase = turns(pitch, sample_rate)
    number = partials(1.02 * max(pitch_hz, from_hz), sample_rate)
    shape = gate(time, 0.035, 0.07)
    breath = rng.standard_normal(len(time)) * (0.4 + np.cos(np.pi * phase) ** 2)
    return read_table(wavetable(number**-0.75), phase) * shape, breath * shape


def sing(source: Samples, vowels: list[tuple[float, str]], sample_rate: int) -> Samples:
    """The source of a whole lead line through formants that move from vowel to vowel.

    `vowels` lists (seconds, vowel) in order of time; between two of them every formant glides.
    """
    size = 1024
    padded = np.pad(source, (0, size))
    frequencies, times, spectrum = signal.stft(padded, sample_rate, nperseg=size, noverlap=3 * size // 4)
    at = [second for second, _ in vowels]
    throat = np.full(spectrum.shape, 0.008)
    for formant in range(5):
        centre = np.interp(times, at, [VOWELS[vowel][0][formant] for _, vowel in vowels])
        level = 10 ** (np.interp(times, at, [VOWELS[vowel][1][formant] for _, vowel in vowels]) / 20)
        width = 70.0 + 0.04 * centre
        throat += level / (1.0 + ((frequencies[:, None] - centre) / width) ** 2)
    _, voice = signal.istft(spectrum * throat, sample_rate, nperseg=size, noverlap=3 * size // 4)
    return voice[: len(source)]
