"""A bound run computes what the plain call computes; its states never leave the device."""

import logging
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from toy_model import MODELS, make_model, make_music, save_identity

from restorer.errors import DeviceError
from restorer.model_file import Model
from restorer.stream import Stream


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(request.param, tmp_path_factory.mktemp("model")), "cpu", 1)


def test_equals_the_plain_call(model: Model, rng: np.random.Generator) -> None:
    batch = 3
    z = rng.standard_normal((batch, model.info.noise_size)).astype(np.float32)
    run = model.bind(batch)
    run.set_noise(z)
    states = model.zero_states(batch)
    for frames in (1, 1, 4, 1, 2, 4, 4):
        spectrum = rng.standard_normal((batch, 2, frames, model.info.bins)).astype(np.float32)
        expected, states = model.run(spectrum, z, states)
        np.testing.assert_array_equal(run(spectrum), expected)
        for kept, state in zip(run.get_states(), states, strict=True):
            np.testing.assert_array_equal(kept, state)


def test_states_can_be_set_and_runs_are_independent(model: Model, rng: np.random.Generator) -> None:
    spectrum = rng.standard_normal((1, 2, 5, model.info.bins)).astype(np.float32)
    first, second = model.bind(1), model.bind(1)
    first(spectrum)
    kept = first.get_states()
    expected = first(spectrum).copy()
    second.set_states(kept)
    np.testing.assert_array_equal(second(spectrum), expected)
    first.set_states(kept)
    second(spectrum)
    np.testing.assert_array_equal(first(spectrum), expected)


def test_frames_may_be_a_view(model: Model, rng: np.random.Generator) -> None:
    spectrum = rng.standard_normal((2, 2, 8, model.info.bins)).astype(np.float32)
    every_second = spectrum[:, :, ::2]
    expected, _ = model.run(
        np.ascontiguousarray(every_second),
        np.zeros((2, model.info.noise_size), np.float32),
        model.zero_states(2),
    )
    np.testing.assert_array_equal(model.bind(2)(every_second), expected)


def test_gpu_that_fails_is_named_in_one_line(tmp_path: Path) -> None:
    run = Model(save_identity(tmp_path / "a.onnx"), "cpu", 1).bind(1)
    run._device = "cuda"  # as if: the error is real, and comes from the runtime
    with pytest.raises(DeviceError, match=r'the GPU failed: .* or use device="cpu"') as raised:
        run(np.zeros((1, 2, 1, 7), np.float32))
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_falling_back_is_said_where_cuda_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_identity(tmp_path / "a.onnx")
    with caplog.at_level(logging.INFO):
        Model(path, "cpu", 1)
        assert not caplog.records
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
        assert Model(path, "auto", 1).device == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "CUDA does not work here (no NVIDIA GPU" in record.message and "running on the CPU" in record.message
    with pytest.raises(DeviceError, match=r"'cuda' does not work here \(no NVIDIA GPU"):
        Model(path, "cuda", 1)


def test_first_block_is_as_fast_as_the_rest(model: Model) -> None:
    """What is planned at the first call was planned when the stream started; the best of five streams counts."""
    block = make_music(2, model.info.hop_samples)
    excess_seconds = []
    for _ in range(5):
        stream = Stream(model, 2, model.info.sample_rate, 0)
        times = []
        for _ in range(30):
            started = time.thread_time()
            stream.process(block)
            times.append(time.thread_time() - started)
        excess_seconds.append(times[0] - 2 * np.median(times))
    assert min(excess_seconds) < 1e-3  # caches are cold: a small part of any block


def test_tiny_input_costs_no_more_time(model: Model) -> None:
    """Denormal numbers, which a fading signal leaves behind, are harmless; the best rounds count."""
    blocks = [level * make_music(2, 8 * model.info.hop_samples) for level in (1.0, 1e-20, 1e-38, 1e-42)]
    best = []
    for block in blocks:
        stream = Stream(model, 2, model.info.sample_rate, 0)
        times = []
        for _ in range(8):
            started = time.thread_time()
            stream.process(block.astype(np.float32))
            times.append(time.thread_time() - started)
        best.append(min(times))
    assert max(best[1:]) < 2 * best[0]
