"""One seed makes one noise vector, by a rule short enough to repeat exactly in C++ or JavaScript.

The rule, for a seed in [0, 2^64) and i = 0, 1, 2, ...:

1. splitmix64: ``s = seed + (i + 1) * 0x9E3779B97F4A7C15``; ``s = (s ^ s >> 30) * 0xBF58476D1CE4E5B9``;
   ``s = (s ^ s >> 27) * 0x94D049BB133111EB``; ``s = s ^ s >> 31``; all modulo 2^64.
2. uniform: ``u[i] = ((s >> 11) + 1) / 2^53``, in (0, 1], exact in a double.
3. Box-Muller in double: ``z[2k] = r cos(a)``, ``z[2k+1] = r sin(a)`` with ``r = sqrt(-2 ln u[2k])`` and
   ``a = 2 pi u[2k+1]``. An odd size drops the last sine.
4. Round to float32.
"""

import operator

import numpy as np
from numpy.typing import NDArray

from restorer.errors import ConfigError

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SEED_LIMIT = 2**64


def check_seed(seed: object) -> int:
    """Any integer from 0 to 2^64 - 1 is a seed.

    Raises
    ------
    ConfigError
        It is no integer, negative or too large.
    """
    try:
        value = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        value = -1
    if isinstance(seed, bool) or not 0 <= value < _SEED_LIMIT:
        raise ConfigError(f"seed must be an integer from 0 to 2^64 - 1 and not {seed!r}")
    return value


def splitmix64(seed: int, count: int) -> NDArray[np.uint64]:
    """The first `count` outputs of splitmix64 started at `seed`."""
    start = np.uint64(seed)
    s = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    s = (s ^ (s >> np.uint64(30))) * _MIX_1
    s = (s ^ (s >> np.uint64(27))) * _MIX_2
    return s ^ (s >> np.uint64(31))


def draw_noise(seed: int, size: int) -> NDArray[np.float32]:
    """The noise vector z ~ N(0, I) of a seed: one vector restores a whole song (paper 4.1.1).

    Parameters
    ----------
    seed
        Integer from 0 to 2^64 - 1. A longer vector of the same seed begins with the shorter one.
    size
        Number of values; 0 gives an empty vector.

    Returns
    -------
    float32 array, shape ``(size,)``.
    """
    pairs = (size + 1) // 2
    uniform = ((splitmix64(check_seed(seed), 2 * pairs) >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[0::2]))
    angle = 2.0 * np.pi * uniform[1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    return normal[:size].astype(np.float32)
