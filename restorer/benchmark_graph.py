"""What a model's graph holds and does: its parameters, and the multiply-adds of a frame."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from restorer.errors import ModelError
from restorer.model_file import import_onnxruntime
from restorer.protobuf import fields, varints

# Where the weights stand among the inputs of the operators that multiply.
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_TRANSPOSED = {"ConvTranspose": 1}
_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "QLinearMatMul"}
# Field numbers and values of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME = 7, 5, 1, 2, 8
_WEIGHT_TYPES = {1, 2, 3, 6, 10, 11, 16}  # float, uint8, int8, int32, float16, double, bfloat16


def count_parameters(path: Path) -> int:
    """Numbers in the weights of an ONNX file; constants such as shapes are none, nor scales and zeros of 8-bit weights.

    The file is read as protobuf, since ONNX Runtime does not list weights and needs no onnx package.

    Raises
    ------
    ModelError
        The file is no protobuf message.
    """
    data = memoryview(path.read_bytes())
    try:
        graphs = [value for field, value in fields(data) if field == _MODEL_GRAPH]
        tensors = [value for graph in graphs for field, value in fields(graph) if field == _GRAPH_INITIALIZER]
        return sum(_count_elements(tensor) for tensor in tensors)
    except (IndexError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is no readable ONNX model: {error}") from error


def _count_elements(tensor: memoryview) -> int:
    dims: list[int] = []
    kind = 0
    for field, value in fields(tensor):
        if field == _TENSOR_TYPE:
            kind = value
        elif field == _TENSOR_NAME and bytes(value).endswith((b".scales", b".zeros")):  # as restorer export names them
            return 0
        elif field == _TENSOR_DIMS:  # one by one or packed
            dims += [value] if isinstance(value, int) else varints(value)
    return math.prod(dims) if kind in _WEIGHT_TYPES else 0


def count_multiply_adds(path: Path, frames: int = 64) -> float:
    """Multiply-adds per frame and channel of all convolutions and matrix products, for calls of `frames` frames.

    The graph runs once, unoptimised, under ONNX Runtime's profiler, which tells the shapes that really
    occurred. Work per call (the noise's matrix) is shared among its frames.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # it hides the weights' shapes
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {}
        for node in session.get_inputs():
            open_sizes = [1, frames] if node.name == "frames" else [1]
            sizes = iter(open_sizes)
            shape = [d if isinstance(d, int) else next(sizes) for d in node.shape]
            feed[node.name] = np.zeros(shape, np.uint8 if node.type == "tensor(uint8)" else np.float32)
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    return sum(_multiply_adds(event.get("args", {})) for event in events) / frames


def _multiply_adds(node: Mapping[str, Any]) -> int:
    """Of one profiled node, from the shapes of its inputs and its output."""
    kind = node.get("op_name")
    known = kind in _CONVOLUTIONS or kind in _TRANSPOSED or kind in _PRODUCTS
    if not known:
        return 0
    inputs = [next(iter(shape.values())) for shape in node["input_type_shape"]]
    output = next(iter(node["output_type_shape"][0].values()))
    if kind in _CONVOLUTIONS:
        return math.prod(output) * math.prod(inputs[_CONVOLUTIONS[kind]][1:])
    if kind in _TRANSPOSED:
        return math.prod(inputs[0]) * math.prod(inputs[_TRANSPOSED[kind]][1:])
    return math.prod(output) * inputs[0][-1]
