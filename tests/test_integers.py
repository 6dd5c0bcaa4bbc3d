"""Layers in 8 bits: close to float, alike in calls of any length, with their states in 8 bits too."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from toy_model import make_music

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

from restorer.errors import ConfigError, ModelError
from restorer.export import integers
from restorer.export.integers import Range, choose_range, large_layers, measure_ranges, quantise

MAPS, BINS, MEMORY = 64, 8, 4


def build(rng: np.random.Generator, maps: int = MAPS, extra_user: bool = False, bias: bool = True) -> "onnx.ModelProto":
    """A gate around a dilated convolution with a memory, as generators have them."""
    weights = {
        "w": (rng.standard_normal((maps, maps, 3, 3)) / np.sqrt(9 * maps)).astype(np.float32),
        "b": rng.standard_normal(maps).astype(np.float32),
        "start": np.array([-MEMORY]),
        "end": np.array([np.iinfo(np.int64).max]),
        "axis": np.array([2]),
    }
    nodes = [
        helper.make_node("Concat", ["state_0", "frames"], ["joined"], name="join", axis=2),
        helper.make_node(
            "Conv", ["joined", "w", *["b"][:bias]], ["y"], name="conv", dilations=[2, 1], pads=[0, 1, 0, 1]
        ),
        helper.make_node("Tanh", ["y"], ["restored"], name="tanh"),
        helper.make_node("Slice", ["joined", "start", "end", "axis"], ["next_state_0"], name="cut"),
    ]
    outputs = [("restored", "time"), ("next_state_0", MEMORY)]
    if extra_user:
        nodes.append(helper.make_node("Neg", ["joined"], ["negative"], name="neg"))
        outputs.append(("negative", "more"))
    inputs = [("frames", "time"), ("state_0", MEMORY)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", maps, t, BINS]) for n, t in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", maps, t, BINS]) for n, t in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def stream(model: "onnx.ModelProto", frames: np.ndarray, steps: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kind = np.uint8 if session.get_inputs()[1].type == "tensor(uint8)" else np.float32
    state, pieces, start = np.zeros((len(frames), MAPS, MEMORY, BINS), kind), [], 0
    for step in steps:
        feed = {"frames": frames[:, :, start : start + step], "state_0": state}
        piece, state = session.run(["restored", "next_state_0"], feed)
        pieces.append(piece)
        start += step
    return np.concatenate(pieces, axis=2)[:, :, MEMORY:]


@pytest.mark.parametrize("bias", [True, False])
def test_close_to_float_and_alike_in_pieces(rng: np.random.Generator, bias: bool) -> None:
    model = build(rng, bias=bias)
    frames = rng.standard_normal((2, MAPS, 24, BINS)).astype(np.float32)
    ranges = measure_ranges(model, [frames[:1]], 0)
    assert set(ranges) == {"joined", "y"}
    small = quantise(model, ranges)
    onnx.checker.check_model(small, full_check=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*small.graph.input, *small.graph.output)}
    assert kinds["state_0"] == kinds["next_state_0"] == TensorProto.UINT8
    assert kinds["frames"] == kinds["restored"] == TensorProto.FLOAT

    expected, whole = stream(model, frames, [24]), stream(small, frames, [24])
    assert np.sqrt(np.mean((whole - expected) ** 2)) < 0.03 * np.sqrt(np.mean(expected**2))
    np.testing.assert_array_equal(stream(small, frames, [1] * 24), whole)
    np.testing.assert_array_equal(stream(small, frames, [5, 1, 11, 7]), whole)


def test_what_waits_is_kept_in_8_bits(rng: np.random.Generator) -> None:
    """Between two layers, though neither reads it from the state."""
    model = build(rng)
    shape = ["batch", MAPS, MEMORY, BINS]
    nodes = [
        helper.make_node("Concat", ["state_1", "y"], ["later"], name="wait", axis=2),
        helper.make_node("Slice", ["later", "zero", "start", "axis"], ["delayed"], name="use"),
        helper.make_node("Slice", ["later", "start", "end", "axis"], ["next_state_1"], name="keep"),
    ]
    tanh = next(node for node in model.graph.node if node.op_type == "Tanh")
    tanh.input[0] = "delayed"
    model.graph.node.remove(tanh)
    model.graph.node.extend([*nodes, tanh])
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.input.append(helper.make_tensor_value_info("state_1", TensorProto.FLOAT, shape))
    model.graph.output.append(helper.make_tensor_value_info("next_state_1", TensorProto.FLOAT, shape))
    frames = rng.standard_normal((1, MAPS, 24, BINS)).astype(np.float32)
    small = quantise(model, measure_ranges(model, [frames], 0))
    onnx.checker.check_model(small, full_check=True)

    def restore(model: "onnx.ModelProto", steps: list[int]) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        kinds = [np.uint8 if node.type == "tensor(uint8)" else np.float32 for node in session.get_inputs()[1:]]
        assert len(set(kinds)) == 1
        states, pieces, start = [np.zeros((1, MAPS, MEMORY, BINS), kind) for kind in kinds], [], 0
        for step in steps:
            feed = {"frames": frames[:, :, start : start + step], "state_0": states[0], "state_1": states[1]}
            piece, *states = session.run(["restored", "next_state_0", "next_state_1"], feed)
            pieces.append(piece)
            start += step
        return np.concatenate(pieces, axis=2)[:, :, 2 * MEMORY :]

    expected, whole = restore(model, [24]), restore(small, [24])
    assert np.sqrt(np.mean((whole - expected) ** 2)) < 0.03 * np.sqrt(np.mean(expected**2))
    np.testing.assert_array_equal(restore(small, [5, 1, 11, 7]), whole)
    assert all(value.type.tensor_type.elem_type == TensorProto.UINT8 for value in small.graph.input[1:])


def build_product(weights: np.ndarray) -> "onnx.ModelProto":
    size, outputs = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["frames", "w"], ["restored"], name="product")],
        "graph",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["batch", 1, "time", size])],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, ["batch", 1, "time", outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_products_in_8_bits(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((512, 256)).astype(np.float32)
    weights[:, 3] = 0
    model = build_product(weights)
    frames = rng.standard_normal((2, 1, 20, 512)).astype(np.float32)
    small = quantise(model, measure_ranges(model, [frames], 0))
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.3 * model.ByteSize()
    session = onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    (whole,) = session.run(None, {"frames": frames})
    expected = frames @ weights
    assert np.sqrt(np.mean((whole - expected) ** 2)) < 0.03 * np.sqrt(np.mean(expected**2))
    assert (whole[..., 3] == 0).all()
    for start, end in ((0, 1), (1, 4), (4, 9), (9, 20)):  # kernels take rows by twos and fours: no sum may change
        np.testing.assert_array_equal(
            session.run(None, {"frames": frames[:1, :, start:end]})[0], whole[:1, :, start:end]
        )


def test_a_state_that_others_read_stays_as_it_is(rng: np.random.Generator) -> None:
    model = build(rng, extra_user=True)
    small = quantise(model, measure_ranges(model, [np.ones((1, MAPS, 6, BINS), np.float32)], 0))
    assert all(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in small.graph.input)
    frames = rng.standard_normal((1, MAPS, 12, BINS)).astype(np.float32)
    assert np.isfinite(stream(small, frames, [12])).all()


def test_small_layers_stay(rng: np.random.Generator) -> None:
    for model in (build(rng, maps=8), build_product(np.ones((32, 32), np.float32))):
        assert not large_layers(model)
        assert quantise(model, {}) == model


def test_what_judges_stays(rng: np.random.Generator) -> None:
    model = build(rng)
    (layer,) = large_layers(model)
    name = "generator.restraint.tell.weight"
    next(tensor for tensor in model.graph.initializer if tensor.name == layer.input[1]).name = name
    layer.input[1] = name
    assert not large_layers(model)


def test_weights_fit_sums_of_two_products_in_16_bits(rng: np.random.Generator) -> None:
    """Processors without integer dot products would else saturate, and compute something else."""
    model = build(rng)
    small = quantise(model, {"joined": Range(-1, 1), "y": Range(-1, 1)})
    codes = next(numpy_helper.to_array(t) for t in small.graph.initializer if t.name == "conv.w")
    assert codes.dtype == np.int8 and 2 * 255 * int(np.abs(codes).max()) < 2**15


def test_ranges_hold_zero_and_leave_outliers_out(rng: np.random.Generator) -> None:
    values = rng.standard_normal(100_000).astype(np.float32)
    found = choose_range(values)
    assert -6 < found.low < -2.5 and 2.5 < found.high < 6
    heavy = rng.standard_t(2, 100_000).astype(np.float32)
    found = choose_range(heavy)
    assert found.high < 0.9 * heavy.max() and found.low > 0.9 * heavy.min()
    for only_positive in (values**2, np.zeros(10, np.float32), values**2 + 5):
        found = choose_range(only_positive)
        assert found.low == 0 and found.zero_point == 0 and found.scale > 0
    assert 0 <= Range(-3.0, 0.0).zero_point <= 255


def test_a_generator_in_8_bits_streams(small_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("lameenc")
    import dataclasses

    from restorer import Restorer
    from restorer.export import convert
    from restorer.training.train import Trainer

    monkeypatch.setattr(convert, "_MEASURED", 2)
    monkeypatch.setattr(integers, "SMALLEST", {"Conv": 500, "MatMul": 500})
    trainer = Trainer(dataclasses.replace(small_config))
    with torch.no_grad():
        trainer.average.out.conv.weight.mul_(5)
    trainer.save_generator(tmp_path / "a.safetensors", {})
    info = convert.export_checkpoint(tmp_path / "a.safetensors", tmp_path / "int8.onnx", {}, "int8")
    assert info["weights"] == "int8"
    with pytest.raises(ConfigError, match="weights must be one of float32, int8 and not 'int4'"):
        convert.export_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.onnx", {}, "int4")
    assert 0 < info["difference"] < convert.QUANTISED_TOLERANCE
    restorer = Restorer(tmp_path / "int8.onnx", device="cpu", threads=1)
    assert [state.dtype for state in restorer._model.states].count("uint8") >= 2
    audio = make_music(2, 20000)
    whole = restorer(audio, 44100, seed=3)
    for size in (64, 3001):
        pieces = restorer.stream(2, 44100, seed=3)
        blocks = [pieces.process(audio[:, start : start + size]) for start in range(0, 20000, size)]
        assert np.abs(np.concatenate([*blocks, pieces.flush()], axis=1) - whole).max() < 1e-5


def test_a_state_must_be_of_one_kind(tmp_path: Path) -> None:
    from toy_model import save_convolution

    from restorer.model_file import Model

    path = save_convolution(tmp_path / "a.onnx", 64, 16)
    model = onnx.load(str(path))
    next(v for v in model.graph.output if v.name == "next_state_0").type.tensor_type.elem_type = TensorProto.UINT8
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"next_state_0 is tensor\(uint8\) and must be tensor\(float\) as state_0 is"):
        Model(path, "cpu", 1)
    model = onnx.load(str(path))
    next(v for v in model.graph.input if v.name == "state_0").type.tensor_type.elem_type = TensorProto.DOUBLE
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"state_0 must be float32 or uint8 and not tensor\(double\)"):
        Model(path, "cpu", 1)
