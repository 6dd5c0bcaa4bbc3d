"""A folder of pairs: each song's original as 44.1 kHz FLAC beside its MP3s, readable from any sample.

Layout::

    PAIRS/<song id>/original.flac      16 bit, 44.1 kHz, one or two channels
    PAIRS/<song id>/32m.mp3, 64j.mp3   m = mono, j = joint stereo, number = kbit/s
    PAIRS/<song id>/song.json          written last: a folder without it is unfinished
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from restorer.errors import RestorerError
from restorer.model_checks import shown
from restorer.training.mp3 import SAMPLE_RATE, Coding, Mp3
from restorer.whole_file import whole_file

SILENT = 1e-3  # peak below which an excerpt teaches nothing


@dataclass(frozen=True)
class Song:
    """One song of a pairs folder."""

    id: str
    split: str
    source: str
    channels: int
    samples: int
    bandwidth_hz: float
    codings: tuple[str, ...]
    artist: str = ""
    title: str = ""
    licence: str = ""
    coded_rate_hz: int | None = None  # of the MP3s, where LAME was told; None: its own choice for each bitrate

    def write(self, folder: Path) -> None:
        with whole_file(folder / "song.json") as partial:
            partial.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Song":
        """Read what `write` wrote.

        Raises
        ------
        RestorerError
            It is no such file.
        """
        path = folder / "song.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            fields["codings"] = tuple(Coding.parse(name).name for name in fields["codings"])
            song = cls(**fields)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise RestorerError(
                f"'{path}' is damaged ({shown(error)}); delete its folder and run restorer prepare"
            ) from None
        numbers = (song.channels, song.samples, song.bandwidth_hz)
        texts = (song.id, song.split, song.source, song.artist, song.title, song.licence)
        if not all(isinstance(n, int | float) and 0 <= n < 1e12 for n in numbers) or not all(
            isinstance(text, str) for text in texts
        ):
            raise RestorerError(f"'{path}' is damaged; delete its folder and run restorer prepare")
        return song


class Pairs:
    """Random access to aligned (original, MP3) excerpts of a folder made by `restorer prepare`.

    `quick` is for training: see `Mp3.decode`.
    """

    def __init__(self, folder: str | Path, split: str, quick: bool = False):
        self.quick = quick
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise RestorerError(f"no pairs folder at '{folder}'; make one with: restorer prepare MUSIC_DIR {folder}")
        found = sorted(self.folder.glob("*/song.json"))
        self.songs = [song for song in map(Song.read, (path.parent for path in found)) if song.split == split]
        if not self.songs:
            raise RestorerError(
                f"'{folder}' holds no finished songs of split '{split}' (of {len(found)} songs); run restorer prepare"
            )
        self._mp3 = lru_cache(maxsize=4096)(self._load_mp3)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mp3"}  # a process opens its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._mp3 = lru_cache(maxsize=4096)(self._load_mp3)

    def _load_mp3(self, song_id: str, coding: str) -> Mp3:
        path = self.folder / song_id / f"{coding}.mp3"
        try:
            mp3 = Mp3.index(path.read_bytes())
            if len(mp3.offsets) < 2:
                raise ValueError("it holds no frames")
            return mp3
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def original(self, song: Song, start: int, samples: int) -> np.ndarray:
        """Read (channels, samples) float32 of the original, zeros after its end.

        Raises
        ------
        RestorerError
            The file is gone or damaged.
        """
        path = self.folder / song.id / "original.flac"
        try:
            with soundfile.SoundFile(path) as file:
                file.seek(min(start, file.frames))
                audio = file.read(samples, dtype="float32", always_2d=True, fill_value=0.0)
        except (OSError, soundfile.LibsndfileError) as error:
            raise _unreadable(path, error) from error
        return np.ascontiguousarray(audio.T)

    def coded(self, song: Song, coding: str, start: int, samples: int) -> np.ndarray:
        """Decode (1 or 2 channels, samples) float32 of the MP3, aligned with `original`; errors are its errors."""
        mp3 = self._mp3(song.id, coding)
        try:
            return mp3.decode(start, samples, self.quick)
        except soundfile.LibsndfileError as error:
            raise _unreadable(self.folder / song.id / f"{coding}.mp3", error) from error

    def excerpt(
        self, song: Song, coding: str, start: int, samples: int, channel: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read one aligned pair as two (samples,) arrays, original first.

        A mono coding pairs with the mean of the original's channels; of a joint-stereo coding `channel` is
        taken (None: the mean of both).
        """
        original = self.original(song, start, samples)
        coded = self.coded(song, coding, start, samples)
        if channel is None or not Coding.parse(coding).stereo:
            return original.mean(axis=0), coded.mean(axis=0)
        return original[channel % original.shape[0]], coded[channel % coded.shape[0]]

    def draw(
        self, index: int, samples: int, seed: int = 0, codings: tuple[str, ...] = ()
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Draw the `index`-th training excerpt: the same index and seed give the same excerpt on any machine.

        Songs are drawn by their length, codings evenly, or as often as `codings` names them. The excerpt's peak is
        set between -15 and 0 dBFS and its polarity at random, alike for both.

        Returns
        -------
        original, coded : (samples,) float32
        bandwidth_hz : where the original itself ends
        """
        rng = np.random.default_rng([seed, index])
        lengths = np.array([song.samples for song in self.songs], float)
        for _ in range(8):
            song = self.songs[rng.choice(len(self.songs), p=lengths / lengths.sum())]
            names = [name for name in codings if name in song.codings] or list(song.codings)
            coding = names[rng.integers(len(names))]
            start = int(rng.integers(max(1, song.samples - samples)))
            channel = int(rng.integers(2))
            original, coded = self.excerpt(song, coding, start, samples, channel)
            if np.abs(original).max() > SILENT:
                break
        return *at_random_level(original, coded, rng), song.bandwidth_hz


def at_random_level(original: np.ndarray, coded: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Set the original's peak between -15 and 0 dBFS and the polarity at random, alike for both."""
    peak = max(np.abs(original).max(), SILENT)
    gain = np.float32(10 ** (rng.uniform(-15, 0) / 20) / peak * rng.choice([-1, 1]))
    return original * gain, coded * gain


def _unreadable(path: Path, error: Exception) -> RestorerError:
    return RestorerError(
        f"'{path}' cannot be read ({shown(str(error))}); delete its folder and run restorer prepare again"
    )


def measure_bandwidth(audio: np.ndarray, floor_db: float = -80.0) -> float:
    """Measure where music ends: the highest frequency in Hz whose long-term level is above the floor.

    The spectrum is the mean power of Hann frames of 4096 samples, read relative to its own maximum, and
    smoothed over 100 Hz: good to 200 Hz. (channels, samples) at 44.1 kHz.
    """
    mono = audio.mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(mono, (0, 4096)), 4096)[::16384]
    power = (np.abs(np.fft.rfft(frames * np.hanning(4096))) ** 2).mean(axis=0)
    power = np.convolve(power, np.ones(9) / 9, mode="same")
    level_db = 10 * np.log10(power / max(power.max(), 1e-12) + 1e-12)
    above = np.nonzero(level_db > floor_db)[0]
    return float(above[-1] * SAMPLE_RATE / 4096) if len(above) else 0.0
