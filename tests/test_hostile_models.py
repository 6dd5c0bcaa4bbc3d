"""Broken and malicious models are refused before they run, with the reason, and nothing is ever unpickled."""

import importlib.resources
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper
from toy_model import Graph, make_model, metadata, save_convolution, save_identity

import restorer.model_file as model_file
from restorer import checksums
from restorer.errors import ModelError
from restorer.model_checks import LARGEST_FILE_BYTES, check_model
from restorer.model_file import Model, ModelInfo
from restorer.model_values import declared_values

WINDOW, HOP = 64, 16


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime must not even see the file."""

    def fail(*_: object) -> None:
        raise AssertionError("the model reached ONNX Runtime")

    monkeypatch.setattr(model_file, "open_session", fail)


def refused(path: Path, words: str) -> None:
    with pytest.raises(ModelError, match=words) as raised:
        Model(path, "cpu", 1)
    line = str(raised.value)
    assert line.isprintable() and str(path) in line and len(line) < len(str(path)) + 400


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """A toy model after `change` of its protobuf."""
    model = onnx.load(str(save_convolution(path, WINDOW, HOP)))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_sound_model_passes(tmp_path: Path) -> None:
    data = save_convolution(tmp_path / "a.onnx", WINDOW, HOP).read_bytes()
    assert json.loads(check_model(data, "a.onnx")["restorer"])["name"] == "toy"


def _point_outside(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)

    return change


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("location", ["../../../etc/passwd", "/etc/shadow", "weights.bin", "a\nb\x1b[2J", "x" * 5000])
def test_weights_in_another_file(tmp_path: Path, location: str) -> None:
    refused(changed(tmp_path / "a.onnx", _point_outside(location)), "keeps the weights 'constant_0' in another file")


@pytest.mark.usefixtures("no_session")
def test_external_data_within_a_node(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        tensor = TensorProto(name="hidden", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="/etc/passwd")
        model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))

    refused(changed(tmp_path / "a.onnx", change), "'hidden' in another file .*/etc/passwd")


def test_export_of_a_model_follows_no_path_in_it(tmp_path: Path) -> None:
    """It reads a model to write it with another card, by a library that would fetch the other file."""
    pytest.importorskip("torch")
    from restorer.export.convert import redescribe

    model, secret = changed(tmp_path / "a.onnx", _point_outside("secret")), tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    for path in (model, changed(tmp_path / "b.onnx", _point_outside("../../../etc/passwd"))):
        with pytest.raises(ModelError, match="in another file"):
            redescribe(path, tmp_path / "out.onnx", {"name": "new"})
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ([50_000, 50_000], "2500000000 numbers and 0 are there|10000000000 bytes and 0 are there"),
        ([1 << 40, 1 << 40], "numbers and 0 are there"),
        ([-1, 4], "impossible shape"),
        ([1] * 100, "impossible shape"),
    ],
)
def test_weights_that_are_declared_and_not_there(tmp_path: Path, dims: list[int], words: str) -> None:
    tensor = TensorProto(name="huge", data_type=1, dims=dims)
    refused(changed(tmp_path / "a.onnx", lambda model: model.graph.initializer.append(tensor)), words)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["raw", "float_data", "float16", "double", "constant"])
def test_weights_that_are_not_finite(tmp_path: Path, bad: float, kind: str) -> None:
    values = np.array([1.0, bad, 2.0])
    tensor = {
        "raw": lambda: onnx.numpy_helper.from_array(values.astype(np.float32), "w"),
        "float_data": lambda: helper.make_tensor("w", TensorProto.FLOAT, [3], values),
        "float16": lambda: helper.make_tensor("w", TensorProto.FLOAT16, [3], values),
        "double": lambda: helper.make_tensor("w", TensorProto.DOUBLE, [3], values),
        "constant": lambda: onnx.numpy_helper.from_array(values.astype(np.float32), "w"),
    }[kind]()

    def change(model: Any) -> None:
        if kind == "constant":
            model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
        else:
            model.graph.initializer.append(tensor)

    refused(changed(tmp_path / "a.onnx", change), "'w' hold NaN or infinity")


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("Evil", "com.example"),
        ("Relu", "com.example"),
        ("Range", "com.microsoft"),
        ("MatMulNBits", ""),
        *((name, "") for name in ("ConstantOfShape", "EyeLike", "If", "Loop", "OneHot", "RandomNormal", "Range")),
        *((name, "") for name in ("RandomUniformLike", "Resize", "Scan", "SequenceMap", "Tile", "Upsample", "")),
    ],
)
def test_operators_that_no_generator_has(tmp_path: Path, operator: str, domain: str) -> None:
    node = helper.make_node(operator, ["frames"], ["x"], domain=domain)
    path = changed(tmp_path / "a.onnx", lambda model: model.graph.node.append(node))
    refused(path, f"uses the operator {operator!r}.*which no generator of restorer needs")


@pytest.mark.usefixtures("no_session")
def test_graphs_within_graphs_and_functions(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Loop", ["x"], ["y"])], "g", [], [])
    hidden = helper.make_node("Relu", ["frames"], ["x"], body=graph)
    refused(changed(tmp_path / "a.onnx", lambda model: model.graph.node.append(hidden)), "has graphs within its graph")

    def function(model: Any) -> None:
        model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [], [helper.make_opsetid("", 17)]))

    refused(changed(tmp_path / "a.onnx", function), "has functions of its own")


def _grow_from_constants(kind: str) -> Callable[[Any], None]:
    """Nodes that ONNX Runtime would work out while it loads the model, up to 4 GB of numbers."""

    def change(model: Any) -> None:
        graph = model.graph
        for name, shape in (("column", (1 << 15, 1)), ("row", (1, 1 << 15))):
            graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
        for name, numbers in (("large", [1 << 15, 1 << 15]), ("ends", [1, 1, 1, 1]), ("indices", [0] * 9)):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(numbers, np.int64), name))
        if kind in ("Mul", "MatMul", "Gemm"):
            graph.node.append(helper.make_node(kind, ["column", "row"], ["x"]))
        elif kind == "Expand":
            graph.node.append(helper.make_node("Expand", ["row", "large"], ["x"]))
        elif kind == "Pad":
            graph.node.append(helper.make_node("Pad", ["row", "ends"], ["x"]))
        elif kind == "Gather":
            graph.node.append(helper.make_node("Gather", ["column", "indices"], ["x"]))
        else:
            start = "row"
            if kind == "Shape":  # of sizes that the file tells
                graph.node.append(helper.make_node("Shape", ["frames"], ["shape"]))
                start = "shape"
            for index in range(28):
                graph.node.append(helper.make_node("Concat", [start, start], [f"twice_{index}"], axis=0))
                start = f"twice_{index}"

    return change


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("kind", ["Mul", "MatMul", "Gemm", "Expand", "Pad", "Gather", "Concat", "Shape"])
def test_constants_that_would_grow_while_the_model_loads(tmp_path: Path, kind: str) -> None:
    refused(changed(tmp_path / "a.onnx", _grow_from_constants(kind)), "would make more than 65536 numbers of constants")


@pytest.mark.usefixtures("no_session")
def test_a_value_that_no_node_before_made(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["later"], ["x"])
    refused(changed(tmp_path / "a.onnx", lambda model: model.graph.node.append(node)), "uses 'later' before it is made")


def test_what_the_generators_need_is_allowed(tmp_path: Path) -> None:
    """Shapes worked out from those of inputs and constants, as exports have them."""
    graph = Graph(WINDOW // 2 + 1)
    batch = graph.add("Shape", "frames", start=0, end=1)
    whole = graph.add("Concat", batch, graph.constant([2, -1, WINDOW // 2 + 1], np.int64), axis=0)
    one = graph.add("CastLike", graph.constant(np.ones((3, 1), np.int64)), graph.constant([0.0]))
    graph.add("Mul", graph.add("Reshape", "frames", whole), graph.add("ReduceMax", one, keepdims=0), to="restored")
    path = graph.save(tmp_path / "a.onnx", metadata(WINDOW, HOP, 0))
    assert Model(path, "cpu", 1).states == ()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, data: bytes, kind: int = 2) -> bytes:
    return _varint(number << 3 | kind) + (_varint(len(data)) if kind == 2 else b"") + data


WIDE = 1 << 29  # of a field number: bit 32 of the tag, which protobuf's own readers drop


def _spliced(path: Path, node: bytes = b"", weights: bytes = b"") -> Path:
    """A toy model with raw bytes at the end of its last node or weights; a later field replaces an earlier one."""
    model = onnx.load(str(save_convolution(path, WINDOW, HOP)))
    last = helper.make_node("LeakyRelu", ["frames"], ["unused"]).SerializeToString() + node
    tensor = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "hidden").SerializeToString() + weights
    graph = model.graph.SerializeToString() + _field(1, last) + _field(5, tensor)
    model.ClearField("graph")
    path.write_bytes(model.SerializeToString() + _field(7, graph))
    return path


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("number", [WIDE, 1 << 30, 7 << 29])
def test_fields_whose_wide_tags_would_hide_them(tmp_path: Path, number: int) -> None:
    """ONNX Runtime reads an operator, a domain and another file's path; a reader of whole tags, nothing."""
    location = _field(1, b"location") + _field(2, b"/etc/passwd")
    for node in (_field(number | 4, b"Loop"), _field(number | 7, b"com.example")):
        refused(_spliced(tmp_path / "a.onnx", node=node), "no readable ONNX model: an impossible field number")
    for weights in (_field(number | 13, location), _field(number | 14, b"\1", kind=0)):
        refused(_spliced(tmp_path / "a.onnx", weights=weights), "no readable ONNX model: an impossible field number")


@pytest.mark.usefixtures("no_session")
def test_fields_that_protobuf_has_not(tmp_path: Path) -> None:
    """Number 0; and text of 4 or 8 bytes without a length, which ONNX Runtime skips: it is not the last operator."""
    refused(_spliced(tmp_path / "a.onnx", node=_field(0, b"x")), "an impossible field number")
    for weights in (_field(0, b"\0", kind=0), _field(8, b"name", kind=5), _field(9, bytes(8), kind=1)):
        refused(_spliced(tmp_path / "a.onnx", weights=weights), "no readable ONNX model")
    loop = _field(4, b"Loop") + _field(4, b"Relu", kind=5)
    refused(_spliced(tmp_path / "a.onnx", node=loop), "a number where a message should be")


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_rate": 10**9}, "sample_rate must be at most"),
        ({"window_samples": 1 << 40}, "window_samples must be at most"),
        ({"noise_size": 10**12}, "noise_size must be at most"),
        ({"noise_size": True}, "noise_size must be of type int"),
        ({"warmup_frames": 10**15}, "warmup_frames must be at most"),
        ({"lookahead_frames": 10**6, "latency_samples": 63 + 16 * 10**6}, "lookahead_frames must be at most"),
        ({"name": "two\nlines"}, "name must be one line|control"),
        ({"name": "x" * 100_000}, "name must be one line"),
        ({"licence": "\x1b]0;owned\x07"}, "control characters"),
        ({"training_data": ["\x1b[2J"]}, "control characters"),
        ({"trained_kbps": ["many"]}, "trained_kbps must be numbers"),
        ({"trained_kbps": [float("nan")]}, "trained_kbps must be numbers"),
        ({"format_version": 10**300}, "format version 1000"),
        ({"brightness": {"direction": [10**400], "db_per_unit": 1}, "noise_size": 5}, "brightness"),
    ],
)
def test_wild_metadata(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    refused(save_identity(tmp_path / "a.onnx", WINDOW, HOP, **changes), words)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "1" * 10_000, "NaN", "\ud800".encode("utf-8", "replace").decode()]
)
def test_metadata_that_breaks_parsers(text: str) -> None:
    with pytest.raises(ModelError, match="JSON"):
        ModelInfo.from_json(text, "a.onnx")


@pytest.mark.usefixtures("no_session")
def test_states_that_are_missing_extra_or_enormous(tmp_path: Path) -> None:
    def drop(model: Any) -> None:
        del model.graph.output[-1]

    refused(changed(tmp_path / "a.onnx", drop), "misses the output next_state_2")

    def extra(model: Any) -> None:
        model.graph.input.append(helper.make_tensor_value_info("state_7", TensorProto.FLOAT, ["batch", 1]))

    refused(changed(tmp_path / "b.onnx", extra), "misses the input state_3")

    enormous = Graph(WINDOW // 2 + 1)
    enormous.add("Identity", "frames", to="restored")
    enormous.inputs.append(helper.make_tensor_value_info("state_0", TensorProto.FLOAT, ["batch", 1 << 20, 1 << 20]))
    enormous.outputs.append(
        helper.make_tensor_value_info("next_state_0", TensorProto.FLOAT, ["batch", 1 << 20, 1 << 20])
    )
    enormous.add("Identity", "state_0", to="next_state_0")
    refused(enormous.save(tmp_path / "c.onnx", metadata(WINDOW, HOP, 0)), "states hold 1099511627776 numbers")


@pytest.mark.parametrize("kind", ["identity", "convolution", "released"])
def test_declared_inputs_and_outputs_are_those_of_the_runtime(tmp_path: Path, kind: str) -> None:
    path = make_model(kind, tmp_path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for declared, loaded in zip(
        declared_values(path.read_bytes()), (session.get_inputs(), session.get_outputs()), strict=True
    ):
        assert [vars(value) for value in declared] == [
            {"name": node.name, "type": node.type, "shape": node.shape} for node in loaded
        ]


def test_a_file_larger_than_any_model(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)  # sparse
    refused(path, "an ONNX file at most")


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_is_one_line(tmp_path: Path, seed: int) -> None:
    """Bits, cuts and splices of a model: a ModelError of one line, or a model that still keeps the contract."""
    data = bytearray(save_convolution(tmp_path / "a.onnx", WINDOW, HOP).read_bytes())
    rng = np.random.default_rng(seed)
    if seed % 4 == 0:
        data = data[: rng.integers(len(data))]
    elif seed % 4 == 1:
        at, end = sorted(rng.integers(len(data), size=2))
        data[at:end] = rng.bytes(int(rng.integers(200)))
    else:
        for at in rng.integers(len(data), size=int(rng.integers(1, 20))):
            data[at] ^= 1 << rng.integers(8)
    path = tmp_path / "b.onnx"
    path.write_bytes(data)
    try:
        Model(path, "cpu", 1)
    except ModelError as error:
        assert str(error).isprintable(), error


def test_the_bundled_weights_have_their_checksum() -> None:
    """After an export of new weights: python -m restorer.checksums restorer/weights"""
    checksums.check_sums(Path(str(importlib.resources.files("restorer") / "weights")))


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"one")
    with pytest.raises(ModelError, match=r"SHA256SUMS does not exist; .*make it: python -m restorer.checksums"):
        checksums.check_sums(tmp_path)
    wrong = subprocess.run([sys.executable, "-m", "restorer.checksums"], capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1 and "FOLDER" in wrong.stderr
    done = subprocess.run([sys.executable, "-m", "restorer.checksums", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0 and "SHA256SUMS" in done.stdout
    checksums.check_sums(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"two")
    with pytest.raises(ModelError, match=r"a.onnx: is not the file whose checksum"):
        checksums.check_sums(tmp_path)
    checksums.write_sums(tmp_path)
    (tmp_path / "b.onnx").write_bytes(b"new")
    with pytest.raises(ModelError, match=r"b.onnx"):
        checksums.check_sums(tmp_path)


# numpy.load takes pickles only when told to; the others always do, whatever they are called after an import.
PICKLERS = r"(?:c?[pP]ickle|_pickle|cloudpickle|dill|joblib|marshal|shelve)"
UNPICKLING = re.compile(
    rf"\b(?:{PICKLERS}|torch)\s*\.\s*(?:loads?|open|Unpickler)\b|\b(?:import|from)\s+{PICKLERS}\b"
    rf"|\bimport_module\(\s*[\"']{PICKLERS}\b|\bfrom\s+torch(?:\.\w+)*\s+import\b[^#\n]*(?:\bload\b|\*)"
    r"|\ballow_pickle\b\s*[=:](?!\s*False\b)|[\"']allow_pickle[\"']|\bread_pickle\b|\bweights_only\s*=\s*False\b"
)


def test_nothing_in_the_package_unpickles() -> None:
    root = Path(__file__).parents[1]
    for room in ("restorer", "training", "export", "plugins", "benchmarks"):
        for path in (root / room).rglob("*.py"):
            text = re.sub(r"\([^()]*\)", lambda found: " ".join(found[0].split()), path.read_text(encoding="utf-8"))
            for line in text.splitlines():
                assert not UNPICKLING.search(line), f"{path.relative_to(root)}: {line.strip()}"


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(data)",
        "pickle . load(file)",
        "from pickle import loads",
        "from pickle import dumps, loads as read",
        "from pickle import *",
        "from joblib import load",
        "import pickle as p",
        "import dill",
        "from torch import load",
        "from torch.serialization import load",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle = True)",
        "np.load(path, allow_pickle=pickled)",
        "np.load(path, **{'allow_pickle': 1})",
        "importlib.import_module('pickle')",
        "shelve.open(path)",
        "pandas.read_pickle(path)",
        "from pandas import read_pickle",
    ],
)
def test_what_would_unpickle_is_found(line: str) -> None:
    assert UNPICKLING.search(line)


@pytest.mark.parametrize(
    "line",
    ["np.load(path, allow_pickle=False)", "is a pickle, which is refused", "import torch", "from torch import nn"],
)
def test_what_would_not_unpickle_passes(line: str) -> None:
    assert not UNPICKLING.search(line)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("kind", ["pickle", "old pickle", "torch", "old torch"])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_pickles_are_refused_by_name_and_never_loaded(tmp_path: Path, kind: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    from restorer.training import checkpoint

    path, trace = tmp_path / name, tmp_path / "owned"
    if "torch" in kind:
        torch.save({"model": Bomb(trace)}, path, _use_new_zipfile_serialization=kind == "torch")
    else:
        path.write_bytes(pickle.dumps(Bomb(trace), protocol=4 if kind == "pickle" else 0))
    with pytest.raises(ModelError, match="is a pickle, which can run code and is never loaded") as raised:
        checkpoint.load(path)
    assert str(raised.value).isprintable()
    with pytest.raises(ModelError, match=r"is a pickle|no readable ONNX model"):
        Model(path, "cpu", 1)
    assert not trace.exists()


def test_checkpoints_whose_config_or_weights_are_wild(tmp_path: Path, small_config: Any) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from restorer.errors import ConfigError
    from restorer.training import checkpoint
    from restorer.training.models import build_generator

    weights = {f"generator.{name}": t for name, t in build_generator(small_config.generator).state_dict().items()}
    path = tmp_path / "a.safetensors"
    said = {"config": small_config.to_dict(), "step": 1}

    def save(said: Any, tensors: Any = weights) -> None:
        safetensors.save_file(tensors, path, {"restorer": said if isinstance(said, str) else json.dumps(said)})

    save(said)
    checkpoint.load_generator(path)
    for wild, words in (
        ("[" * 5000, "no restorer checkpoint"),
        ([1, 2], "no restorer checkpoint"),
        ({"step": 1}, "no restorer checkpoint"),
        ({"config": [1]}, "must be a table"),
        (
            {"config": {**said["config"], "generator": {"stack_maps": 10**9}}},
            "does not fit its own config|no generator",
        ),
        ({"config": {**said["config"], "generator": {"stack_maps": -1}}}, "does not fit its own config|no generator"),
        ({"config": {**said["config"], "generator": {"kind": [1]}}}, "'kind' must be one of|unknown key"),
    ):
        save(wild)
        with pytest.raises((ModelError, ConfigError), match=words) as raised:
            checkpoint.load_generator(path)
        assert str(raised.value).isprintable()
    name = next(iter(weights))
    save(said, {**weights, name: torch.full_like(weights[name], float("nan"))})
    with pytest.raises(ModelError, match="hold NaN or infinity"):
        checkpoint.load_generator(path)
    save(said, {key: tensor for key, tensor in weights.items() if key != name})
    with pytest.raises(ModelError, match="does not fit its own config"):
        checkpoint.load_generator(path)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("place", ["node", "input", "dimension", "initialiser", "operator"])
@pytest.mark.parametrize("name", ["a\x1b[2Jb", "two\nlines"])
def test_names_that_are_no_plain_text(tmp_path: Path, place: str, name: str) -> None:
    def change(model: Any) -> None:
        graph = model.graph
        if place == "node":
            graph.node[0].output[0] = name
        elif place == "input":
            graph.input[0].name = name
        elif place == "dimension":
            graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
        elif place == "initialiser":
            graph.initializer[0].name = name
        else:
            graph.node[0].op_type = name

    refused(changed(tmp_path / "a.onnx", change), "no plain text")


def test_names_that_are_no_utf_8_never_reach_the_runtime(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], no_session: None
) -> None:
    data = save_convolution(tmp_path / "a.onnx", WINDOW, HOP).read_bytes()
    (tmp_path / "b.onnx").write_bytes(data.replace(b"value_1", b"value_\xec"))
    refused(tmp_path / "b.onnx", "no readable ONNX model")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("part", [b"\x10\x01", b"\x12\x02\x08\x01", b"\x12\x04\x0a\x02\x10\x01"])
def test_a_number_where_a_shape_should_be(part: bytes) -> None:
    """Found by fuzzing: an input whose shape, size of an axis, or name of an axis is an integer on the wire."""
    for key in (b"\x0a", b"\x12", b"\x5a", b"\x3a"):  # tensor, type, the graph's input, the model's graph
        part = key + bytes([len(part)]) + part
    with pytest.raises(ModelError, match=r"a\.onnx: is no readable ONNX model: a number where a message should be"):
        check_model(part, "a.onnx")
