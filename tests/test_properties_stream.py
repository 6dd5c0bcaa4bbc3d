"""Properties of streams and chains, for any blocks, channels, rates, levels and damage."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("onnx")

from hypothesis import given, settings
from hypothesis import strategies as st
from test_properties_audio import bad_samples, block_sizes, cut, few, rates, seeds, sound
from toy_model import save_convolution

from restorer.audio_in import resampled_length
from restorer.errors import RestorerError
from restorer.restorer import Restorer

WINDOW, HOP, LOOKAHEAD = 256, 64, 3
TOLERANCE = 1e-5
levels = st.sampled_from([0.0, 1e-39, 1e-20, 1e-4, 0.3, 1.0, 30.0, 9e5])


@cache
def toy() -> Restorer:
    with tempfile.TemporaryDirectory() as folder:
        return Restorer(save_convolution(Path(folder) / "toy.onnx", WINDOW, HOP), "cpu", 1)


def run(stream: Any, blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*map(stream.process, blocks), stream.flush()], axis=-1)


@few
@given(seeds, st.integers(1, 4), st.integers(0, 3000), rates, block_sizes, st.floats(0, 1))
def test_blocks_do_not_matter(seed: int, channels: int, samples: int, rate: int, sizes: list[int], mix: float) -> None:
    audio = sound(seed, channels, samples)
    whole = run(toy().stream(channels, rate, seed, mix), [audio])
    pieces = run(toy().stream(channels, rate, seed, mix), cut(audio, sizes))
    assert whole.shape == pieces.shape == (channels, resampled_length(samples, rate, 44100))
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(toy()(audio, rate, seed=seed, mix=mix), whole, rtol=0, atol=TOLERANCE)


@few
@given(seeds, st.integers(0, 2000), block_sizes)
def test_output_comes_as_late_as_the_latency_says(seed: int, samples: int, sizes: list[int]) -> None:
    stream = toy().stream(1, 44100, seed)
    given_samples = returned = 0
    for block in cut(sound(seed, 1, samples), sizes):
        given_samples += block.shape[1]
        returned += stream.process(block).shape[1]
        assert returned == max(0, given_samples - stream.latency_samples)
    assert returned + stream.flush().shape[1] == samples
    assert stream.flush().shape[1] == 0


@few
@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 2500),
    levels,
    st.lists(st.tuples(st.integers(0, 10**6), bad_samples), max_size=6),
    block_sizes,
)
def test_any_level_and_any_damage_stay_finite(
    seed: int, channels: int, samples: int, level: float, damage: list[tuple[int, float]], sizes: list[int]
) -> None:
    audio = sound(seed, channels, samples, level)
    places = {place % audio.size: value for place, value in damage}
    for place, value in places.items():
        audio.flat[place] = value
    stream = toy().stream(channels, 44100, seed)
    out = run(stream, cut(audio, sizes))
    assert np.isfinite(out).all() and out.shape == audio.shape
    assert stream.replaced_samples == len(places)
    if places:
        with pytest.raises(RestorerError, match=f"audio holds {len(places)} samples that are NaN or infinite"):
            toy()(audio, 44100)


@few
@given(seeds, st.integers(2, 4), st.integers(1, 2000), rates)
def test_channels_are_restored_each_by_itself(seed: int, channels: int, samples: int, rate: int) -> None:
    audio = sound(seed, channels, samples)
    together = toy()(audio, rate, seed=seed)
    alone = np.concatenate([toy()(audio[channel : channel + 1], rate, seed=seed) for channel in range(channels)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)
    equal = toy()(np.repeat(audio[:1], channels, axis=0), rate, seed=seed)
    np.testing.assert_array_equal(equal, np.repeat(equal[:1], channels, axis=0))


@few
@given(seeds, st.sampled_from([np.int16, np.int32, np.float16, np.complex64, bool, object]), st.integers(0, 4))
def test_a_wrong_block_is_one_clear_line_and_harms_no_stream(seed: int, kind: type, axes: int) -> None:
    stream, audio = toy().stream(2, 44100, seed), sound(seed, 2, 900)
    expected = run(toy().stream(2, 44100, seed), [audio])
    first = stream.process(audio[:, :500])
    for bad in (np.zeros((2, 9), kind), np.zeros((2,) * axes, np.float32) if axes != 2 else audio[:1], [[0.0]], None):
        with pytest.raises(RestorerError) as raised:
            stream.process(bad)
        assert str(raised.value).isprintable() and len(str(raised.value)) < 200
    found = np.concatenate([first, stream.process(audio[:, 500:]), stream.flush()], axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@settings(few, max_examples=12)
@given(
    seeds,
    st.integers(1, 2),
    st.integers(1, 3000),
    st.sampled_from([22050, 44100, 48000]),
    block_sizes,
    st.integers(1, 9000),
)
def test_a_chain_in_blocks_is_the_chain_at_once(
    seed: int, channels: int, samples: int, rate: int, sizes: list[int], buffer_size: int
) -> None:
    pedalboard = pytest.importorskip("pedalboard")
    from restorer.plugins import Chain, RestorerPlugin

    def chain() -> Any:
        return Chain([pedalboard.Gain(-3), RestorerPlugin(toy(), seed=seed), pedalboard.HighpassFilter(60)])

    audio = sound(seed, channels, samples)
    whole, streamed = chain(), chain()
    expected = whole(audio, rate) if samples > channels else None
    streamed.process(audio[:, :0], rate)
    pieces = [streamed.process(block, rate, buffer_size, reset=False) for block in cut(audio, sizes)]
    found = np.concatenate(pieces, axis=1)
    assert found.shape[1] <= samples and np.isfinite(found).all()
    if expected is not None:
        assert expected.shape == audio.shape
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], rtol=0, atol=2e-5)
