"""What all hostile mutations draw from: an intact file, sizes and numbers that headers lie with, junk."""

from hostile_material import material
from numpy.random import Generator

Pieces = list[bytes | int]
Made = tuple[str, str, bytes | Pieces]
SIZES_32 = (0, 1, 2, 3, 7, 16, 255, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 9, (1 << 32) - 2, (1 << 32) - 1)
RATES_HZ = (0, 1, 7, 100, 7999, 8000, 44100, 192000, 192001, 10_000_000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
CHANNELS = (0, 1, 2, 3, 8, 9, 16, 255, 256, 1024, 65535)


def any_file(rng: Generator, *words: str) -> tuple[str, str, bytearray]:
    """An intact file whose name starts with one of `words`: name, extension, bytes."""
    names = [name for name in material() if not words or name.startswith(words)]
    name = names[rng.integers(len(names))]
    suffix, data = material()[name]
    return name, suffix, bytearray(data)


def pick(rng: Generator, values: tuple) -> int:
    """One of some numbers."""
    return int(values[rng.integers(len(values))])


def junk(rng: Generator, longest: int) -> bytes:
    """Zeros, ones, noise, or what looks like the starts of MPEG frames."""
    count = int(rng.integers(1, longest))
    return (bytes(count), b"\xff" * count, rng.bytes(count), b"\xff\xfb\x90\x64" * (count // 4 + 1))[rng.integers(4)]
