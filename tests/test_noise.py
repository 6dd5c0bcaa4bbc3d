"""The noise rule, against published constants and a second implementation in plain integers."""

import math

import numpy as np
import pytest

from restorer.errors import ConfigError
from restorer.noise import check_seed, draw_noise, splitmix64

# The first values of two seeds, for ports to compare with.
SEED_0 = [-0.45275775, 0.20776604, 2.650606, -0.49042282, -0.9886041]
SEED_7 = [1.3649923, 0.14452122, -0.39652398]


def plain_noise(seed: int, size: int) -> list[float]:
    """The documented rule with plain integers and the math module, as a port to another language does it."""
    values: list[float] = []
    state = seed
    uniform = []
    for _ in range(size + size % 2):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        s = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        s = (s ^ s >> 27) * 0x94D049BB133111EB % 2**64
        uniform.append(((s ^ s >> 31) // 2**11 + 1) / 2**53)
    for first, second in zip(uniform[::2], uniform[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(first))
        values += [radius * math.cos(2 * math.pi * second), radius * math.sin(2 * math.pi * second)]
    return values[:size]


def test_splitmix64_gives_its_published_values() -> None:
    # Seed 1234567 of the reference C code, as Rosetta Code and the Java and Rust ports print it.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, 4).tolist() == expected
    assert splitmix64(0, 1).tolist() == [0xE220A8397B1DCDAF]


def test_constants_for_ports() -> None:
    np.testing.assert_array_equal(draw_noise(0, 5), np.array(SEED_0, np.float32))
    np.testing.assert_array_equal(draw_noise(7, 3), np.array(SEED_7, np.float32))


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**53, 2**64 - 1])
@pytest.mark.parametrize("size", [0, 1, 2, 33])
def test_vectorised_rule_is_the_documented_one(seed: int, size: int) -> None:
    drawn = draw_noise(seed, size)
    assert drawn.dtype == np.float32 and drawn.shape == (size,)
    np.testing.assert_allclose(drawn, plain_noise(seed, size), rtol=2e-7, atol=1e-12)


def test_longer_vector_begins_with_the_shorter() -> None:
    np.testing.assert_array_equal(draw_noise(3, 64)[:17], draw_noise(3, 17))


def test_distribution_is_standard_normal_and_seeds_are_unrelated() -> None:
    drawn = np.stack([draw_noise(seed, 500) for seed in range(200)]).astype(np.float64)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**4).mean() - 3) < 0.1
    correlation = np.corrcoef(drawn)
    assert np.abs(correlation - np.eye(200)).max() < 0.25


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", None, True])
def test_impossible_seed_is_named(seed: object) -> None:
    with pytest.raises(ConfigError, match="seed must be an integer") as raised:
        check_seed(seed)
    assert repr(seed) in str(raised.value)


def test_numpy_integers_are_seeds() -> None:
    np.testing.assert_array_equal(draw_noise(np.uint8(9), 4), draw_noise(9, 4))  # type: ignore[arg-type]
