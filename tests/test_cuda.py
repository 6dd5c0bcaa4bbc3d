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
RATE = 44100


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


@pytest.fixture(scope="module", params=["float", "compact", "live"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Restorer, Restorer]:
    """The same model on CUDA and on the CPU: a toy in float, and those that are shipped, partly in 8 bits."""
    file = RELEASED.with_name(f"{request.param}.onnx")
    if request.param == "float":
        file = save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")
    elif not file.is_file():
        pytest.skip("no released model yet")
    gpu = Restorer(file, device="auto")
    if gpu.device != "cuda":
        pytest.skip("no GPU that ONNX Runtime can use")
    return gpu, Restorer(file, device="cpu")


def test_whole_signals_and_takes(pair: tuple[Restorer, Restorer]) -> None:
    audio = make_music(2, 3 * RATE)
    for gpu, cpu in zip(*(restorer.candidates(audio, RATE, n=3) for restorer in pair), strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=0, atol=TOLERANCE)


def test_a_stream_whose_states_stay_on_the_device(pair: tuple[Restorer, Restorer]) -> None:
    audio = make_music(2, 2 * RATE, 48000)
    outs = []
    for restorer in pair:
        stream = restorer.stream(2, 48000, seed=3)
        stream.process(make_music(2, 5000, 48000, seed=9))
        stream.reset()
        pieces = [stream.process(audio[:, start : start + 480]) for start in range(0, audio.shape[1], 480)]
        outs.append(np.concatenate([*pieces, stream.flush()], axis=1))
    np.testing.assert_allclose(*outs, rtol=0, atol=TOLERANCE)


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
        np.testing.assert_allclose(gpu, cpu, rtol=0, atol=TOLERANCE)
