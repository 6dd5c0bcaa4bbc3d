"""CUDA gives what the CPU gives, wherever there is a GPU; elsewhere these tests are skipped, but for the first."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from toy_model import RELEASED, make_music, save_convolution, save_identity

from restorer import Restorer
from restorer.model_file import Model

TOLERANCE = 1e-3  # of full scale
# An activation in 8 bits that lies between two steps may fall on either side: sums of floats are no sums of integers.
# Measured on an H200 with `compact`: at most 4e-4 on music, 5e-3 on full-scale noise, there 4e-4 in the mean.
STEP, MEAN = 1e-2, 1e-3
RATE = 44100
CHECKPOINTS = Path(__file__).parents[1] / "training" / "checkpoints"


def test_cuda_is_asked_for_full_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    opened = onnxruntime.InferenceSession

    def record(data: bytes, options: Any, providers: list[Any]) -> Any:
        asked.append(providers[0])
        if isinstance(providers[0], tuple):
            raise RuntimeError("no GPU")
        return opened(data, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert Model(save_identity(tmp_path / "a.onnx"), "auto", 1).device == "cpu"
    (name, options), fallback = asked
    assert (name, fallback) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "0"


@pytest.fixture(scope="module", params=["toy", "compact", "live", "compact in float", "live in float"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Restorer, Restorer]:
    """The same model on CUDA and on the CPU: a toy, those that are shipped, partly in 8 bits, and these in float."""
    if Restorer(device="auto").device != "cuda":
        pytest.skip("no GPU that ONNX Runtime can use")
    name, _, in_float = request.param.partition(" ")
    file = RELEASED.with_name(f"{name}.onnx")
    if name == "toy":
        file = save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")
    elif in_float:
        file = tmp_path_factory.mktemp("model") / f"{name}.onnx"
        export(CHECKPOINTS / f"{name}.safetensors", file)
    elif not file.is_file():
        pytest.skip("no released model yet")
    return Restorer(file, device="cuda"), Restorer(file, device="cpu")


def export(checkpoint: Path, target: Path) -> None:
    pytest.importorskip("torch")
    if not checkpoint.is_file():
        pytest.skip("no released checkpoint")
    from restorer.export.convert import export_checkpoint

    export_checkpoint(checkpoint, target, {})


def assert_close(pair: tuple[Restorer, Restorer], gpu: np.ndarray, cpu: np.ndarray) -> None:
    """Within the tolerance; a model whose states are in 8 bits may be a step off now and then."""
    if all(state.dtype == "float32" for state in pair[1]._model.states):
        np.testing.assert_allclose(gpu, cpu, rtol=0, atol=TOLERANCE)
    else:
        difference = np.abs(gpu - cpu)
        assert difference.max() < STEP
        assert np.sqrt(np.square(difference).mean()) < MEAN


def test_whole_signals_and_takes(pair: tuple[Restorer, Restorer]) -> None:
    audio = make_music(2, 3 * RATE)
    n = 3 if pair[0].model_info.noise_size else 1
    for gpu, cpu in zip(*(restorer.candidates(audio, RATE, n=n) for restorer in pair), strict=True):
        assert_close(pair, gpu, cpu)


def test_a_stream_whose_states_stay_on_the_device(pair: tuple[Restorer, Restorer]) -> None:
    audio = make_music(2, 2 * RATE, 48000)
    outs = []
    for restorer in pair:
        stream = restorer.stream(2, 48000, seed=3)
        stream.process(make_music(2, 5000, 48000, seed=9))
        stream.reset()
        pieces = [stream.process(audio[:, start : start + 480]) for start in range(0, audio.shape[1], 480)]
        outs.append(np.concatenate([*pieces, stream.flush()], axis=1))
    assert_close(pair, *outs)


def test_many_streams_in_one_batch(pair: tuple[Restorer, Restorer]) -> None:
    signals = [make_music(2, RATE, seed=seed) for seed in range(5)]
    outs = []
    for restorer in pair:
        streams = restorer.streams(5, seeds=range(5))
        pieces = [
            streams.process([signal[:, start : start + 512] for signal in signals]) for start in range(0, RATE, 512)
        ]
        pieces.append(streams.flush())
        outs.append([np.concatenate(parts, axis=1) for parts in zip(*pieces, strict=True)])
    for gpu, cpu in zip(*outs, strict=True):
        assert_close(pair, gpu, cpu)
