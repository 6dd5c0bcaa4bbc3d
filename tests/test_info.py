"""`restorer info` tells what the file says, and latency layers that add up to the file's latency."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from toy_model import RELEASED, make_model, save_convolution, save_identity

from restorer.benchmark_graph import count_multiply_adds, count_parameters
from restorer.errors import ModelError
from restorer.info_command import describe_model, info, split_latency
from restorer.model_file import Model
from restorer.restorer import Restorer

needs_released = pytest.mark.skipif(not RELEASED.is_file(), reason="no released model yet")


def weights_of(path: Path) -> int:
    """The same count by the onnx package."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    weights = [values for name, values in constants.items() if not name.endswith((".scales", ".zeros"))]
    return sum(values.size for values in weights if values.dtype != "int64")


@pytest.mark.parametrize("kind", ["identity", "convolution", "small_window"])
def test_description_matches_the_file(kind: str, tmp_path: Path) -> None:
    path = make_model(kind, tmp_path)
    description = describe_model(path)
    said = json.loads(onnx.load(str(path)).metadata_props[0].value)
    assert {name: description[name] for name in said} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
    }
    latency = {name: layer["samples"] for name, layer in description["latency"].items()}
    restorer = Restorer(path, device="cpu")
    assert latency["window"] + latency["block"] + latency["lookahead"] == said["latency_samples"]
    assert said["latency_samples"] + latency["waiting"] == latency["total"] == restorer.latency_samples
    total_ms = description["latency"]["total"]["ms"]
    assert total_ms == pytest.approx(1000 * latency["total"] / said["sample_rate"], abs=0.01)
    assert description["parameters"] == weights_of(path)
    assert description["size_bytes"] == path.stat().st_size


def test_states_and_work_of_a_known_graph(tmp_path: Path) -> None:
    path = save_convolution(tmp_path / "toy.onnx")
    bins = 1025
    assert describe_model(path)["state_bytes_per_channel"] == 4 * bins * (2 * 2 + 4 * 4 + 2 * 3)
    first, second, noise = bins * 4 * (2 * 9), bins * 4 * (4 * 9), 5 * 4
    assert count_multiply_adds(path, frames=1) == first + second + noise
    assert count_multiply_adds(path, frames=8) == first + second + noise / 8


@needs_released
def test_released_model() -> None:
    result = CliRunner().invoke(info, [], catch_exceptions=False)
    assert result.exit_code == 0
    description = describe_model(None)
    for word in ("licence", "parameters", "kbit/s", "training data", "hop", "noise", "window", "lookahead", "block"):
        assert word in result.output
    assert f"{description['latency']['total']['samples']} samples" in result.output
    assert description["parameters"] == weights_of(RELEASED)
    # Every weight is used at least once per frame or call; each takes one byte or four.
    assert count_multiply_adds(RELEASED) > description["parameters"]
    assert description["parameters"] < description["size_bytes"] < 4.2 * description["parameters"]


def test_json(tmp_path: Path) -> None:
    path = save_convolution(tmp_path / "toy.onnx", metrics={"32": {"lsd_db": 5.5}}, licence="")
    result = CliRunner().invoke(info, [str(path), "--json"], catch_exceptions=False)
    parsed = json.loads(result.stdout)
    assert parsed == json.loads(json.dumps(describe_model(path)))
    assert parsed["config"] == {"kind": "toy"} and parsed["noise_size"] == 5
    text = CliRunner().invoke(info, [str(path)], catch_exceptions=False).output
    assert '"lsd_db": 5.5' in text and "licence" in text and "not stated" in text


def test_what_was_measured_is_a_row_for_each_coding(tmp_path: Path) -> None:
    measured = {"64j": {"mp3": {"odg": -2.8, "visqol": 2.7}, "restored": {"odg": -1.931, "visqol": 3.5}}}
    path = save_convolution(tmp_path / "toy.onnx", metrics={"data": "21 songs", "by_coding": measured})
    text = CliRunner().invoke(info, [str(path)], catch_exceptions=False).output
    assert "measured on    21 songs\n" in text and "  64j          ODG -2.80 -> -1.93, ViSQOL 2.70 -> 3.50\n" in text


def test_wrong_files(tmp_path: Path) -> None:
    result = CliRunner().invoke(info, [str(tmp_path / "none.onnx")])
    assert isinstance(result.exception, ModelError) and "does not exist" in str(result.exception)
    broken = tmp_path / "broken.onnx"
    for content in (b"RIFF of something else", b"\x3a\xff\xff", b"\x07"):
        broken.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx"):
            count_parameters(broken)


@pytest.mark.parametrize(("lookahead", "waiting", "said"), [(0, 0, "no frame waits"), (3, 512, "2 frames wait")])
def test_layers(tmp_path: Path, lookahead: int, waiting: int, said: str) -> None:
    path = save_identity(tmp_path / "toy.onnx", lookahead=lookahead)
    layers = {name: layer["samples"] for name, layer in split_latency(Model(path, "cpu", 1).info).items()}
    ahead = 512 * lookahead
    assert layers == {
        "window": 1536,
        "block": 511,
        "lookahead": ahead,
        "waiting": waiting,
        "total": 2047 + ahead + waiting,
    }
    assert said in CliRunner().invoke(info, [str(path)], catch_exceptions=False).output
