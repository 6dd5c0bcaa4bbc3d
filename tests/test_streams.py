"""Streams in one batch are the single ones, and say clearly what they cannot take."""

import numpy as np
import pytest
from toy_model import MODELS, make_model, make_music, save_convolution

from restorer import Restorer
from restorer.errors import ConfigError, RestorerError
from restorer.streams import Streams

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=MODELS)
def restorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(make_model(request.param, tmp_path_factory.mktemp("model")), device="cpu", threads=1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), device="cpu", threads=1)


def feed(streams: Streams, signals: list[np.ndarray], sizes: list[int]) -> list[np.ndarray]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(streams.process([signal[:, start : start + size] for signal in signals]))
        start += size
    pieces.append(streams.flush())
    return [np.concatenate(parts, axis=1) for parts in zip(*pieces, strict=True)]


@pytest.mark.parametrize("sample_rate", [44100, 22050])
@pytest.mark.parametrize(("n", "channels"), [(1, 2), (3, 1), (4, 2)])
def test_equal_to_single_streams(restorer: Restorer, n: int, channels: int, sample_rate: int) -> None:
    signals = [make_music(channels, 9000, sample_rate, seed) for seed in range(n)]
    seeds = [10 + 3 * index for index in range(n)]
    together = feed(restorer.streams(n, channels, sample_rate, seeds), signals, [0, 1, 700, 512, 64, 5000, 2723])
    for signal, seed, got in zip(signals, seeds, together, strict=True):
        expected = restorer(signal, sample_rate, seed)
        assert got.shape == expected.shape and got.dtype == np.float32
        assert np.abs(got - expected).max() < TOLERANCE


def test_what_is_ready_follows_from_the_latency(restorer: Restorer) -> None:
    streams = restorer.streams(2, 1, restorer.sample_rate)
    given = got = 0
    for size in (511, 1, 5000, 64, 4096):
        out = streams.process([np.zeros((1, size), np.float32)] * 2)
        given, got = given + size, got + out[1].shape[1]
        assert got == max(0, given - streams.latency_samples)
    assert sum(block.shape[1] for block in streams.flush()) == 2 * (given - got)
    assert [block.shape for block in streams.flush()] == [(1, 0), (1, 0)]


def test_one_seed_serves_all_and_reset_starts_over(toy: Restorer) -> None:
    signals = [make_music(1, 4000, seed=seed) for seed in range(2)]
    streams = toy.streams(2, 1, seeds=5)
    first = feed(streams, signals, [4000])
    with pytest.raises(RestorerError, match="call reset"):
        streams.process(signals)
    streams.reset()
    for got, again, signal in zip(first, feed(streams, signals, [1000, 3000]), signals, strict=True):
        assert np.abs(got - again).max() < TOLERANCE
        assert np.abs(got - toy(signal, 44100, 5)).max() < TOLERANCE


def test_damage_stays_in_its_stream(toy: Restorer) -> None:
    signals = [make_music(1, 4000, seed=seed) for seed in range(2)]
    signals[0][0, 100:103] = np.nan
    streams = toy.streams(2, 1, seeds=[1, 2])
    out = feed(streams, signals, [4000])
    assert streams.replaced_samples == 3
    assert np.isfinite(out[0]).all()
    assert np.abs(out[1] - toy(signals[1], 44100, 2)).max() < TOLERANCE


def test_wrong_settings_and_blocks_are_named(toy: Restorer) -> None:
    for arguments, message in [
        ((0,), "n must be an integer from 1 to 256 and not 0"),
        ((True,), "n must be"),
        ((2, 9), "channels"),
        ((2, 2, 10), "sample_rate"),
        ((2, 2, 44100, [1]), "seeds must be one integer or 2 of them, one for each stream, and not 1"),
        ((2, 2, 44100, [1, -1]), "seed"),
    ]:
        with pytest.raises(ConfigError, match=message):
            toy.streams(*arguments)  # type: ignore[arg-type]
    streams = toy.streams(2, 1)
    block = np.zeros((1, 64), np.float32)
    for blocks, message in [
        ([block], "blocks must be 2, one for each stream, and not 1"),
        ([block, block[:, :63]], r"block 1 must have shape \(1, 64\)"),
        ([block[0], block[0]], r"block 0 must have shape \(1, 64\)"),
        ([block, block.astype(np.int16)], "float32 or float64"),
    ]:
        with pytest.raises(RestorerError, match=message):
            streams.process(blocks)
