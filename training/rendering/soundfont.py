"""Which instruments a soundfont really has, read from its list of presets."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from numpy.random import Generator

from restorer.errors import RestorerError
from restorer.training.rendering.draws import chance, choose

MELODIC_BANK, DRUM_BANK = 0, 128
PRESET = struct.Struct("<20sHHHIII")  # name, program, bank, first zone, library, genre, morphology
MOST_PRESETS = 1 << 16
FAMILY = 8  # General MIDI's programs come in families of eight: pianos first
KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40, 48)  # of General MIDI's drums, the standard kit more often than others


@dataclass(frozen=True)
class SoundFont:
    """A soundfont with General MIDI's programs and drum kits that are in it, each 0 to 127."""

    path: Path
    programs: frozenset[int]
    kits: frozenset[int]

    @classmethod
    def read(cls, path: Path) -> "SoundFont":
        """Look into a file of format SF2 or SF3; its samples are not read.

        Raises
        ------
        RestorerError
            The file cannot be read, is no soundfont, is damaged, or has no melodic instrument.
        """
        try:
            with path.open("rb") as file:
                presets = set(_presets(file, path.stat().st_size))
        except OSError as error:
            raise RestorerError(f"soundfont '{path}' cannot be read: {error.strerror or error}") from error
        except _Damaged as error:
            raise RestorerError(f"'{path}' is no soundfont (.sf2, .sf3) that can be used: {error}") from error
        programs = frozenset(program for bank, program in presets if bank == MELODIC_BANK)
        if not programs:
            raise RestorerError(f"soundfont '{path}' has no melodic instruments in bank {MELODIC_BANK}")
        return cls(path, programs, frozenset(program for bank, program in presets if bank == DRUM_BANK))

    def nearest(self, program: int, rng: Generator) -> int:
        """The program if it is there, or else one of its family, a piano, or whatever there is."""
        if program in self.programs:
            return program
        for first in (program // FAMILY * FAMILY, 0):
            if family := sorted(self.programs & set(range(first, first + FAMILY))):
                return choose(rng, family)
        return choose(rng, sorted(self.programs))

    def draw_kit(self, rng: Generator) -> int | None:
        """One of its drum kits; None where it has none."""
        if not self.kits:
            return None
        standard = 0 if 0 in self.kits else min(self.kits)
        known = [kit for kit in KITS if kit in self.kits]
        return choose(rng, known) if known and chance(rng, 0.8) else standard


class _Damaged(Exception):
    """What is wrong with the bytes of a soundfont."""


def _presets(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Bank and program of each preset."""
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise _Damaged("it does not begin with RIFF....sfbk")
    end = 8 + int.from_bytes(head[4:8], "little")
    if end > size:
        raise _Damaged(f"it ends after {size} of {end} bytes")
    for name, start, length in _chunks(file, 12, end):
        if name == b"LIST" and length >= 4 and _at(file, start, 4) == b"pdta":
            for inner, inner_start, inner_length in _chunks(file, start + 4, start + length):
                if inner == b"phdr":
                    yield from _records(file, inner_start, inner_length)
                    return
    raise _Damaged("it has no list of presets")


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of the chunks between two places; none reaches past the end."""
    while start + 8 <= end:
        head = _at(file, start, 8)
        length = int.from_bytes(head[4:], "little")
        if start + 8 + length > end:
            raise _Damaged("a part is longer than what it is in")
        yield head[:4], start + 8, length
        start += 8 + length + length % 2


def _records(file: BinaryIO, start: int, length: int) -> Iterator[tuple[int, int]]:
    if length % PRESET.size or not PRESET.size * 2 <= length <= PRESET.size * MOST_PRESETS:
        raise _Damaged(f"its list of presets has {length} bytes")
    records = list(PRESET.iter_unpack(_at(file, start, length)))
    for _, program, bank, *_ in records[:-1]:  # the last one marks the end
        if program < 128:
            yield bank, program


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) < length:
        raise _Damaged("it ends too early")
    return data
