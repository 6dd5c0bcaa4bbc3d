"""Loading: a good file says what it is, and every bad one is refused in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from toy_model import RELEASED, Graph, metadata, save_convolution, save_identity

from restorer.errors import ConfigError, DeviceError, ModelError, RestorerError
from restorer.model_file import Model, ModelInfo, RuntimeMissingError


def refused(path: Path | str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        Model(path, "cpu", 1)
    assert "\n" not in str(raised.value)


def test_everything_is_read_from_the_file(tmp_path: Path) -> None:
    path = save_convolution(tmp_path / "a.onnx", 600, 130, name="mine", sample_rate=32000, trained_kbps=[16, 48.5])
    model = Model(path, "cpu", 1)
    assert model.info.name == "mine"
    assert model.info.trained_kbps == (16, 48.5)
    assert (model.info.window_samples, model.info.hop_samples, model.info.bins) == (600, 130, 301)
    assert model.info.latency_samples == 600 - 1 + 3 * 130
    assert tuple(state.shape for state in model.states) == ((2, 2, 301), (4, 4, 301), (2, 3, 301))
    assert model.device == "cpu"


def test_states_are_explicit(tmp_path: Path) -> None:
    model = Model(save_convolution(tmp_path / "a.onnx", 64, 16), "cpu", 1)
    frames = np.random.default_rng(0).standard_normal((2, 2, 9, 33)).astype(np.float32)
    z = np.zeros((2, 5), np.float32)
    whole, _ = model.run(frames, z, model.zero_states(2))
    states, pieces = model.zero_states(2), []
    for start, end in [(0, 1), (1, 4), (4, 9)]:
        before = [state.copy() for state in states]
        piece, after = model.run(frames[:, :, start:end], z, states)
        for old, kept in zip(before, states, strict=True):
            np.testing.assert_array_equal(old, kept)
        states = after
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, axis=2), whole, atol=1e-6)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "does not exist")
    refused(tmp_path, "is no file")
    (tmp_path / "noise.onnx").write_bytes(b"RIFF not a model" * 100)
    refused(tmp_path / "noise.onnx", "no readable ONNX model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused(tmp_path / "empty.onnx", "no readable ONNX model")
    good = save_convolution(tmp_path / "good.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(good[: len(good) // 2])
    refused(tmp_path / "cut.onnx", "cut.onnx")


@pytest.mark.skipif(RELEASED.is_file(), reason="the released model is there")
def test_missing_bundled_model_says_so() -> None:
    refused(None, "bundled model")


def test_foreign_model(tmp_path: Path) -> None:
    graph = Graph(33)
    graph.add("Identity", "frames", to="restored")
    refused(graph.save(tmp_path / "foreign.onnx", None), "not one that restorer's export made")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2 .* pip install --upgrade"),
        ({"format_version": 0}, "format_version"),
        ({"format_version": "1"}, "format_version"),
        ({"sample_rate": "44100"}, "sample_rate must be of type int"),
        ({"hop_samples": 0}, "hop_samples must be at least 1"),
        ({"hop_samples": 1500}, "at least twice hop_samples"),
        ({"latency_samples": 5}, "latency_samples is 5 and must be 3583"),
        ({"warmup_frames": -1}, "warmup_frames"),
        ({"metrics": None}, "metrics"),
        ({"noise_size": 4}, "misses the input z"),
    ],
)
def test_contradicting_metadata(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(save_identity(tmp_path / "bad.onnx", **changes), message)


def test_metadata_that_is_no_object_or_incomplete() -> None:
    for text, message in [("{", "no JSON"), ("[1]", "JSON object"), ('{"format_version": 1}', "misses name")]:
        with pytest.raises(ModelError, match=message):
            ModelInfo.from_json(text, "file.onnx")


def test_graphs_that_break_the_contract(tmp_path: Path) -> None:
    extra = Graph(1025)
    extra.add("Identity", "frames", to="restored")
    extra.remember(1, "frames", 2, 3, 1025)
    refused(extra.save(tmp_path / "a.onnx", metadata(lookahead=0)), "misses the input state_0")

    unknown = Graph(1025)
    unknown.add("Identity", "frames", to="restored")
    unknown.outputs.append(unknown.outputs[0].__class__())
    unknown.outputs[-1].CopyFrom(unknown.outputs[0])
    unknown.outputs[-1].name = "other"
    unknown.add("Identity", "frames", to="other")
    refused(unknown.save(tmp_path / "b.onnx", metadata(lookahead=0)), "unknown output other")

    refused(
        save_identity(tmp_path / "c.onnx", window=1024, hop=256, window_samples=2048),
        "frames has shape|must be",
    )

    # The state grows from call to call: only running the graph shows it.
    growing = Graph(1025)
    growing.add("Identity", "frames", to="restored")
    growing.remember(0, "frames", 2, 3, 1025)
    growing.nodes = growing.nodes[:1]
    growing.add("Concat", "state_0", "frames", to="next_state_0", axis=2)
    growing.outputs[-1].type.tensor_type.shape.dim[2].dim_param = "open"
    refused(growing.save(tmp_path / "d.onnx", metadata(lookahead=0)), "next_state_0 has shape")


def test_impossible_settings_are_named(tmp_path: Path) -> None:
    path = save_identity(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda and not 'tpu'"):
        Model(path, "tpu", None)
    for threads in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="threads"):
            Model(path, "cpu", threads)  # type: ignore[arg-type]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this runtime has CUDA")
def test_cuda_without_cuda(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = save_identity(tmp_path / "a.onnx")
    assert Model(path, "auto", None).device == "cpu"
    with pytest.raises(DeviceError, match="'cuda' does not work here"):
        Model(path, "cuda", None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_falls_back_silently_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What onnxruntime-gpu does without a GPU: the provider is listed and the session runs on the CPU all
    # the same.
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    path = save_identity(tmp_path / "a.onnx")
    assert Model(path, "auto", 1).device == "cpu"
    with pytest.raises(DeviceError, match="'cuda' does not work here"):
        Model(path, "cuda", 1)


def test_without_the_runtime_the_error_names_both_commands() -> None:
    code = """
import sys
sys.modules["onnxruntime"] = None
import restorer
from restorer.errors import RestorerError
try:
    from restorer import Restorer
except ImportError as error:
    assert isinstance(error, RestorerError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "restorer[cpu]"' in done.stdout and 'pip install "restorer[gpu]"' in done.stdout
    assert done.stdout.count("\n") == 1
    assert issubclass(RuntimeMissingError, RestorerError)
