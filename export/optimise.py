"""Rewrites an exported graph so that ONNX Runtime runs it faster on a CPU.

`simplify` keeps every number up to rounding. `quantise` stores the weights of large matrix products, which are most
of a generator's parameters, in 8 bits: one frame at a time, reading them from memory takes longer than multiplying.
"""

import numpy as np
import onnx
import onnx_ir
from onnx import helper, numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import RewriteRule, RewriteRuleSet

BLOCK = 128  # weights that share a scale
SMALLEST = 1 << 16  # weights of a product worth quantising
_RUNTIME_DOMAIN = "com.microsoft"
_INT8_ARITHMETIC = 4  # MatMulNBits' accuracy_level: activations in 8 bits too, with a scale for each block


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with cheaper nodes.

    A fourth power becomes two products, and a fourth root two roots: `Pow` calls a library function for
    every number, which took an eighth of the time.
    """
    graph = onnx_ir.from_proto(model)
    RewriteRuleSet([_FOURTH_POWER, _FOURTH_ROOT, _INVERSE_FOURTH_ROOT]).apply_to_model(graph)
    RemoveUnusedNodesPass()(graph)  # constants that nothing reads any more
    return onnx_ir.to_proto(graph)


def _is(value: onnx_ir.Value, number: float) -> bool:
    constant = value.const_value
    return constant is not None and constant.size == 1 and float(constant.numpy().reshape(())) == number


def _power(op, x, exponent):
    return op.Pow(x, exponent)


def _square_twice(op, x, exponent):
    square = op.Mul(x, x)
    return op.Mul(square, square)


def _root_twice(op, x, exponent):
    return op.Sqrt(op.Sqrt(x))


def _inverse_root_twice(op, x, exponent):
    return op.Reciprocal(op.Sqrt(op.Sqrt(x)))


_FOURTH_POWER = RewriteRule(_power, _square_twice, lambda context, exponent, **_: _is(exponent, 4.0))
_FOURTH_ROOT = RewriteRule(_power, _root_twice, lambda context, exponent, **_: _is(exponent, 0.25))
_INVERSE_FOURTH_ROOT = RewriteRule(_power, _inverse_root_twice, lambda context, exponent, **_: _is(exponent, -0.25))


def quantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with each large constant matrix in 8 bits, by blocks of 128 inputs, as `MatMulNBits`.

    A scale belongs to one output and 128 inputs; the largest weight of a block becomes 127. Activations are rounded
    to 8 bits within the product, each block of each frame by itself: the result depends on no other frame, so
    streams in any block sizes stay equal. A matrix stays as it is if its inputs are no multiple of 128.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    for index, node in enumerate(graph.node):
        tensor = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2 or tensor.dims[0] % BLOCK or np.prod(tensor.dims) < SMALLEST:
            continue
        if uses.count(tensor.name) > 1:
            continue
        codes, scales = quantise_matrix(numpy_helper.to_array(tensor))
        names = [f"{tensor.name}.codes", f"{tensor.name}.scales"]
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], *names],
            list(node.output),
            name=node.name,
            domain=_RUNTIME_DOMAIN,
            K=tensor.dims[0],
            N=tensor.dims[1],
            bits=8,
            block_size=BLOCK,
            accuracy_level=_INT8_ARITHMETIC,
        )
        graph.node[index].CopyFrom(product)
        graph.initializer.remove(tensor)
        graph.initializer.extend(map(numpy_helper.from_array, (codes, scales), names))
    if any(node.domain == _RUNTIME_DOMAIN for node in graph.node):
        quantised.opset_import.append(helper.make_opsetid(_RUNTIME_DOMAIN, 1))
    return quantised


def quantise_matrix(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes from 1 to 255, 128 for zero, and scales: weight = (code - 128) x scale.

    Shape: (inputs, outputs) -> (outputs, inputs / 128, 128) uint8, (outputs, inputs / 128) float32
    """
    blocks = np.ascontiguousarray(matrix.T).reshape(matrix.shape[1], -1, BLOCK)
    scales = np.abs(blocks).max(axis=2).astype(np.float32) / 127
    steps = np.where(scales > 0, scales, 1)[:, :, None]
    return (np.rint(blocks / steps) + 128).astype(np.uint8), scales
