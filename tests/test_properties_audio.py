"""Properties of reading, writing and resampling, for any length, rate, channels, blocks and level."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restorer.audio_in import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, AudioReader, StreamResampler, resampled_length
from restorer.audio_out import AudioWriter
from restorer.errors import AudioFileError, ConfigError, RestorerError
from restorer.stream import check_audio, check_format, check_mix, replace_damage

few = settings(
    max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
rates = st.one_of(st.integers(MIN_RATE_HZ, MAX_RATE_HZ), st.sampled_from([8000, 22050, 44100, 48000, 96000, 192000]))
channel_counts = st.integers(1, MAX_CHANNELS)
gains = st.sampled_from([0.0, 1e-30, 1e-6, 0.1, 1.0])
bad_samples = st.sampled_from([np.nan, np.inf, -np.inf])
seeds = st.integers(0, 1000)
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.integers(), max_size=3),
    st.complex_numbers(),
)


def sound(seed: int, channels: int, samples: int, gain: float = 0.5) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(-1, 1, (channels, samples))
    return (gain * noise).astype(np.float32)


def cut(audio: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The signal in blocks of these sizes over and over; one of them is not 0."""
    blocks, start, index = [], 0, 0
    while start < audio.shape[1]:
        size = sizes[index % len(sizes)]
        blocks.append(audio[:, start : start + size])
        start, index = start + size, index + 1
    return blocks


block_sizes = st.lists(st.integers(0, 900), min_size=1, max_size=5).filter(any)


@few
@given(seeds, channel_counts, st.integers(0, 4000), rates, rates, block_sizes)
def test_resampling_depends_on_no_block_and_keeps_the_duration(
    seed: int, channels: int, samples: int, source: int, target: int, sizes: list[int]
) -> None:
    audio = sound(seed, channels, samples)
    outputs = []
    for blocks in ([audio], cut(audio, sizes)):
        resampler = StreamResampler(channels, source, target)
        outputs.append(np.concatenate([*map(resampler.process, blocks), resampler.flush()], axis=1))
    assert outputs[0].shape == outputs[1].shape == (channels, resampled_length(samples, source, target))
    assert abs(outputs[0].shape[1] - samples * target / source) <= 0.5
    np.testing.assert_allclose(outputs[1], outputs[0], atol=2e-6)


@few
@given(seeds, channel_counts, st.integers(1, 5000), rates, gains, st.integers(1, 7000), block_sizes)
def test_what_is_written_is_read(
    seed: int, channels: int, samples: int, rate: int, gain: float, block: int, sizes: list[int]
) -> None:
    audio = sound(seed, channels, samples, gain)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, subtype, error in ((".wav", "float", 0.0), (".wav", "24", 2.0**-24), (".flac", "16", 2.0**-16)):
            path = Path(folder) / f"{subtype}{suffix}"
            with AudioWriter(path, channels, rate, subtype=subtype) as writer:
                for piece in cut(audio, sizes):
                    if piece.shape[1]:
                        writer.write(piece)
            with AudioReader(path, None) as reader:
                pieces = list(reader.blocks(block))
            assert (reader.channels, reader.source_rate, reader.warnings) == (channels, rate, [])
            assert all(piece.shape[1] == block for piece in pieces[:-1])
            np.testing.assert_allclose(np.concatenate(pieces, axis=1), audio, rtol=0, atol=1.01 * error)


@few
@given(seeds, st.integers(1, 3), st.integers(1, 9000), bad_samples, st.floats(0, 1))
def test_a_sample_that_is_not_finite_is_named(seed: int, channels: int, samples: int, bad: float, where: float) -> None:
    audio = sound(seed, channels, samples)
    at = int(where * (samples - 1))
    audio[seed % channels, at] = bad
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        with pytest.raises(AudioFileError, match="NaN"), AudioWriter(path, channels, 8000, subtype="float") as writer:
            writer.write(audio)
        assert list(Path(folder).iterdir()) == []
        import soundfile

        soundfile.write(path, audio.T, 8000, subtype="FLOAT")
        with (
            AudioReader(path) as reader,
            pytest.raises(AudioFileError, match=f"NaN or infinity at {at / 8000:.3f} s") as raised,
        ):
            list(reader.blocks(1000))
        assert str(raised.value).isprintable()


@few
@given(
    seeds,
    channel_counts,
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(0, 10**6), st.one_of(bad_samples, st.sampled_from([2e6, -1e30]))), max_size=9),
)
def test_damage_becomes_silence_and_is_counted(
    seed: int, channels: int, samples: int, damage: list[tuple[int, float]]
) -> None:
    audio = sound(seed, channels, samples)
    places = {place % audio.size: value for place, value in damage} if audio.size else {}
    for place, value in places.items():
        audio.flat[place] = value
    clean, replaced = replace_damage(audio)
    assert replaced == len(places) and np.isfinite(clean).all() and clean.dtype == np.float32
    untouched = np.setdiff1d(np.arange(audio.size), list(places))
    np.testing.assert_array_equal(clean.flat[untouched], audio.flat[untouched])
    assert not clean.flat[list(places)].any()


@settings(few, max_examples=120)
@given(anything, anything)
def test_any_setting_is_taken_or_refused_in_one_line(first: Any, second: Any) -> None:
    for check in (lambda: check_format(first, second), lambda: check_mix(first), lambda: check_audio(first)):
        try:
            found = check()
        except RestorerError as error:
            assert str(error).isprintable() or not repr(first).isprintable() or not repr(second).isprintable()
            assert isinstance(error, ConfigError | RestorerError)
            continue
        if isinstance(found, tuple):
            assert 1 <= found[0] <= MAX_CHANNELS and MIN_RATE_HZ <= found[1] <= MAX_RATE_HZ
        else:
            assert 0 <= found <= 1
