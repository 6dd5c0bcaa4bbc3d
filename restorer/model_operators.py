"""Which operators a model may have, and how large what it knows before any input may become.

ONNX Runtime works out whatever follows from constants while it loads a model, before anything can be asked of it:
a file of some hundred bytes could have it fill gigabytes. So only the operators of this project's generators pass,
and those on constants alone only as far as the size of their results is plain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from restorer.errors import ModelError

# Results no larger than the first input.
_SHRINKING = (
    *("Abs", "Cast", "CastLike", "Clip", "Erf", "Exp", "Identity", "LeakyRelu", "Log", "Neg", "Reciprocal"),
    *("ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt"),
    *("Squeeze", "Tanh", "Transpose", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"),
)
_BROADCAST = ("Add", "Div", "Greater", "Less", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Where")
# Only on what depends on an input of the model.
_LAYERS = ("AveragePool", "Conv", "ConvTranspose", "Expand", "Gemm", "MatMul", "Pad")
_STANDARD = frozenset((*_SHRINKING, *_BROADCAST, *_LAYERS, "Concat", "Constant", "Gather", "Shape"))
# Domain -> operators; the first two are names of the same one.
OPERATORS: dict[str, frozenset[str]] = {
    "": _STANDARD,
    "ai.onnx": _STANDARD,
    "com.microsoft": frozenset(("MatMulNBits",)),
}
_MOST_NUMBERS = 1 << 16  # that constants may grow to; in exports they are shapes, of four
_MOST_DIMS = 16


class Size(NamedTuple):
    """The most numbers, and the most axes, that a value may have."""

    numbers: int
    dims: int


@dataclass(frozen=True)
class Node:
    """One operation of a graph; `constant` is the size of the tensors in its attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[str, int]
    constant: Size


class Sizes:
    """Follows the nodes of a graph in their order, and refuses what would grow before the graph runs.

    Parameters
    ----------
    source : what the file is called in messages.
    inputs : names of the graph's inputs.
    constants : its weights by name.
    """

    def __init__(self, source: str, inputs: Iterable[str], constants: dict[str, Size]) -> None:
        self._source = source
        self._known: dict[str, Size | None] = {**dict.fromkeys(inputs), **constants}  # None: depends on an input

    def follow(self, node: Node) -> None:
        """Take in the next node.

        Raises
        ------
        ModelError : it uses what no node before it made, or makes something large of constants.
        """
        names = [name for name in node.inputs if name]
        for name in names:
            if name not in self._known:
                raise ModelError(f"{self._source}: uses {name[:60]!r} before it is made; export the model again")
        inputs = [self._known[name] for name in names]
        sizes = [size for size in inputs if size is not None]
        size = None
        if len(sizes) == len(inputs) or node.operator == "Shape":
            size = _size(node, sizes)
            if size is None or size.numbers > max(_MOST_NUMBERS, *(size.numbers for size in sizes), 0):
                raise ModelError(
                    f"{self._source}: would make more than {_MOST_NUMBERS} numbers of constants alone "
                    f"({node.operator}) before it runs; export the model again"
                )
        self._known.update(dict.fromkeys(node.outputs, size))


def _size(node: Node, inputs: list[Size]) -> Size | None:
    """The largest that the result of a node on constants can be; None where nothing bounds it."""
    if node.operator == "Constant":
        return node.constant
    if node.operator == "Shape":
        first, end = node.settings.get("start", 0), node.settings.get("end", _MOST_DIMS)
        return Size(end - first if 0 <= first <= end <= _MOST_DIMS else _MOST_DIMS, 1)
    if not inputs:
        return None
    most, dims = max(size.numbers for size in inputs), max(size.dims for size in inputs)
    product = 1
    for size in inputs:
        product *= max(1, size.numbers)
    if node.operator in _BROADCAST:
        return Size(most if dims <= 1 else product, dims)
    if node.operator == "Concat":
        return Size(sum(size.numbers for size in inputs), dims)
    if node.operator == "Gather":
        return Size(inputs[-1].numbers if inputs[0].dims <= 1 else product, inputs[0].dims + inputs[-1].dims)
    if node.operator in _SHRINKING:
        more = inputs[1].numbers if node.operator in ("Reshape", "Unsqueeze") and len(inputs) > 1 else 0
        return Size(inputs[0].numbers, inputs[0].dims + more)
    return None
