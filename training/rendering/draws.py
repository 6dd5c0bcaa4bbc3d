"""What chance decides: draws from a local generator that give Python's own numbers, so that float32 stays float32."""

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import Generator

Option = TypeVar("Option")


def chance(rng: Generator, probability: float) -> bool:
    """Whether something of this probability happens."""
    return rng.random() < probability


def choose(rng: Generator, options: Sequence[Option]) -> Option:
    """One of the options; one that is listed twice is twice as likely."""
    return options[int(rng.integers(len(options)))]


def sample(rng: Generator, options: Sequence[Option], count: int) -> list[Option]:
    """So many different options, in random order."""
    return [options[int(index)] for index in rng.permutation(len(options))[:count]]


def whole(rng: Generator, low: int, high: int) -> int:
    """An integer from low to high, both included."""
    return int(rng.integers(low, high, endpoint=True))
