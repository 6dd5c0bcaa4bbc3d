"""What an evaluation listens to: aligned excerpts of originals and their MP3s, from music or from pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from restorer.audio_in import AudioReader, read_audio
from restorer.errors import ConfigError, RestorerError
from restorer.training.mp3 import SAMPLE_RATE, Coding, Mp3, encode_mp3, rounded_codings
from restorer.training.pairs import Pairs
from restorer.training.prepare_command import plan
from restorer.transform import Float32

BEFORE_SAMPLES = SAMPLE_RATE  # what the model hears ahead of the excerpt, where the song has it
AFTER_SAMPLES = SAMPLE_RATE // 2  # and behind it: in a song there is always a next moment
LEAD_IN_SAMPLES = SAMPLE_RATE  # what LAME codes ahead of that, so that it does not start cold
SHORTEST_SECONDS = 1.5  # PEAQ and ViSQOL need about this much


@dataclass(frozen=True)
class Piece:
    """One song of an evaluation: music (`path` is its file) or pairs (`path` is its folder)."""

    id: str
    path: Path
    channels: int
    samples: int
    codings: tuple[str, ...]
    in_pairs: bool
    split: str
    coded_rate_hz: int | None = None  # None: LAME's own for each bitrate

    def bounds(self, excerpt: int, excerpts: int, seconds: float) -> tuple[int, int]:
        """First sample and length of excerpt `excerpt` of `excerpts`, each in the middle of its share of the song."""
        samples = min(self.samples, round(seconds * SAMPLE_RATE))
        return (self.samples * (2 * excerpt + 1) // excerpts - samples) // 2, samples

    def excerpts(self, most: int, seconds: float) -> int:
        """How many excerpts that do not overlap the song has, up to `most`; a short song is one excerpt."""
        if self.samples < SHORTEST_SECONDS * SAMPLE_RATE:
            return 0
        return max(1, min(most, self.samples // round(seconds * SAMPLE_RATE)))


@dataclass(frozen=True)
class Excerpt:
    """One excerpt of an original beside what the MP3 made of it.

    Shape: both (channels, samples), equal; `heard` is (channels, before + samples + after), the MP3 with what
    surrounds the excerpt, for the model.
    """

    original: Float32
    heard: Float32
    before: int

    @property
    def coded(self) -> Float32:
        return self.inside(self.heard)

    def inside(self, audio: Float32) -> Float32:
        """The excerpt alone of something that runs along `heard`."""
        return audio[..., self.before : self.before + self.original.shape[-1]]


def find_music(
    music: Path, manifest: Path | None, split: str, codings: Sequence[str], coded_rate_hz: int | None = None
) -> list[Piece]:
    """List a split of a folder of music; a mono song has no joint-stereo codings.

    Without a manifest the songs are split as `restorer prepare` splits them in a new folder of pairs.

    Raises
    ------
    RestorerError
        No music, none of this split, or a song that cannot be read.
    """
    default = music / "MANIFEST.csv"
    songs = plan(music, None, manifest or (default if default.exists() else None), tuple(codings))
    chosen = [song for song in songs if split in (song.split, "all")]
    if not chosen:
        raise RestorerError(
            f"none of the {len(songs)} songs below '{music}' is of split '{split}'; "
            "choose another with --split, or all of them with --split all"
        )
    pieces = []
    for song in chosen:
        with AudioReader(song.source, SAMPLE_RATE) as reader:
            channels, samples = min(reader.channels, 2), reader.samples
        kept = tuple(name for name in codings if channels == 2 or not Coding.parse(name).stereo)
        pieces.append(Piece(song.folder.name, song.source, channels, samples, kept, False, song.split, coded_rate_hz))
    return pieces


def find_pairs(pairs: Path, split: str, codings: Sequence[str], skip_absent: bool = False) -> list[Piece]:
    """List a split of a pairs folder with those of the codings that each song has.

    Raises
    ------
    RestorerError
        No such folder or split, or no song has one of the codings (unless `skip_absent`).
    """
    if split == "all":
        raise ConfigError("--split must be train, valid or test and not 'all' with --pairs")
    songs = Pairs(pairs, split).songs
    present = {name for song in songs for name in song.codings}
    for name in codings:
        if name not in present and not skip_absent:
            raise ConfigError(
                f"no song of split '{split}' in '{pairs}' is coded as {name}; "
                f"there are {' '.join(sorted(present, key=coding_order))} (m mono, j joint stereo)"
            )
    return [
        Piece(song.id, pairs / song.id, song.channels, song.samples,
              tuple(name for name in codings if name in song.codings), True, song.split, song.coded_rate_hz)
        for song in songs
    ]  # fmt: skip


def common_coded_rate(pieces: Sequence[Piece]) -> int | None:
    """The sample rate in Hz that all MP3s were, or will be, coded at; None: LAME's own for each bitrate.

    Raises
    ------
    ConfigError
        Songs differ, as they may in a folder that was put together by hand.
    """
    rates = {piece.coded_rate_hz for piece in pieces}
    if len(rates) > 1:
        names = ", ".join(sorted("LAME's own" if rate is None else f"{rate} Hz" for rate in rates))
        raise ConfigError(f"all songs must be coded at the same sample rates and not at {names}; evaluate them apart")
    return rates.pop()


def rounded_kbps(pieces: Sequence[Piece]) -> dict[str, int]:
    """The bitrates in kbit/s of codings that are not what they are called, see `rounded_codings`."""
    names = sorted({name for piece in pieces for name in piece.codings}, key=coding_order)
    if not pieces[0].in_pairs:
        return rounded_codings(names, pieces[0].coded_rate_hz)
    written = {}
    for name in names:
        piece = next(piece for piece in pieces if name in piece.codings)
        kbps = Mp3.index((piece.path / f"{name}.mp3").read_bytes()).kbps
        if kbps != Coding.parse(name).kbps:
            written[name] = kbps
    return written


def coding_order(name: str) -> tuple[bool, int, str]:
    """Sort key of coding names: mono before joint stereo, then by bitrate."""
    coding = Coding.parse(name.removesuffix("-mix"))
    return coding.stereo, coding.kbps, name


def read_excerpt(piece: Piece, coding: str, start: int, samples: int, normalise: bool) -> Excerpt:
    """Read one excerpt; music is coded now, from a second before what the model hears.

    A mono coding is compared with the mean of the original's channels.
    """
    first = max(0, start - BEFORE_SAMPLES)
    last = min(piece.samples, start + samples + AFTER_SAMPLES)
    if piece.in_pairs:
        pairs = _open_pairs(piece.path.parent, piece.split)
        song = next(song for song in pairs.songs if song.id == piece.id)
        original = pairs.original(song, start, samples)
        heard = pairs.coded(song, coding, first, last - first)
    else:
        song_audio = _load_song(piece.path, normalise)
        original = song_audio[:, start : start + samples]
        begin = max(0, first - LEAD_IN_SAMPLES)
        audio = song_audio[:, begin:last]
        mp3 = Mp3.index(encode_mp3(audio, Coding.parse(coding), coded_rate_hz=piece.coded_rate_hz))
        heard = mp3.decode(first - begin, last - first)
    if not Coding.parse(coding).stereo:
        original = original.mean(axis=0, keepdims=True)
    return Excerpt(original, heard, start - first)


@lru_cache(maxsize=2)
def _open_pairs(folder: Path, split: str) -> Pairs:
    return Pairs(folder, split)


@lru_cache(maxsize=1)
def _load_song(path: Path, normalise: bool) -> Float32:
    """A whole song with its peak at full scale if asked for, or if it would clip."""
    audio, _ = read_audio(path, SAMPLE_RATE)
    if audio.shape[0] > 2:
        audio = audio.mean(axis=0, keepdims=True)
    peak = float(np.abs(audio).max(initial=0.0))
    gain = 1 / peak if peak > 1 or (normalise and peak > 0) else 1.0
    return np.asarray(audio * gain, np.float32)
