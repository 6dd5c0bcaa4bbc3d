"""An ONNX file is looked through before anything runs it: no other files, no foreign code, no impossible weights.

ONNX Runtime would follow a path in a model to any file, load what custom operators name, and allocate what a
header promises. Only the bytes are read here; no size that a file claims is ever allocated.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from restorer.errors import ModelError
from restorer.model_operators import OPERATORS, Node, Size, Sizes
from restorer.protobuf import fields, message, number, text, varints

LARGEST_FILE_BYTES = (1 << 31) - 1  # of a protobuf message
_MOST_DIMS = 16
_FINITE_CHUNK = 1 << 22

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTION = 7, 14, 20, 25
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 2, 5, 15
_GRAPH_INPUT = 11
_GRAPH_VALUES = (_GRAPH_INPUT, 12, 13)  # inputs, outputs and what is between
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_NAME = 1, 2, 1, 2, 1, 2
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_NODE_NAMES = (_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_DOMAIN)
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
# Data type -> (bits of a number, field that holds numbers one by one, bits of each there, numpy's type if it has NaN).
_TYPES: dict[int, tuple[int, int, int, str | None]] = {
    1: (32, 4, 32, "<f4"),
    2: (8, 5, 0, None),
    3: (8, 5, 0, None),
    4: (16, 5, 0, None),
    5: (16, 5, 0, None),
    6: (32, 5, 0, None),
    7: (64, 7, 0, None),
    9: (8, 5, 0, None),
    10: (16, 5, 0, "<f2"),
    11: (64, 10, 64, "<f8"),
    12: (32, 11, 0, None),
    13: (64, 11, 0, None),
    16: (16, 5, 0, None),
    21: (4, 5, 0, None),
    22: (4, 5, 0, None),
}


def read_model(file: Path) -> bytes:
    """The bytes of a model file, if it is not larger than any ONNX file can be.

    Raises
    ------
    ModelError : it is, or cannot be read.
    """
    try:
        size = file.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise ModelError(f"model {file}: has {size} bytes and an ONNX file at most {LARGEST_FILE_BYTES}")
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"model {file}: cannot be read: {error.strerror or error}") from error


def check_model(data: bytes, source: str) -> dict[str, str]:
    """Refuse a model that no export of this project could have made, and give its metadata.

    Parameters
    ----------
    data : the whole file.
    source : what the file is called in messages.

    Raises
    ------
    ModelError : it is no ONNX model, keeps weights in other files, uses operators that no generator of this
        project has, makes much of constants alone, or its weights are not finite or not those that it declares.
    """
    metadata: dict[str, str] = {}
    graphs = 0
    try:
        for field, value in fields(memoryview(data)):
            if field == _MODEL_GRAPH:
                graphs += 1
                _check_graph(message(value), source)
            elif field == _MODEL_FUNCTION:
                raise ModelError(f"{source}: has functions of its own, which no export makes; export the model again")
            elif field == _MODEL_METADATA:
                key, said = _entry(message(value))
                metadata[key] = said
            elif field == _MODEL_TRAINING:
                raise ModelError(f"{source}: holds a training graph; export the model again")
    except ValueError as error:  # of UnicodeDecodeError too
        raise ModelError(f"{source}: is no readable ONNX model: {error}") from error
    if graphs != 1:
        raise ModelError(f"{source}: is no readable ONNX model: it has {graphs or 'no'} graphs")
    return metadata


def _check_graph(graph: memoryview, source: str) -> None:
    nodes: list[Node] = []
    inputs: list[str] = []
    weights: dict[str, Size] = {}
    for field, value in fields(graph):
        if field == _GRAPH_NODE:
            nodes.append(_check_node(message(value), source))
        elif field == _GRAPH_INITIALIZER:
            name, size = _check_tensor(message(value), source)
            weights[name] = size
        elif field == _GRAPH_NAME:
            _check_name(value, source)
        elif field in _GRAPH_VALUES:
            name = _check_value(message(value), source)
            if field == _GRAPH_INPUT:
                inputs.append(name)
        elif field == _GRAPH_SPARSE:
            raise ModelError(f"{source}: has sparse weights, which no export makes; export the model again")
    sizes = Sizes(source, inputs, weights)
    for node in nodes:
        sizes.follow(node)


def _check_node(node: memoryview, source: str) -> Node:
    operator = domain = ""
    names: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: []}
    settings: dict[str, int] = {}
    constant = Size(len(node), 1)  # numbers in an attribute, not in a tensor
    for field, value in fields(node):
        if field in _NODE_NAMES:
            names.setdefault(field, []).append(_check_name(value, source))
        if field == _NODE_OPERATOR:
            operator = text(value)
        elif field == _NODE_DOMAIN:
            domain = text(value)
        elif field == _NODE_ATTRIBUTE:
            constant = _check_attribute(message(value), source, settings) or constant
    if operator not in OPERATORS.get(domain, ()):
        where = f" of {shown(domain)}" if domain else ""
        raise ModelError(
            f"{source}: uses the operator {shown(operator)}{where}, which no generator of restorer needs; "
            "export the model again"
        )
    return Node(operator, tuple(names[_NODE_INPUT]), tuple(names[_NODE_OUTPUT]), settings, constant)


def _check_attribute(attribute: memoryview, source: str, settings: dict[str, int]) -> Size | None:
    """Look at one setting of a node, and add it to `settings` if it is an integer; the size of its tensor."""
    size, name, integer = None, "", None
    for field, value in fields(attribute):
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _, size = _check_tensor(message(value), source)
        elif field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            raise ModelError(f"{source}: has graphs within its graph, which no export makes; export the model again")
        elif field == _ATTRIBUTE_NAME:
            name = _check_name(value, source)
        elif field == _ATTRIBUTE_INTEGER:
            integer = number(value)
        elif field in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
            raise ModelError(f"{source}: has sparse weights, which no export makes; export the model again")
    if integer is not None:
        settings[name] = integer
    return size


def _check_value(value: memoryview, source: str) -> str:
    name = ""
    for field, said in fields(value):
        if field == _VALUE_NAME:
            name = _check_name(said, source)
        elif field == _VALUE_TYPE:
            for shape in _within(message(said), _TYPE_TENSOR, _TENSOR_SHAPE):
                for dim in _within(message(shape), _SHAPE_DIM, _DIM_NAME):
                    _check_name(dim, source)
    return name


def _within(whole: memoryview, outer: int, inner: int) -> Iterator[Any]:
    for field, value in fields(whole):
        if field == outer:
            yield from (found for number, found in fields(message(value)) if number == inner)


def _check_name(value: Any, source: str) -> str:
    """A name must be text: ONNX Runtime's Python side fails over others, loudly, and error messages repeat them."""
    name = text(value)
    if not name.isprintable():
        raise ModelError(f"{source}: has the name {shown(name)} in its graph, which is no plain text")
    return name


def _check_tensor(tensor: memoryview, source: str) -> tuple[str, Size]:
    """Look at weights; their name and size."""
    dims: list[int] = []
    kind, name = 0, ""
    stored: dict[int, list[Any]] = {}
    for field, value in fields(tensor):
        if field == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else varints(message(value))
        elif field == _TENSOR_TYPE:
            kind = number(value)
        elif field == _TENSOR_NAME:
            name = _check_name(value, source)
        elif field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value):
            where = f" ({shown(_entry(message(value))[1])})" if field == _TENSOR_EXTERNAL else ""
            raise ModelError(
                f"{source}: keeps the weights {shown(name)} in another file{where}; "
                "a model is one file that holds everything, so export it again"
            )
        else:
            stored.setdefault(field, []).append(value)
    what = f"{source}: the weights {shown(name)}"
    if kind not in _TYPES:
        raise ModelError(f"{what} have the data type {kind}, which no model needs")
    if len(dims) > _MOST_DIMS or any(size >> 63 for size in dims):
        raise ModelError(f"{what} have an impossible shape")
    _check_size(dims, kind, stored, what)
    if not _all_finite(kind, stored):
        raise ModelError(f"{what} hold NaN or infinity; export the model from a sound checkpoint")
    return name, Size(math.prod(dims), len(dims))


def _check_size(dims: list[int], kind: int, stored: dict[int, list[Any]], what: str) -> None:
    bits, field, width, _ = _TYPES[kind]
    declared = math.prod(dims)
    raw = stored.get(_TENSOR_RAW)
    if raw:
        wanted, found, unit = -(-declared * bits // 8), sum(len(message(part)) for part in raw), "bytes"
    else:
        parts = stored.get(field, [])
        wanted, unit = declared, "numbers"
        if width:
            found = sum(len(_floats(part, width)) for part in parts) * 8 // width
        else:
            found = sum(1 if isinstance(part, int) else len(varints(message(part))) for part in parts)
        if bits == 4:
            wanted = -(-declared // 2)
    if wanted != found:
        raise ModelError(f"{what} should be {wanted} {unit} and {found} are there; the file is damaged")


def _all_finite(kind: int, stored: dict[int, list[Any]]) -> bool:
    """Whether all numbers of a tensor are; a number may be cut in two by protobuf only if the file is damaged."""
    dtype = _TYPES[kind][3]
    if dtype is None:
        return _bfloats_finite(stored) if kind == 16 else True
    for part in _parts(kind, stored):
        if isinstance(part, int):  # float16 stored one by one
            numbers = np.array([part & 0xFFFF], np.uint16).view(np.float16)
            if not np.isfinite(numbers).all():
                return False
            continue
        numbers = np.frombuffer(part, dtype, count=len(part) // np.dtype(dtype).itemsize)
        for start in range(0, len(numbers), _FINITE_CHUNK):
            if not np.isfinite(numbers[start : start + _FINITE_CHUNK]).all():
                return False
    return True


def _bfloats_finite(stored: dict[int, list[Any]]) -> bool:
    """bfloat16 has float32's exponent: all its eight bits set are NaN or infinity."""
    for part in stored.get(_TENSOR_RAW, []):
        numbers = np.frombuffer(part, "<u2", count=len(part) // 2)
        if ((numbers & 0x7F80) == 0x7F80).any():
            return False
    return True


def _parts(kind: int, stored: dict[int, list[Any]]) -> Iterator[Any]:
    if stored.get(_TENSOR_RAW):
        yield from stored[_TENSOR_RAW]
        return
    _, field, width, _ = _TYPES[kind]
    for part in stored.get(field, []):
        if width or isinstance(part, int):
            yield part
        else:
            yield from varints(message(part))


def _entry(entry: memoryview) -> tuple[str, str]:
    key = value = ""
    for field, said in fields(entry):
        if field == _ENTRY_KEY:
            key = text(said)
        elif field == _ENTRY_VALUE:
            value = text(said)
    return key, value


def _floats(part: Any, width: int) -> memoryview | bytes:
    """Floating-point numbers of `width` bits, packed or a single one."""
    if isinstance(part, bytes) and len(part) * 8 == width:
        return part
    return message(part)


def shown(value: object) -> str:
    """A value out of a file, safe to print: short, and without control characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # of integers with thousands of digits too
        text = f"{type(value).__name__} too large to print"
    plain = re.sub(r"[^\x20-\x7e]", "?", text)
    return plain if len(plain) <= 80 else f"{plain[:77]}..."
