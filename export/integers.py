"""Large convolutions and matrix products in 8 bits, weights and activations: what integer dot products are fast at.

The range of an activation must be known beforehand, so that no frame depends on the loudness of another; it is
measured on music made by code. ONNX Runtime joins the nodes around a layer (QuantizeLinear, DequantizeLinear) with
it. Its sums are exact, so they depend neither on how many frames a call has nor on the order of addition; a rounding
that did would turn the last bit of a float into a step. Weights have 7 of the 8 bits: processors without integer dot
products add two products in 16 bits, which must not overflow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from restorer.transform import Float32

SMALLEST = 1 << 15  # weights of a layer worth it; what sees the finest differences is smaller
_WEIGHT_STEPS = 63
_STEPS = 255
_FRAMES_PER_CALL = 64
_BINS = 2048  # of the histograms that ranges are chosen by


@dataclass(frozen=True)
class Range:
    """Of an activation; zero lies within."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Of one step of 255."""
        return max(self.high - self.low, 1e-6) / _STEPS

    @property
    def zero_point(self) -> int:
        """The step that stands for zero."""
        return int(np.clip(round(-self.low / self.scale), 0, _STEPS))


def large_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions and matrix products with at least `SMALLEST` constant weights."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in ("Conv", "MatMul")
        and all(name in weights for name in node.input[1:])
        and np.prod(weights[node.input[1]].dims) >= SMALLEST
    ]


def measure_ranges(model: onnx.ModelProto, excerpts: Iterable[Float32], noise_size: int) -> dict[str, Range]:
    """Ranges of what goes into large layers and of what comes out of convolutions, by name of the value.

    `excerpts` are frames of coded music, each (1, 2, frames, bins); each gets a noise vector of its own.
    """
    import onnxruntime

    layers = large_layers(model)
    names = {node.input[0] for node in layers} | {node.output[0] for node in layers if node.op_type == "Conv"}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    states = {
        node.name: np.zeros([1, *node.shape[1:]], np.float32)
        for node in session.get_inputs()
        if node.name.startswith("state_")
    }
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in sorted(names)}
    rng = np.random.default_rng(1)
    for frames in excerpts:
        feed = {**states}
        if noise_size:
            feed["z"] = rng.standard_normal((1, noise_size)).astype(np.float32)
        for start in range(0, frames.shape[2], _FRAMES_PER_CALL):
            feed["frames"] = frames[:, :, start : start + _FRAMES_PER_CALL]
            results = session.run([*values, *(f"next_{name}" for name in states)], feed)
            feed.update(zip(states, results[len(values) :], strict=True))
            for name, value in zip(values, results, strict=False):
                values[name].append(value.ravel())
    return {name: choose_range(np.concatenate(parts)) for name, parts in values.items()}


def choose_range(values: NDArray[np.float32]) -> Range:
    """The range whose rounding and clipping together cost the least power, found by narrowing that of all values."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    counts, edges = np.histogram(values, _BINS, (low, max(high, low + 1e-6)))
    centres = (edges[1:] + edges[:-1]) / 2
    candidates = [Range(low * part, high * part) for part in np.geomspace(0.1, 1.0, 60)]
    return min(candidates, key=lambda found: _cost(found, counts, centres))


def _cost(found: Range, counts: NDArray[np.int64], centres: NDArray[np.float64]) -> float:
    clipped = centres - np.clip(centres, found.low, found.high)
    return float((counts * (clipped**2 + (clipped == 0) * found.scale**2 / 12)).sum())


def quantise(model: onnx.ModelProto, ranges: dict[str, Range]) -> onnx.ModelProto:
    """The same graph with large layers in 8 bits, a scale for the weights of each output.

    A state that such a convolution alone reads is kept in 8 bits too: a quarter of what streams copy from call to call.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    nodes: list[onnx.NodeProto] = []
    large = {node.name: node for node in large_layers(model)}
    joined = _joined_states(graph, large)
    for node in graph.node:
        if node.name in large:
            nodes += _in_integers(graph, node, ranges, node.input[0] in joined)
        elif node.op_type == "Concat" and node.output[0] in joined:
            nodes += _joined_in_integers(graph, node, ranges[node.output[0]])
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        if value.name in {name for names in joined.values() for name in names}:
            value.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    kept = [value for value in graph.value_info if value.name not in joined]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return quantised


def _joined_states(graph: onnx.GraphProto, large: dict[str, onnx.NodeProto]) -> dict[str, tuple[str, str]]:
    """For each input of the layers `large` that is a state with frames behind it: that state and the next one.

    Only where no other node reads what is joined, but to cut the next state from it.
    """
    taken = {node.input[0] for node in large.values()}
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    found = {}
    for node in graph.node:
        if node.op_type != "Concat" or node.output[0] not in taken or node.input[0] not in inputs:
            continue
        others = [user for user in graph.node if node.output[0] in user.input and user.name not in large]
        if len(others) == 1 and others[0].op_type == "Slice" and others[0].output[0] in outputs:
            found[node.output[0]] = (node.input[0], others[0].output[0])
    return found


def _joined_in_integers(graph: onnx.GraphProto, node: onnx.NodeProto, found: Range) -> list[onnx.NodeProto]:
    """A state and the frames behind it, of which only those are to be rounded: the state is already."""
    steps = f"{node.name}.scales", f"{node.name}.zeros"
    _add_constants(graph, dict(zip(steps, (np.float32(found.scale), np.uint8(found.zero_point)), strict=True)))
    rounded = f"{node.name}.x"
    join = onnx.NodeProto()
    join.CopyFrom(node)
    join.input[1] = rounded
    return [helper.make_node("QuantizeLinear", [node.input[1], *steps], [rounded], name=rounded), join]


def _in_integers(
    graph: onnx.GraphProto, node: onnx.NodeProto, ranges: dict[str, Range], rounded: bool
) -> list[onnx.NodeProto]:
    """A layer between roundings, products with none behind; `rounded` says that what goes in has been already."""
    weight, *bias = (next(tensor for tensor in graph.initializer if tensor.name == name) for name in node.input[1:])
    taken, given = ranges[node.input[0]], ranges.get(node.output[0])
    numbers = numpy_helper.to_array(weight)
    axis = 0 if node.op_type == "Conv" else 1  # of the outputs among the weights'
    others = tuple(other for other in range(numbers.ndim) if other != axis)
    sizes = np.abs(numbers).max(axis=others)
    scales = np.where(sizes > 0, sizes / _WEIGHT_STEPS, 1).astype(np.float32)
    bias_scales = scales * np.float32(taken.scale)
    name, zeros = node.name, np.zeros(len(scales))
    constants = {
        "w": np.rint(numbers / np.expand_dims(scales, others)).astype(np.int8),
        "w.scales": scales,
        "w.zeros": zeros.astype(np.int8),
        "x.scales": np.float32(taken.scale),
        "x.zeros": np.uint8(taken.zero_point),
    }
    if given:
        constants |= {"y.scales": np.float32(given.scale), "y.zeros": np.uint8(given.zero_point)}
    if bias:
        numbers = numpy_helper.to_array(bias[0]).astype(np.float64)
        codes = np.rint(numbers / bias_scales).astype(np.int32)
        constants |= {"b": codes, "b.scales": bias_scales, "b.zeros": zeros.astype(np.int32)}
    for tensor in (weight, *bias):
        graph.initializer.remove(tensor)
    _add_constants(graph, {f"{name}.{key}": value for key, value in constants.items()})

    def convert(kind: str, source: str, target: str, end: str, **settings: int) -> onnx.NodeProto:
        inputs = [source, f"{name}.{end}.scales", f"{name}.{end}.zeros"]
        return helper.make_node(kind, inputs, [target], name=f"{name}.{kind}.{end}", **settings)

    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    inner.input[:] = [f"{name}.x.float", f"{name}.w.float", *([f"{name}.b.float"] if bias else [])]
    if given:
        inner.output[:] = [f"{name}.y.float"]
    source = node.input[0] if rounded else f"{name}.x"
    first = [] if rounded else [convert("QuantizeLinear", node.input[0], source, "x")]
    behind = []
    if given:
        behind.append(convert("QuantizeLinear", f"{name}.y.float", f"{name}.y", "y"))
        behind.append(convert("DequantizeLinear", f"{name}.y", node.output[0], "y"))
    return [
        *first,
        convert("DequantizeLinear", source, f"{name}.x.float", "x"),
        convert("DequantizeLinear", f"{name}.w", f"{name}.w.float", "w", axis=axis),
        *([convert("DequantizeLinear", f"{name}.b", f"{name}.b.float", "b", axis=0)] if bias else []),
        inner,
        *behind,
    ]


def _add_constants(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
