"""Large convolutions and matrix products in 8 bits, weights and activations: what integer dot products are fast at.

The range of an activation must be known beforehand, so that no frame depends on the loudness of another; it is
measured on music made by code. ONNX Runtime joins the nodes around a layer (QuantizeLinear, DequantizeLinear) with
it. Its sums are exact, so they depend neither on how many frames a call has nor on the order of addition; a rounding
that did would turn the last bit of a float into a step. Weights have 7 of the 8 bits: processors without integer dot
products add two products in 16 bits, which must not overflow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from restorer.transform import Float32

# Weights of a layer worth it. What sees the finest differences is smaller; a product before the stack that is, costs
# more waveform than time (EXPERIMENTS.md, 49).
SMALLEST = {"Conv": 1 << 12, "MatMul": 1 << 14}
LARGE = {"Conv": 1 << 14, "MatMul": 1 << 14}  # where those cost too much
# Parts of weights' names: frames span more than 8 bits; a small error in what a restraint judges could change all.
SPARED = (".front.", ".restraint.")
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


NOISE = Range(-4.5, 4.5)  # of z: of 150,000 numbers one lies beyond


def large_layers(model: onnx.ModelProto, smallest: Mapping[str, int] | None = None) -> list[onnx.NodeProto]:
    """Convolutions and matrix products with at least so many constant weights; `SMALLEST` if it is not said."""
    smallest = SMALLEST if smallest is None else smallest
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in smallest
        and all(name in weights for name in node.input[1:])
        and np.prod(weights[node.input[1]].dims) >= smallest[node.op_type]
        and weights[node.input[1]].dims[1] > 1  # sums over one map have nothing to learn, and see the finest
        and not any(part in node.input[1] for part in SPARED)
    ]


def measure_ranges(
    model: onnx.ModelProto, excerpts: Iterable[Float32], noise_size: int, smallest: Mapping[str, int] | None = None
) -> dict[str, Range]:
    """Ranges of what goes into large layers and delays, and of what comes out of convolutions, by name of the value.

    `excerpts` are frames of coded music, each (1, 2, frames, bins); each gets a noise vector of its own.
    """
    import onnxruntime

    layers = large_layers(model, smallest)
    names = {node.input[0] for node in layers} | {node.output[0] for node in layers if node.op_type == "Conv"}
    names |= _delayed(model.graph) if layers else set()
    noise = {node.output[0] for node in model.graph.node if "z" in node.input}
    names -= noise
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
    return dict.fromkeys(noise, NOISE) | {name: choose_range(np.concatenate(parts)) for name, parts in values.items()}


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


def quantise(
    model: onnx.ModelProto, ranges: dict[str, Range], smallest: Mapping[str, int] | None = None
) -> onnx.ModelProto:
    """The same graph with large layers in 8 bits, a scale for the weights of each output.

    A state that is joined with what such a layer reads, or with what waits for it, is kept in 8 bits too: a quarter of
    what streams copy from call to call. What is transposed before a layer is rounded before that.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    large = {node.name: node for node in large_layers(model, smallest)}
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    taken = {node.input[0]: ranges[node.input[0]] for node in large.values()}
    rounded = {turned.get(name, name): found for name, found in taken.items()}
    rounded |= {name: ranges[name] for name in _delayed(graph) & ranges.keys()}
    readers = {node.name for node in graph.node if node.name in large or node.output[0] in taken.keys() & turned.keys()}
    joined = _joined_states(graph, rounded, readers)
    states = {value.name: value for value in (*graph.input, *graph.output)}
    nodes: list[onnx.NodeProto] = []
    codes: dict[str, str] = {}  # names in 8 bits

    def convert(kind: str, source: str, target: str, found: Range) -> None:
        constants = {"scales": np.float32(found.scale), "zeros": np.uint8(found.zero_point)}
        nodes.append(_convert(graph, kind, source, target, constants))

    def encode(name: str, found: Range) -> str:
        if name not in codes:
            codes[name] = f"{name}.codes"
            convert("QuantizeLinear", name, codes[name], found)
        return codes[name]

    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        source, target = next(iter(node.input), ""), node.output[0]
        if node.name in large:
            found = taken[source]
            node.input[0] = f"{node.name}.x"
            convert("DequantizeLinear", encode(source, found), node.input[0], found)
            nodes += _in_integers(graph, node, found, ranges.get(target))
        elif target in joined:
            node.input[1] = encode(node.input[1], joined[target])
            codes[target] = target
            states[source].type.tensor_type.elem_type = onnx.TensorProto.UINT8
            nodes.append(node)
        elif source in joined and target in states:
            states[target].type.tensor_type.elem_type = onnx.TensorProto.UINT8
            nodes.append(node)
        elif source in joined and node.op_type == "Slice":
            node.output[0] = f"{target}.codes"
            nodes.append(node)
            convert("DequantizeLinear", node.output[0], target, joined[source])
        elif target in taken and target in turned:
            node.input[0] = encode(source, taken[target])
            node.output[0] = codes[target] = f"{target}.codes"
            nodes.append(node)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [value for value in graph.value_info if value.name not in joined]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return quantised


def _joined_states(graph: onnx.GraphProto, rounded: dict[str, Range], readers: set[str]) -> dict[str, Range]:
    """What is a state with frames behind it, of which one of the two is rounded for a layer, and how.

    Only where nothing reads it but the nodes `readers` and those that cut from it.
    """
    inputs = {value.name for value in graph.input}
    found = {}
    for node in graph.node:
        if node.op_type != "Concat" or node.input[0] not in inputs:
            continue
        steps = rounded.get(node.output[0]) or rounded.get(node.input[1])
        users = [user for user in graph.node if node.output[0] in user.input]
        if steps and all(user.op_type == "Slice" or user.name in readers for user in users):
            found[node.output[0]] = steps
    return found


def _delayed(graph: onnx.GraphProto) -> set[str]:
    """What does nothing but wait in a state: of the two parts cut from both, one is the next state. No input does."""
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    found = set()
    for node in graph.node:
        if node.op_type != "Concat" or node.input[0] not in inputs or node.input[1] in inputs:
            continue
        users = [user for user in graph.node if node.output[0] in user.input]
        kinds = [(user.op_type, user.output[0] in outputs) for user in users]
        if sorted(kinds) == [("Slice", False), ("Slice", True)]:
            found.add(node.input[1])
    return found


def _convert(
    graph: onnx.GraphProto, kind: str, source: str, target: str, steps: dict[str, NDArray[Any]], **settings: int
) -> onnx.NodeProto:
    """A node that rounds or gives numbers back; its constants are new in the graph."""
    _add_constants(graph, {f"{target}.{kind}.{key}": value for key, value in steps.items()})
    inputs = [source, *(f"{target}.{kind}.{key}" for key in steps)]
    return helper.make_node(kind, inputs, [target], name=f"{target}.{kind}", **settings)


def _in_integers(
    graph: onnx.GraphProto, node: onnx.NodeProto, taken: Range, given: Range | None
) -> list[onnx.NodeProto]:
    """A layer whose input has been rounded, and the rounding of its output if there is a range for it."""
    weight, *bias = (next(tensor for tensor in graph.initializer if tensor.name == name) for name in node.input[1:])
    numbers = numpy_helper.to_array(weight)
    axis = 0 if node.op_type == "Conv" else 1  # of the outputs among the weights'
    others = tuple(other for other in range(numbers.ndim) if other != axis)
    sizes = np.abs(numbers).max(axis=others)
    scales = np.where(sizes > 0, sizes / _WEIGHT_STEPS, 1).astype(np.float32)
    name = node.name
    constants = {f"{name}.w": np.rint(numbers / np.expand_dims(scales, others)).astype(np.int8)}
    steps = {"scales": scales, "zeros": np.zeros(len(scales), np.int8)}
    before = [_convert(graph, "DequantizeLinear", f"{name}.w", f"{name}.w.float", steps, axis=axis)]
    if bias:
        scales = scales * np.float32(taken.scale)
        constants[f"{name}.b"] = np.rint(numpy_helper.to_array(bias[0]).astype(np.float64) / scales).astype(np.int32)
        steps = {"scales": scales, "zeros": np.zeros(len(scales), np.int32)}
        before.append(_convert(graph, "DequantizeLinear", f"{name}.b", f"{name}.b.float", steps, axis=0))
    for tensor in (weight, *bias):
        graph.initializer.remove(tensor)
    _add_constants(graph, constants)
    node.input[1:] = [f"{name}.w.float", *([f"{name}.b.float"] if bias else [])]
    behind = []
    if given:
        target, node.output[0] = node.output[0], f"{name}.y"
        steps = {"scales": np.float32(given.scale), "zeros": np.uint8(given.zero_point)}
        behind.append(_convert(graph, "QuantizeLinear", node.output[0], f"{name}.y.codes", steps))
        behind.append(_convert(graph, "DequantizeLinear", f"{name}.y.codes", target, steps))
    return [*before, node, *behind]


def _add_constants(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
