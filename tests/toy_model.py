"""Small ONNX models that keep the graph contract, so that streaming can be tested without trained weights."""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from restorer import Restorer

_CHANNELS = 4


def metadata(window: int = 2048, hop: int = 512, lookahead: int = 3, **changes: Any) -> dict[str, Any]:
    """A complete metadata object; `changes` replaces single values."""
    values: dict[str, Any] = {
        "format_version": 1,
        "name": "toy",
        "version": "0",
        "config": {"kind": "toy"},
        "sample_rate": 44100,
        "window_samples": window,
        "hop_samples": hop,
        "lookahead_frames": lookahead,
        "latency_samples": window - 1 + lookahead * hop,
        "noise_size": 0,
        "warmup_frames": 0,
        "trained_kbps": [32],
        "training_data": ["none"],
        "licence": "CC0-1.0",
        "metrics": {},
    }
    return {**values, **changes}


class Graph:
    """Collects the nodes of one graph."""

    def __init__(self, bins: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs = [_value("frames", ["batch", 2, "time", bins])]
        self.outputs = [_value("restored", ["batch", 2, "time", bins])]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        name = to or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def slice_time(self, value: str, start: int, end: int, to: str | None = None) -> str:
        start_end_axis = [self.constant([number], np.int64) for number in (start, end, 2)]
        return self.add("Slice", value, *start_end_axis, to=to)

    def remember(self, index: int, value: str, channels: int, frames: int, bins: int) -> str:
        """`value` behind its last `frames` frames, kept in state `index`."""
        self.inputs.append(_value(f"state_{index}", ["batch", channels, frames, bins]))
        self.outputs.append(_value(f"next_state_{index}", ["batch", channels, frames, bins]))
        longer = self.add("Concat", f"state_{index}", value, axis=2)
        self.slice_time(longer, -frames, 2**31, to=f"next_state_{index}")
        return longer

    def save(self, path: Path, info: dict[str, Any] | None) -> Path:
        graph = helper.make_graph(self.nodes, "toy", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        if info is not None:
            helper.set_model_props(model, {"restorer": json.dumps(info)})
        onnx.save(model, str(path))
        return path


def save_identity(path: Path, window: int = 2048, hop: int = 512, lookahead: int = 3, **changes: Any) -> Path:
    """A model that gives every frame back, `lookahead` frames later."""
    bins = window // 2 + 1
    graph = Graph(bins)
    if lookahead:
        longer = graph.remember(0, "frames", 2, lookahead, bins)
        graph.slice_time(longer, 0, -lookahead, to="restored")
    else:
        graph.add("Identity", "frames", to="restored")
    return graph.save(path, metadata(window, hop, lookahead, **changes))


def save_convolution(path: Path, window: int = 2048, hop: int = 512, **changes: Any) -> Path:
    """A small generator: two dilated convolutions in time, noise, a tanh mask, an added part; lookahead 3."""
    bins, lookahead, noise_size = window // 2 + 1, 3, 5
    random = np.random.default_rng(1)
    graph = Graph(bins)
    graph.inputs.append(_value("z", ["batch", noise_size]))

    def convolution(index: int, value: str, inputs: int, dilation: int, outputs: int) -> str:
        longer = graph.remember(index, value, inputs, 2 * dilation, bins)
        weights = graph.constant(0.3 * random.standard_normal((outputs, inputs, 3, 3)))
        bias = graph.constant(0.1 * random.standard_normal(outputs))
        return graph.add("Conv", longer, weights, bias, dilations=[dilation, 1], pads=[0, 1, 0, 1], kernel_shape=[3, 3])

    value = graph.add("LeakyRelu", convolution(0, "frames", 2, 1, _CHANNELS), alpha=0.2)
    noise = graph.add("MatMul", "z", graph.constant(0.3 * random.standard_normal((noise_size, _CHANNELS))))
    noise = graph.add("Unsqueeze", noise, graph.constant([2, 3], np.int64))
    value = graph.add("Tanh", graph.add("Add", value, noise))
    value = convolution(1, value, _CHANNELS, 2, 4)
    mask, added = (
        graph.add("Slice", value, *(graph.constant([number], np.int64) for number in (start, start + 2, 1)))
        for start in (0, 2)
    )
    delayed = graph.slice_time(graph.remember(2, "frames", 2, lookahead, bins), 0, -lookahead)
    gain = graph.add("Add", graph.add("Tanh", mask), graph.constant(1.0))
    small = graph.add("Mul", graph.add("Tanh", added), graph.constant(0.05))
    graph.add("Add", graph.add("Mul", delayed, gain), small, to="restored")
    values = {"noise_size": noise_size, "warmup_frames": 6, **changes}
    return graph.save(path, metadata(window, hop, lookahead, **values))


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


RELEASED = Path(str(importlib.resources.files("restorer") / "weights" / "compact.onnx"))
MODELS = [
    "identity",
    "convolution",
    "small_window",
    pytest.param("released", marks=pytest.mark.skipif(not RELEASED.is_file(), reason="no released model yet")),
]


def make_model(kind: str, folder: Path) -> Path:
    """The file of one of `MODELS`."""
    if kind == "released":
        return RELEASED
    path = folder / f"{kind}.onnx"
    if kind == "identity":
        return save_identity(path)
    if kind == "convolution":
        return save_convolution(path)
    # A hop that divides nothing, and another sample rate: both come from the file.
    return save_convolution(path, window=600, hop=130, sample_rate=32000)


def toy_or_released(which: str, folder: Path, threads: int) -> Restorer:
    """A `Restorer` on a toy in this folder, or for "bundled" on the released model with so many threads."""
    if which == "toy":
        return Restorer(save_convolution(folder / "toy.onnx", window=512, hop=128), device="cpu", threads=1)
    if not RELEASED.is_file():
        pytest.skip("no released model yet")
    return Restorer(device="cpu", threads=threads)


def make_music(channels: int = 2, samples: int = 20000, sample_rate: int = 44100, seed: int = 0) -> np.ndarray:
    """Harmonics with vibrato, noise bursts and hiss up to the top, ``(channels, samples)`` float32."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / sample_rate
    audio = 0.02 * random.standard_normal((channels, samples))
    for channel in range(channels):
        for harmonic in range(1, 9):
            pitch = 220.0 * (1 + 0.26 * channel) * harmonic
            audio[channel] += 0.15 / harmonic * np.sin(2 * np.pi * pitch * time + 0.3 * np.sin(30 * time))
    hits = np.exp(-40.0 * (time % 0.12)) * random.standard_normal(samples) * 0.2
    return (audio + hits).astype(np.float32)
