"""`Chain` is native with native plug-ins, bit for bit, and takes ours and nested chains between them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import make_music, save_convolution, save_identity

from restorer.errors import RestorerError
from restorer.plugins import Chain, RestorerPlugin
from restorer.restorer import Restorer

pedalboard = pytest.importorskip("pedalboard")

RATE = 44100
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), "cpu", 1)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_identity(tmp_path_factory.mktemp("model") / "identity.onnx"), "cpu", 1)


def add_latency(samples: int) -> Any:
    from pedalboard_native._internal import AddLatency

    return AddLatency(samples)


def everyday() -> list[Any]:
    return [
        pedalboard.HighpassFilter(80),
        pedalboard.Compressor(-20, 3),
        pedalboard.Chorus(),
        pedalboard.Phaser(),
        pedalboard.Delay(0.05, 0.3, 0.4),
        pedalboard.Reverb(),
        pedalboard.Limiter(),
    ]


def with_latency() -> list[Any]:
    return [pedalboard.Gain(-3), add_latency(700), pedalboard.Reverb(), add_latency(50), pedalboard.Distortion(9)]


def nested() -> list[Any]:
    return [
        pedalboard.Gain(2),
        None,
        pedalboard.Chain([pedalboard.LadderFilter(), pedalboard.Pedalboard([pedalboard.Reverb(), add_latency(31)])]),
        pedalboard.Mix([pedalboard.Invert(), pedalboard.HighShelfFilter()]),
    ]


BOARDS = [everyday, with_latency, nested]


def cuts(rule: int | str, total: int) -> Iterator[slice]:
    random, start, size = np.random.default_rng(5), 0, {"growing": 1, "shrinking": 20000}.get(str(rule), 0)
    while start < total:
        if rule == "random":
            size = int(random.integers(0, 3000))
        elif rule == "growing":
            size = 3 * size + 1
        elif rule == "shrinking":
            size = max(1, size // 2)
        else:
            size = int(rule)
        yield slice(start, min(total, start + size))
        start += size


def stream(board: Any, audio: np.ndarray, rule: int | str, block: int = 8192) -> np.ndarray:
    """What comes of a stream, without its end."""
    pieces = [board.process(audio[:, cut], RATE, block, reset=False) for cut in cuts(rule, audio.shape[1])]
    return np.concatenate(pieces, axis=1)


# Native plug-ins only


@pytest.mark.parametrize("make", BOARDS)
@pytest.mark.parametrize("block", [1, 7, 512, 8192, 65536])
def test_one_shot_is_native_bit_for_bit(make: Callable[[], list[Any]], block: int) -> None:
    audio = make_music(2, 3000 if block == 1 else 20000)
    chain, board = Chain(make()), pedalboard.Pedalboard(make())
    for signal in (audio, audio[:, ::-1], audio.T.astype(np.float64), audio[:, :100]):
        expected = board(signal, RATE, block)
        found = chain(signal, RATE, block)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32 and found.flags.c_contiguous


@pytest.mark.parametrize("make", BOARDS)
@pytest.mark.parametrize("rule", [1, 7, 128, 480, 4096, 65536, "random", "shrinking", "growing"])
def test_stream_is_native_bit_for_bit(make: Callable[[], list[Any]], rule: int | str) -> None:
    """Where blocks grow, native state is lost; then the native board with blocks of the first one's length."""
    audio = make_music(2, 3000 if rule == 1 else 40000)
    first = next(cut.stop for cut in cuts(rule, audio.shape[1]) if cut.stop)
    board = pedalboard.Pedalboard(make())
    board.process(audio[:, :3] * 0, RATE, 1)  # else the native board takes a block of one or two samples for ...
    board.process(np.zeros((2, first), np.float32), RATE, first)  # ... another layout; a native board forgets
    expected = []
    for cut in cuts(rule, audio.shape[1]):
        size = cut.stop - cut.start
        expected.append(board.process(audio[:, cut], RATE, min(first, max(1, size)), reset=not expected and size < 0))
    chain = Chain(make())
    warm = Chain(chain)
    warm.process(audio[:, :3] * 0, RATE, 1)
    chain.process(np.zeros((2, first), np.float32), RATE, first)
    found = [chain.process(audio[:, cut], RATE, reset=False) for cut in cuts(rule, audio.shape[1])]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), np.concatenate(expected, axis=1))
