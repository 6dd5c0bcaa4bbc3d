"""New songs from few: stretches of training songs, changed as producers change them, with voices and one-shots on top.

A mix is described by a `Recipe` that a seed draws; everything in it is what a real production could have done, so
that a model learns more kinds of music and not more kinds of damage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

from restorer.audio_in import read_audio
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.prepare_command import song_id
from restorer.transform import Float32
from restorer.whole_file import whole_file

SPEED_RANGE = 0.12  # two semitones either way
EQ_DB = 5.0  # at most, at the knots of a smooth curve
LEVELS_DB = {"voice": (-6.0, 6.0), "oneshot": (-18.0, 0.0)}  # of a part against the song below it
BASELESS = 0.1  # share of mixes that are voices and one-shots alone
SHORTEST_SECONDS = 1.0
NARROW_HZ = (9000.0, 16000.0)  # where music ends that was made narrow: further down 16 to 32 kbit/s look the same
PASSED = 0.4565  # of a sample rate passes the resampler's filter


@dataclass(frozen=True)
class Source:
    """A song to mix from."""

    path: Path
    bandwidth_hz: float


def shift_speed(audio: Float32, ratio: float) -> Float32:
    """Play (channels, samples) faster by `ratio`: pitch and tempo change together, the bandwidth too."""
    return soxr.resample(audio.T, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="VHQ").T.astype(np.float32)


def narrow(audio: Float32, bandwidth_hz: float) -> Float32:
    """What is left of (channels, samples) at the least sample rate that holds the bandwidth, as old recordings end."""
    ratio = SAMPLE_RATE * PASSED / bandwidth_hz
    back = shift_speed(shift_speed(audio, ratio), 1 / ratio)[:, : audio.shape[1]]
    return np.pad(back, ((0, 0), (0, audio.shape[1] - back.shape[1])))


def equalise(audio: Float32, knots_db: Sequence[float]) -> Float32:
    """Filter with a smooth gain in dB: knots at equal distances from 50 Hz to 18 kHz on a logarithmic scale."""
    size = 2048
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    place = np.log(np.clip(frequency, 50, 18000) / 50) / np.log(18000 / 50) * (len(knots_db) - 1)
    gain = 10 ** (np.interp(place, np.arange(len(knots_db)), knots_db) / 20)
    response = np.roll(np.fft.irfft(gain), size // 2) * np.hanning(size)
    return scipy.signal.fftconvolve(audio, response[None], mode="same", axes=1).astype(np.float32)


def reverberate(audio: Float32, seconds: float, wet: float, rng: np.random.Generator) -> Float32:
    """Add a synthetic room to one channel: (1, samples) -> (2, samples), decaying by 60 dB in `seconds`."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    room = rng.standard_normal((2, len(time))) * 10 ** (-3 * time / seconds)
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    tail = scipy.signal.fftconvolve(np.repeat(audio, 2, axis=0), room, axes=1)[:, : audio.shape[1]]
    return (audio + wet * tail).astype(np.float32)


def widen(audio: Float32, side: float) -> Float32:
    """Scale the difference of two channels; 0 makes them equal, a negative factor swaps them."""
    middle, difference = audio.mean(axis=0), (audio[0] - audio[1]) / 2 * side
    return np.stack([middle + difference, middle - difference]).astype(np.float32)


class Sounds:
    """Recordings at 44.1 kHz; with a folder they are decoded once, for all processes that use it, to 16 bits."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, path: Path) -> NDArray[np.generic]:
        """(channels, samples), float32, or int16 in a file mapped into memory; `as_float` makes either the former."""
        if self.folder is None:
            return read_audio(path, SAMPLE_RATE)[0]
        decoded = self.folder / f"{song_id(str(path.resolve()))}.npy"
        if not decoded.exists():
            audio, _ = read_audio(path, SAMPLE_RATE)
            audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
            with whole_file(decoded) as partial, partial.open("wb") as file:
                np.save(file, np.rint(audio * 32767).astype(np.int16))
        return np.load(decoded, mmap_mode="r")


def as_float(audio: NDArray[np.generic]) -> Float32:
    """Samples in [-1, 1] from float32 or int16."""
    return audio / np.float32(32767) if audio.dtype == np.int16 else audio.astype(np.float32, copy=False)


class Mixer:
    """Draws and makes mixes: the same files, seed and index give the same audio.

    Parameters
    ----------
    songs : training songs, drawn evenly.
    voices, oneshots : short recordings; either list may be empty.
    seconds : length of each mix.
    sounds : where recordings are read.
    """

    def __init__(
        self,
        songs: list[Source],
        voices: list[Path],
        oneshots: list[Path],
        seconds: float,
        seed: int = 0,
        sounds: Sounds | None = None,
    ):
        self.songs, self.voices, self.oneshots = songs, voices, oneshots
        self.sounds = sounds or Sounds()
        self.samples, self.seed = int(seconds * SAMPLE_RATE), seed

    def mix(self, index: int) -> tuple[Float32, float, list[Path]]:
        """Make the `index`-th mix.

        Returns
        -------
        (2, samples) with its peak between -3 and 0 dBFS, the bandwidth in Hz up to which it has a spectrum of its
        own (that of the song in it), and the files in it.
        """
        rng = np.random.default_rng([self.seed, index])
        audio = np.zeros((2, self.samples), np.float32)
        bandwidth, used = SAMPLE_RATE / 2, []
        alone = rng.random() < BASELESS and bool(self.voices or self.oneshots)
        if not alone:
            song = self.songs[rng.integers(len(self.songs))]
            audio, bandwidth = self._base(song, rng)
            used.append(song.path)
        level = max(float(np.sqrt((audio**2).mean())), 0.02)
        if self.voices and (rng.random() < 0.7 or alone):
            used += self._sing(audio, level, rng)
        if self.oneshots and (rng.random() < 0.7 or alone):
            used += self._play(audio, level, rng)
        if rng.random() < 0.3:  # as loud as a modern master
            drive = 10 ** (rng.uniform(0, 9) / 20) / max(float(np.abs(audio).max()), 1e-6)
            audio = np.tanh(audio * drive).astype(np.float32)
        peak = max(float(np.abs(audio).max()), 1e-6)
        return audio * np.float32(10 ** (rng.uniform(-3, 0) / 20) / peak), bandwidth, used

    def _base(self, song: Source, rng: np.random.Generator) -> tuple[Float32, float]:
        ratio = 1 + rng.uniform(-SPEED_RANGE, SPEED_RANGE)
        audio = self._stretch(song, int(self.samples * ratio) + SAMPLE_RATE, rng)
        audio = self._fit(shift_speed(audio, ratio))
        audio = equalise(audio, rng.uniform(-EQ_DB, EQ_DB, 5))
        return widen(audio, rng.choice([-1, 1]) * rng.uniform(0.3, 1.5)), min(song.bandwidth_hz * ratio, 22050.0)

    def stretch(self, song: Source, rng: np.random.Generator) -> tuple[Float32, float]:
        """A stretch of a song as it is, as long as a mix, and its bandwidth in Hz."""
        return self._fit(self._stretch(song, self.samples, rng)), song.bandwidth_hz

    def _stretch(self, song: Source, wanted: int, rng: np.random.Generator) -> Float32:
        """Two channels, so many samples or all there are."""
        audio = self.sounds.read(song.path)
        start = int(rng.integers(max(1, audio.shape[1] - wanted)))
        piece = as_float(audio[:, start : start + wanted])
        return piece if len(piece) == 2 else np.repeat(piece.mean(axis=0, keepdims=True), 2, axis=0)

    def _fit(self, audio: Float32) -> Float32:
        audio = audio[:, : self.samples]
        return np.pad(audio, ((0, 0), (0, self.samples - audio.shape[1])))

    def _sing(self, audio: Float32, level: float, rng: np.random.Generator) -> list[Path]:
        """Add voices one after another, in rooms that ring equally long."""
        used, position = [], int(rng.uniform(0, 2) * SAMPLE_RATE)
        room, wet = rng.uniform(0.2, 1.5), rng.uniform(0, 0.5)
        while position < self.samples:
            path = self.voices[rng.integers(len(self.voices))]
            voice = self._part(path, level, "voice", rng)
            tail = np.zeros((1, int(room * SAMPLE_RATE)), np.float32)
            self._add(audio, reverberate(np.concatenate([voice, tail], axis=1), room, wet, rng), position, rng)
            position += voice.shape[1] + int(rng.uniform(0.1, 2.5) * SAMPLE_RATE)
            used.append(path)
        return used

    def _play(self, audio: Float32, level: float, rng: np.random.Generator) -> list[Path]:
        """Add up to four one-shots, each on a beat of its own, some of its strokes left out."""
        beat = rng.uniform(0.3, 0.7)
        used = []
        for _ in range(rng.integers(1, 5)):
            path = self.oneshots[rng.integers(len(self.oneshots))]
            sound = self._part(path, level, "oneshot", rng)
            sound = np.repeat(sound, 2, axis=0)
            period = beat * rng.choice([0.5, 1, 1, 2, 4])
            for place in np.arange(rng.uniform(0, period), self.samples / SAMPLE_RATE, period):
                if rng.random() < 0.8:
                    self._add(audio, sound * rng.uniform(0.5, 1), int(place * SAMPLE_RATE), rng)
            used.append(path)
        return used

    def _part(self, path: Path, level: float, kind: str, rng: np.random.Generator) -> Float32:
        sound = as_float(self.sounds.read(path))
        sound = shift_speed(sound.mean(axis=0, keepdims=True), 1 + rng.uniform(-SPEED_RANGE, SPEED_RANGE))
        own = max(float(np.sqrt((sound**2).mean())), 1e-4)
        return sound * np.float32(level / own * 10 ** (rng.uniform(*LEVELS_DB[kind]) / 20))

    def _add(self, audio: Float32, sound: Float32, position: int, rng: np.random.Generator) -> None:
        """Add (2, samples) at a place and somewhere between left and right, as far as the mix lasts."""
        left = np.float32(rng.uniform(0.3, 0.7))
        piece = sound[:, : max(0, audio.shape[1] - position)]
        audio[0, position : position + piece.shape[1]] += 2 * left * piece[0]
        audio[1, position : position + piece.shape[1]] += 2 * (1 - left) * piece[1]
