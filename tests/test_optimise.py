"""Rewritten graphs compute the same, and weights in 8 bits nearly the same."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from toy_model import make_music

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


def test_codes_are_within_half_a_step(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((384, 5)).astype(np.float32)
    matrix[:128, 0] = 0
    codes, scales = optimise.quantise_matrix(matrix)
    assert codes.dtype == np.uint8 and codes.shape == (5, 3, 128) and scales.shape == (5, 3)
    back = ((codes.astype(np.float32) - 128) * scales[:, :, None]).reshape(5, 384).T
    steps = np.repeat(scales, 128, axis=1).T
    assert (np.abs(back - matrix) <= 0.501 * steps).all()
    assert (back[:128, 0] == 0).all()


def test_products_in_8_bits(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((512, 256)).astype(np.float32)
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, 512)
    small = optimise.quantise(model)
    onnx.checker.check_model(small, full_check=True)
    assert [node.op_type for node in small.graph.node] == ["MatMulNBits"]
    assert small.ByteSize() < 0.3 * model.ByteSize()
    assert [node.op_type for node in model.graph.node] == ["MatMul"]  # as it was
    x = rng.standard_normal((40, 512)).astype(np.float32)
    expected, got = x @ weights, run(small, x)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.01 * np.sqrt(np.mean(expected**2))
    # Every frame is rounded by itself: how many there are in a call changes nothing.
    np.testing.assert_allclose(run(small, x[7:8]), got[7:8], rtol=1e-5, atol=1e-4)


def test_products_that_stay(rng: np.random.Generator) -> None:
    odd = rng.standard_normal((500, 200)).astype(np.float32)
    little = rng.standard_normal((32, 32)).astype(np.float32)
    for weights in (odd, little):
        model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, len(weights))
        assert optimise.quantise(model) == model


def test_exported_model_in_8_bits_streams_and_says_so(small_config, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import dataclasses
    import json

    from restorer import Restorer
    from restorer.errors import ConfigError
    from restorer.export.convert import export_checkpoint
    from restorer.training.train import Trainer

    generator = dataclasses.replace(small_config.generator, band_maps=16, stack_maps=64, aggregation_maps=32)
    trainer = Trainer(dataclasses.replace(small_config, generator=generator))
    with torch.no_grad():
        trainer.average.out.conv.weight.mul_(5)
    trainer.save_generator(tmp_path / "a.safetensors", {})
    info = export_checkpoint(tmp_path / "a.safetensors", tmp_path / "int8.onnx", {}, "int8")
    assert info["weights"] == "int8" and 0 < info["difference"] < 1e-3
    with pytest.raises(ConfigError, match="weights must be one of float32, int8 and not 'int4'"):
        export_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.onnx", {}, "int4")
    model = onnx.load(tmp_path / "int8.onnx")
    assert sum(node.op_type == "MatMulNBits" for node in model.graph.node) == 2
    assert json.loads({p.key: p.value for p in model.metadata_props}["restorer"])["weights"] == "int8"

    audio = make_music(2, 20000)
    restorer = Restorer(tmp_path / "int8.onnx", device="cpu", threads=1)
    whole = restorer(audio, 44100, seed=3)
    for size in (64, 512, 3001):
        stream = restorer.stream(2, 44100, seed=3)
        blocks = [stream.process(audio[:, start : start + size]) for start in range(0, 20000, size)]
        assert np.abs(np.concatenate([*blocks, stream.flush()], axis=1) - whole).max() < 1e-5
