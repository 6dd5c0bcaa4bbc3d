"""Broken audio files by kind, each decided by a seed and an index alone.

A case is a list of pieces: bytes, or a number of zero bytes that the file system need not store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hostile_containers
import hostile_mpeg
import numpy as np
from hostile_draws import Made, Pieces, any_file, junk
from hostile_material import mpeg_frames, ogg_pages
from numpy.random import Generator

SUFFIXES = (".mp3", ".MP3", ".wav", ".flac", ".ogg", ".opus", ".aiff", ".raw", ".vox", ".au", ".gsm", ".txt", "")


@dataclass(frozen=True)
class Case:
    """One hostile file: what it is, what it is called, what it holds."""

    kind: str
    note: str
    suffix: str
    pieces: Pieces

    def write(self, folder: Path, name: str) -> Path:
        path = folder / (name + self.suffix)
        with path.open("wb") as file:
            for piece in self.pieces:
                if isinstance(piece, int):
                    file.seek(piece, 1)
                else:
                    file.write(piece)
            file.truncate(file.tell())
        return path


def make_case(seed: int, index: int) -> Case:
    """The case of this number; the kinds take turns, and everything else is drawn."""
    kinds = list(KINDS)
    kind = kinds[index % len(kinds)]
    rng = np.random.default_rng([seed, index])
    note, suffix, pieces = KINDS[kind](rng)
    return Case(kind, note, suffix, pieces if isinstance(pieces, list) else [pieces])


def intact(rng: Generator) -> Made:
    name, suffix, data = any_file(rng)
    return name, suffix, bytes(data)


def bit_flips(rng: Generator) -> Made:
    name, suffix, data = any_file(rng)
    count = int(2 ** rng.uniform(0, 9))
    for at in rng.integers(len(data) * 8, size=count):
        data[at // 8] ^= 1 << (at % 8)
    return f"{count} bits of {name}", suffix, bytes(data)


def header_flips(rng: Generator) -> Made:
    name, suffix, data = any_file(rng)
    for at in rng.integers(min(len(data), 120), size=int(rng.integers(1, 12))):
        data[at] = rng.integers(256)
    return name, suffix, bytes(data)


def truncated(rng: Generator) -> Made:
    name, suffix, data = any_file(rng)
    places: list[int] = [int(rng.integers(64)), int(rng.integers(len(data))), len(data) - int(rng.integers(1, 200))]
    if data[:4] == b"OggS":
        places += np.cumsum([len(page) for page in ogg_pages(bytes(data))]).tolist()
    elif suffix == ".mp3":
        places += mpeg_frames(bytes(data)) or [10, int.from_bytes(data[6:10], "big"), len(data) - 128]
    elif data[:4] == b"fLaC":
        places += [4, 8, 42]
    at = max(0, places[rng.integers(len(places))] + int(rng.integers(-2, 3)))
    return f"{name} at {at}", suffix, bytes(data[:at])


def spliced(rng: Generator) -> Made:
    name, suffix, first = any_file(rng)
    other, _, second = any_file(rng)
    a, b = int(rng.integers(len(first))), int(rng.integers(len(second)))
    whole = rng.integers(3) == 0
    return f"{name} + {other}", suffix, bytes(first if whole else first[:a]) + bytes(second if whole else second[b:])


def foreign_bytes(rng: Generator) -> Made:
    name, suffix, data = any_file(rng)
    at = int(rng.integers(len(data)))
    foreign = junk(rng, 5000)
    drop = (0, len(foreign), int(rng.integers(3000)))[rng.integers(3)]
    return f"{name}, {len(foreign)} for {drop} at {at}", suffix, bytes(data[:at]) + foreign + bytes(data[at + drop :])


def wrong_extension(rng: Generator) -> Made:
    name, _, data = any_file(rng)
    if rng.integers(4) == 0:
        name, data = "text", bytearray(b"This is no audio, only text.\n" * int(rng.integers(1, 400)))
    return name, SUFFIXES[rng.integers(len(SUFFIXES))], bytes(data)


def tiny(rng: Generator) -> Made:
    _, suffix, _ = any_file(rng)
    magics = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"\xff\xfb", b"TAG", b"caff", b".snd", b"\0", b"")
    magic = magics[rng.integers(len(magics))]
    return magic.decode("latin1"), suffix, magic + rng.bytes(int(rng.integers(0, 70)))


def noise(rng: Generator) -> Made:
    _, suffix, data = any_file(rng)
    length = int(2 ** rng.uniform(4, 16))
    head = bytes(data[: int(rng.integers(4, 64))])
    return f"{length} bytes of noise", suffix, head + rng.bytes(length)


_OF_ANY_FORMAT = (
    intact,
    bit_flips,
    header_flips,
    truncated,
    spliced,
    foreign_bytes,
    wrong_extension,
    tiny,
    noise,
)
_OF_ONE_FORMAT = (
    hostile_containers.lying_wav,
    hostile_containers.wav_chunks,
    hostile_containers.huge_wav,
    hostile_containers.not_finite,
    hostile_containers.lying_aiff,
    hostile_containers.lying_flac,
    hostile_containers.flac_metadata,
    hostile_containers.flac_bomb,
    hostile_containers.lying_ogg,
    hostile_containers.ogg_page_order,
    hostile_containers.ogg_comments,
    hostile_containers.comment_bombs,
    hostile_mpeg.lying_xing,
    hostile_mpeg.mpeg_headers,
    hostile_mpeg.mpeg_side_info,
    hostile_mpeg.free_formats,
    hostile_mpeg.odd_mpeg_streams,
    hostile_mpeg.sync_runs,
    hostile_mpeg.many_gaps,
    hostile_mpeg.id3_sizes,
    hostile_mpeg.id3_frames,
    hostile_mpeg.bombs,
    hostile_mpeg.end_tags,
    hostile_mpeg.only_tags,
    hostile_mpeg.mpeg_frame_bodies,
)
KINDS: dict[str, Callable[[Generator], Made]] = {make.__name__: make for make in (*_OF_ANY_FORMAT, *_OF_ONE_FORMAT)}
