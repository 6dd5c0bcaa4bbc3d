"""Brightness: a rule on z, tested against a toy whose direction is known, and every bundled model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bright import DB_PER_UNIT, DIRECTION, NOISE_SIZE, save_bright
from toy_model import make_music, save_convolution, save_identity

from restorer import Restorer
from restorer.brightness import check_brightness, find_upper_band_hz, place_noise, upper_level_db, upper_power
from restorer.bundled import bundled_models
from restorer.errors import ConfigError, ModelError
from restorer.noise import draw_noise
from restorer.stream import Stream

RATE_HZ = 44100
AXIS = {"direction": DIRECTION.tolist(), "db_per_unit": DB_PER_UNIT}


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_bright(tmp_path_factory.mktemp("model") / "bright.onnx"), "cpu", 1)


def make_dark(samples: int = 30000, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Noise up to 9 kHz, ``(channels, samples)``."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, samples)))
    spectrum[:, round(9000 * samples / RATE_HZ) :] = 0
    return (0.1 * np.fft.irfft(spectrum, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "value"), [(None, None), ("dark", -2), ("neutral", 0), ("bright", 2), ("-1.5", -1.5), (4, 4), (-4.0, -4)]
)
def test_names_and_numbers(given: Any, value: float | None) -> None:
    assert check_brightness(given) == value


@pytest.mark.parametrize("bad", ["loud", "", 4.1, -5, np.nan, np.inf, True, [1, 2], "nan"])
def test_anything_else_is_named(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"dark, neutral, bright or a number from -4 \(dark\) to 4") as raised:
        check_brightness(bad)
    assert repr(bad) in str(raised.value)


def test_noise_moves_along_the_direction_alone() -> None:
    drawn = np.stack([draw_noise(seed, NOISE_SIZE) for seed in range(5)])
    placed = place_noise(drawn, 1.5, AXIS, "toy")
    assert placed.dtype == np.float32
    np.testing.assert_allclose(placed @ DIRECTION, 1.5, atol=1e-6)
    moved = placed - drawn
    np.testing.assert_allclose(moved, (moved @ DIRECTION)[:, None] * DIRECTION, atol=1e-6)
    assert place_noise(drawn, None, AXIS, "toy") is drawn
    # The number of the brightest random take is its own place: brightness leaves it as it is.
    own = float(drawn[0].astype(np.float64) @ DIRECTION)
    np.testing.assert_allclose(place_noise(drawn[:1], own, AXIS, "toy"), drawn[:1], atol=1e-6)


def test_upper_level_is_the_mean_square_above_a_frequency() -> None:
    time = np.arange(RATE_HZ) / RATE_HZ
    low, high = np.sin(2 * np.pi * 2000 * time), 0.1 * np.sin(2 * np.pi * 12000 * time)
    audio = np.stack([low + high, low]).astype(np.float32)
    # A sine of amplitude 0.1 has a mean square of 0.005; half of the channels have it.
    assert upper_level_db(audio, RATE_HZ, 8000.0) == pytest.approx(10 * np.log10(0.0025), abs=0.15)
    assert upper_power(audio, RATE_HZ, 8000.0).shape == (1 + RATE_HZ // 1024,)
    assert upper_level_db(np.zeros((1, 5000), np.float32), RATE_HZ, 8000.0) == -160


def test_upper_band_begins_at_the_edge() -> None:
    assert find_upper_band_hz(make_dark(), RATE_HZ) == pytest.approx(9000, abs=150)
    assert find_upper_band_hz(make_music(), RATE_HZ) == 16000
    assert find_upper_band_hz(np.zeros((1, 9000), np.float32), RATE_HZ) == 1000


def test_energy_above_the_cutoff_rises_with_brightness(bright: Restorer) -> None:
    audio = make_dark()
    for seed in (0, 7):
        takes = [bright(audio, RATE_HZ, seed=seed, brightness=value) for value in (-4, "dark", -1, 0, 1, "bright", 4)]
        levels = [upper_level_db(take, RATE_HZ, 11500.0) for take in takes]
        np.testing.assert_allclose(np.diff(levels), DB_PER_UNIT * np.array([2, 1, 1, 1, 1, 2]), atol=0.1)


def test_brightness_leaves_the_rest_of_the_take_to_the_seed(bright: Restorer) -> None:
    audio = make_dark()
    plain = bright(audio, RATE_HZ, seed=3)
    np.testing.assert_array_equal(bright(audio, RATE_HZ, seed=3, brightness=None), plain)
    own = float(draw_noise(3, NOISE_SIZE).astype(np.float64) @ DIRECTION)
    assert np.abs(bright(audio, RATE_HZ, seed=3, brightness=own) - plain).max() < 1e-5
    assert np.abs(bright(audio, RATE_HZ, seed=3, brightness=own + 2) - plain).max() > 1e-3


def test_every_way_of_restoring_takes_it(bright: Restorer, tmp_path: Path) -> None:
    from restorer.audio_in import read_audio
    from restorer.audio_out import AudioWriter

    audio = make_dark(20000)
    expected = bright(audio, RATE_HZ, seed=1, brightness="bright")
    takes = bright.candidates(audio, RATE_HZ, n=2, seed=0, brightness="bright")
    assert np.abs(takes[1] - expected).max() < 1e-5
    stream = bright.stream(2, RATE_HZ, seed=1, brightness="bright")
    assert stream.brightness == 2.0
    pieces = [stream.process(audio[:, start : start + 777]) for start in range(0, 20000, 777)]
    assert np.abs(np.concatenate([*pieces, stream.flush()], axis=1) - expected).max() < 1e-5
    with AudioWriter(tmp_path / "in.wav", 2, RATE_HZ, subtype="float") as writer:
        writer.write(audio)
    bright.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", seed=1, subtype="float", brightness="bright")
    assert np.abs(read_audio(tmp_path / "out.wav")[0] - expected).max() < 1e-5


def test_a_running_stream_fades_to_another_brightness(tmp_path: Path) -> None:
    direction = np.eye(5)[1].tolist()
    axis = {"direction": direction, "db_per_unit": 1.0}
    restorer = Restorer(save_convolution(tmp_path / "toy.onnx", brightness=axis), "cpu", 1)
    audio = (0.5 * np.sin(2 * np.pi * 220 * np.arange(40000) / RATE_HZ))[None].astype(np.float32)
    first, second = (restorer(audio, RATE_HZ, seed=4, brightness=value) for value in (-2, 2))
    stream = restorer.stream(1, RATE_HZ, seed=4, brightness=-2)
    before = stream.process(audio[:, :20000])
    stream.brightness = 2
    out = np.concatenate([before, stream.process(audio[:, 20000:]), stream.flush()], axis=1)
    gap = np.abs(first - second).max()
    assert gap > 0.01
    start = int(np.flatnonzero(np.abs(out - first)[0] > 1e-5)[0])
    end = int(np.flatnonzero(np.abs(out - second)[0] > 1e-5)[-1])
    assert 20000 - stream.latency_samples - 64 <= start < end < start + 6000
    assert np.abs(np.diff(out)).max() <= 1.01 * max(np.abs(np.diff(first)).max(), np.abs(np.diff(second)).max())
    with pytest.raises(ConfigError):
        stream.brightness = 5
    assert stream.brightness == 2


def test_the_seed_can_change_while_the_brightness_stays(bright: Restorer) -> None:
    stream: Stream = bright.stream(1, RATE_HZ, seed=1, brightness=1)
    stream.change_seed(2)
    stream.reset()
    audio = make_dark(9000, 1)
    out = np.concatenate([stream.process(audio), stream.flush()], axis=1)
    assert np.abs(out - bright(audio, RATE_HZ, seed=2, brightness=1)).max() < 1e-5


def test_models_without_noise_or_direction_say_so(tmp_path: Path) -> None:
    audio = make_dark(9000)
    for path, words in [
        (save_identity(tmp_path / "identity.onnx"), "has no noise"),
        (save_bright(tmp_path / "unknown.onnx", known=False), "carries no brightness direction; .* restorer export"),
    ]:
        restorer = Restorer(path, "cpu", 1)
        restorer(audio, RATE_HZ)
        for call in (restorer, restorer.candidates):
            with pytest.raises(ConfigError, match=words) as raised:
                call(audio, RATE_HZ, brightness=0)
            assert "\n" not in str(raised.value) and path.name in str(raised.value)
        with pytest.raises(ConfigError, match=words):
            restorer.restore_file(tmp_path / "none.wav", tmp_path / "out.wav", brightness="dark")


@pytest.mark.parametrize(
    "axis",
    [[], {}, {"direction": [1.0]}, {"direction": [1.0], "db_per_unit": 1}, {**AXIS, "db_per_unit": "?"},
     {**AXIS, "direction": [1.0] * NOISE_SIZE}, {**AXIS, "direction": ["a"] * NOISE_SIZE},
     {**AXIS, "direction": [float("nan")] * NOISE_SIZE}],
)  # fmt: skip
def test_damaged_directions_are_refused(tmp_path: Path, axis: Any) -> None:
    import onnx

    path = save_bright(tmp_path / "bad.onnx")
    proto = onnx.load(str(path))
    entry = proto.metadata_props[0]
    entry.value = json.dumps({**json.loads(entry.value), "brightness": axis})
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match="brightness must hold a unit vector 'direction' of 6 numbers"):
        Restorer(path, "cpu", 1)


@pytest.mark.parametrize("name", bundled_models())
def test_every_step_of_a_bundled_model_is_brighter_on_music_it_was_not_found_on(name: str) -> None:
    pytest.importorskip("lameenc")
    from restorer.synthesis import synthesize
    from restorer.training.mp3 import Coding, round_trip

    restorer = Restorer(name, "cpu", 1)
    if not restorer.model_info.noise_size:
        pytest.skip(f"{name} has one restoration of a song")
    assert restorer.model_info.brightness is not None, f"{name}: find it with: restorer export ... --brightness"
    for index, kbps in enumerate((16, 24, 32, 48)):
        # The direction was searched on seeds from a million on.
        coded = round_trip(synthesize(3.0, RATE_HZ, 7000 + index, 1), Coding(kbps, False))
        above_hz = find_upper_band_hz(coded, RATE_HZ)
        takes = (restorer(coded, RATE_HZ, seed=index, brightness=value) for value in ("dark", -1, 0, 1, "bright"))
        levels = [upper_level_db(take, RATE_HZ, above_hz) for take in takes]
        assert (np.diff(levels) > 0).all(), (kbps, levels)
