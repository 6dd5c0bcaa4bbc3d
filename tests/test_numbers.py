"""Whatever numbers come in, bounded and finite ones come out, and the model forgets them within its context."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import make_music, save_convolution, save_identity, toy_or_released

from restorer import Restorer
from restorer.errors import RestorerError
from restorer.line import Line
from restorer.plugins.processor import RestorerPlugin

RATE_HZ = 44100
SAMPLES = 40000
# Of what goes in within full scale; what is louder may come out as much louder as it came in. A mask of 2 quadruples
# amplitudes, which it changes before they are squared.
BOUND = 16.0


@pytest.fixture(scope="module", params=["toy", "bundled"])
def restorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return toy_or_released(request.param, tmp_path_factory.mktemp("model"), threads=1)


def context_samples(restorer: Restorer) -> int:
    """So many samples after the last bad one, nothing in the output can depend on it any more."""
    info = restorer.model_info
    frames = info.memory_frames + info.lookahead_frames + 2 * math.ceil(info.window_samples / info.hop_samples)
    return frames * info.hop_samples


def whole(restorer: Restorer, audio: np.ndarray) -> np.ndarray:
    return restorer(audio, RATE_HZ)


def streamed(restorer: Restorer, audio: np.ndarray) -> np.ndarray:
    stream = restorer.stream(audio.shape[0], RATE_HZ)
    blocks = [stream.process(audio[:, start : start + 4000]) for start in range(0, audio.shape[1], 4000)]
    return np.concatenate([*blocks, stream.flush()], axis=1)


def plugged(restorer: Restorer, audio: np.ndarray) -> np.ndarray:
    return RestorerPlugin(restorer)(audio, RATE_HZ)


def square(level: float, period: int = 100) -> np.ndarray:
    return level * np.where(np.arange(SAMPLES) % period < period // 2, 1.0, -1.0)


def impulses() -> np.ndarray:
    signal = np.zeros(SAMPLES)
    signal[[0, 9000, 9001, 20000, SAMPLES - 1]] = 1.0, -1.0, 1.0, 1.0, 1.0
    return signal


SIGNALS: dict[str, Callable[[], np.ndarray]] = {
    "silence": lambda: np.zeros(SAMPLES),
    "negative silence": lambda: np.full(SAMPLES, -0.0),
    "square wave": lambda: square(1.0),
    "fast square wave": lambda: square(1.0, 2),
    "constant": lambda: np.ones(SAMPLES),
    "denormals": lambda: square(1e-42),
    "fading into denormals": lambda: square(1.0) * np.exp(-np.linspace(0, 110, SAMPLES)),
    "impulses": impulses,
    "noise": lambda: np.random.default_rng(0).uniform(-1, 1, SAMPLES),
    "120 dB over full scale": lambda: square(1e6),
    "single samples at 1e6": lambda: 1e6 * impulses(),
}


@pytest.mark.parametrize("way", [whole, streamed, plugged])
@pytest.mark.parametrize("name", SIGNALS)
def test_any_signal_comes_out_bounded(restorer: Restorer, name: str, way: Callable) -> None:
    signal = SIGNALS[name]()
    out = way(restorer, signal[None].astype(np.float32))
    assert out.shape == (1, SAMPLES)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= BOUND * max(1.0, float(np.abs(signal).max()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_whole_and_replaced_in_streams(restorer: Restorer, value: float) -> None:
    audio = make_music(1, SAMPLES)
    bad = audio.copy()
    bad[0, 5000:5003] = value
    with pytest.raises(RestorerError, match="3 samples that are NaN or infinite") as raised:
        whole(restorer, bad)
    assert "\n" not in str(raised.value)
    repaired = np.where(np.isfinite(bad), bad, 0).astype(np.float32)
    np.testing.assert_array_equal(streamed(restorer, bad), streamed(restorer, repaired))
    np.testing.assert_array_equal(plugged(restorer, bad), plugged(restorer, repaired))


@pytest.mark.parametrize("way", [whole, streamed, plugged])
@pytest.mark.parametrize("insane", ["120 dB over full scale", "square wave", "denormals", "constant"])
def test_the_model_forgets_within_its_context(restorer: Restorer, insane: str, way: Callable) -> None:
    """After it, the output is as if there had been silence in the place of the insane signal."""
    hop = restorer.model_info.hop_samples
    bad = 20 * hop
    sane = make_music(1, context_samples(restorer) + 16 * hop)
    loud = np.resize(SIGNALS[insane](), (1, bad)).astype(np.float32)
    after = way(restorer, np.concatenate([loud, sane], axis=1))[:, bad + context_samples(restorer) :]
    calm = way(restorer, np.concatenate([np.zeros_like(loud), sane], axis=1))[:, bad + context_samples(restorer) :]
    assert after.shape[1] == 16 * hop
    np.testing.assert_allclose(after, calm, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-38, 10.0, 1e3])
def test_extreme_noise_is_bounded(restorer: Restorer, size: float) -> None:
    """No seed draws such a z, but a host may; its sound grows with its square at most, and leaves nothing behind."""
    model, made = restorer._model, make_music(1, SAMPLES)
    if not model.info.noise_size:
        pytest.skip("a model without noise")

    def run(line: Line) -> np.ndarray:
        return np.concatenate([wet.copy() for _, wet in line.advance(made)], axis=1)

    for sign in (1.0, -1.0):
        line = Line(model, 1, 1)
        line.set_noise(np.full((1, model.info.noise_size), sign * size, np.float32))
        line.reset()
        out = run(line)
        assert out.shape[1] > SAMPLES // 2 and np.isfinite(out).all()
        assert np.abs(out).max() <= max(BOUND, size**2)
        calm = Line(model, 1, 1)
        for each in (line, calm):
            each.set_noise(np.zeros((1, model.info.noise_size), np.float32))
        calm.reset()
        run(calm)
        rounds = 2 + math.ceil(context_samples(restorer) / SAMPLES)
        later, expected = ([run(each) for _ in range(rounds)][-1] for each in (line, calm))
        np.testing.assert_allclose(later, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_a_file_of_impossible_samples_is_measured_or_refused_in_one_line(tmp_path: Path, value: float) -> None:
    """They are finite, and their squares are not."""
    from click.testing import CliRunner

    from restorer.cli import main

    audio, path = np.repeat(make_music(1, 2 * RATE_HZ), 2, axis=0), tmp_path / "a.wav"
    audio[:, 30000:30050] = value
    soundfile.write(path, audio.T, RATE_HZ, subtype="FLOAT")
    model, noisy = save_identity(tmp_path / "identity.onnx"), save_convolution(tmp_path / "noisy.onnx")
    for arguments, status in (
        (["inspect", path], 0),
        (["takes", path, tmp_path / "takes", "--n", "2", "--seconds", "1", "--model", noisy], 0),
        (["restore", path, tmp_path / "out.wav", "--model", model, "--force"], 0),
        (["metrics", path, path], 2),
        (["compare", path, path], 2),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of numpy, which a user would see
            result = CliRunner().invoke(main, [str(word) for word in arguments])
        assert result.exit_code == status, result.output
        assert status == 0 or (result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1)


# Rates


def measure_hz(signal: np.ndarray, rate_hz: float, near_hz: float) -> float:
    """Frequency of a tone by how its phase advances, from windows at the start and at the end."""
    size = len(signal) // 2
    window = np.hanning(size)
    phases = []
    for start in (0, len(signal) - size):
        time = np.arange(start, start + size) / rate_hz
        phases.append(np.angle(np.sum(window * signal[start : start + size] * np.exp(-2j * np.pi * near_hz * time))))
    turn = np.angle(np.exp(1j * (phases[1] - phases[0])))
    return near_hz + turn / (2 * np.pi) * rate_hz / (len(signal) - size)


def tone(rate_hz: int, seconds: float, frequency_hz: float) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


RATES_HZ = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 47999, 48000, 88200, 96000, 176400, 192000)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_pitch_and_duration_stay(restorer: Restorer, rate_hz: int) -> None:
    """To 0.1 cent: what is restored is heard beside the original."""
    seconds, frequency_hz = 1.0, 997.0
    audio = tone(rate_hz, seconds, frequency_hz)
    inside = slice(RATE_HZ // 10, -RATE_HZ // 10)
    stream = restorer.stream(1, rate_hz)
    blocks = [stream.process(audio[None, start : start + 3001]) for start in range(0, len(audio), 3001)]
    for out in (restorer(audio, rate_hz), np.concatenate([*blocks, stream.flush()], axis=1)[0]):
        assert len(out) == round(len(audio) * restorer.sample_rate / rate_hz)
        cents = 1200 * math.log2(measure_hz(out[inside], restorer.sample_rate, frequency_hz) / frequency_hz)
        assert abs(cents) < 0.1


@pytest.mark.parametrize("rate_hz", [8000, 44100, 96000, 192000])
def test_pitch_and_duration_stay_in_a_host(restorer: Restorer, rate_hz: int) -> None:
    audio = tone(rate_hz, 1.0, 997.0)
    out = RestorerPlugin(restorer)(audio, rate_hz)
    assert out.shape == audio.shape
    inside = slice(rate_hz // 10, -rate_hz // 10)
    assert abs(1200 * math.log2(measure_hz(out[inside], rate_hz, 997.0) / 997.0)) < 0.1


def test_the_measurement_itself_is_finer(tmp_path: Path) -> None:
    for shift in (0.0, 0.05, 0.2):
        frequency_hz = 997.0 * 2 ** (shift / 1200)
        found = measure_hz(tone(RATE_HZ, 0.8, frequency_hz), RATE_HZ, 997.0)
        assert 1200 * math.log2(found / frequency_hz) == pytest.approx(0.0, abs=0.005)
    identity = Restorer(save_identity(tmp_path / "identity.onnx"), device="cpu", threads=1)
    out = identity(tone(48000, 1.0, 997.0), 48000)
    assert 1200 * math.log2(measure_hz(out[4410:-4410], RATE_HZ, 997.0) / 997.0) == pytest.approx(0.0, abs=0.005)
