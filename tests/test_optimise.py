"""Rewritten graphs compute the same."""

import numpy as np
import onnxruntime
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper, numpy_helper

from restorer.export import optimise


def run(model: "onnx.ModelProto", x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def build(nodes: list, constants: dict[str, np.ndarray], size: int) -> "onnx.ModelProto":
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "outputs"])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("exponent", [4.0, 0.25, -0.25, 2.0, 3.0, 0.5])
def test_powers_keep_their_value(exponent: float, rng: np.random.Generator) -> None:
    model = build([helper.make_node("Pow", ["x", "e"], ["y"])], {"e": np.float32(exponent)}, 50)
    x = rng.uniform(0.01, 20.0, (3, 50)).astype(np.float32)
    simple = optimise.simplify(model)
    onnx.checker.check_model(simple, full_check=True)
    np.testing.assert_allclose(run(simple, x), run(model, x), rtol=2e-6)
    assert any(node.op_type == "Pow" for node in simple.graph.node) == (exponent not in (4.0, 0.25, -0.25))


def test_fourth_power_of_negative_numbers(rng: np.random.Generator) -> None:
    model = build([helper.make_node("Pow", ["x", "e"], ["y"])], {"e": np.float32(4)}, 50)
    x = rng.standard_normal((3, 50)).astype(np.float32)
    np.testing.assert_allclose(run(optimise.simplify(model), x), x**4, rtol=1e-6)


def test_shapes_of_batch_and_frames_are_constants(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["b"], name="batch", start=0, end=1),
        helper.make_node("Shape", ["x"], ["t"], name="time", start=1, end=2),
        helper.make_node("Concat", ["b", "t", "two", "two"], ["s"], name="join", axis=0),
        helper.make_node("Reshape", ["x", "s"], ["y"], name="reshape", allowzero=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", 2, 2])
    graph = helper.make_graph(nodes, "graph", [x], [y], [numpy_helper.from_array(np.array([2]), "two")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    simple = optimise.simplify(model)
    onnx.checker.check_model(simple, full_check=True)
    assert [node.op_type for node in simple.graph.node] == ["Reshape"]
    for batch, time in ((2, 3), (1, 1)):
        values = rng.standard_normal((batch, time, 4)).astype(np.float32)
        np.testing.assert_array_equal(run(simple, values), values.reshape(batch, time, 2, 2))
