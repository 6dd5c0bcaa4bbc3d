"""`restorer benchmark` measures what it says, within its time, and its tables show what was measured."""

import importlib.util
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from toy_model import RELEASED, make_model

from restorer import Restorer
from restorer.benchmark import QUICK, run, thread_counts
from restorer.benchmark_blocks import BLOCKS_SAMPLES, looped_music, measure_blocks, measure_latency, music
from restorer.benchmark_command import benchmark, read_result
from restorer.benchmark_machine import available_cores, describe_machine, one_core, resident_bytes, run_python
from restorer.benchmark_report import format_markdown, format_text, machine_line
from restorer.bundled import bundled_models
from restorer.errors import ConfigError, ModelError, RestorerError

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "benchmarks" / "speed.json"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A quick run, with the released model where there is one."""
    path = RELEASED if RELEASED.is_file() else make_model("convolution", tmp_path_factory.mktemp("model"))
    steps: list[str] = []
    started = time.perf_counter()
    measured = run([path], QUICK, steps.append)
    assert time.perf_counter() - started < 120 and len(steps) >= 6
    return json.loads(json.dumps(measured))


def test_everything_is_measured(result: dict[str, Any]) -> None:
    machine, (model,) = result["machine"], result["models"]
    assert machine["processor"] and machine["cores"] == available_cores() and machine["onnxruntime"]
    cases = {(row["sample_rate_hz"], row["channels"], row["block_samples"]) for row in model["streaming"]}
    assert cases == {
        (rate, channels, block) for rate in (44100, 48000) for channels in (1, 2) for block in BLOCKS_SAMPLES
    }
    own = model["frames_per_call"]
    others = [(row["block_samples"], row["frames_per_call"]) for row in model["streaming"]]
    assert [case for case in others if case[1] != own] == [(512, frames) for frames in (1, 2, 4) if frames != own]
    for row in model["streaming"]:
        assert 0 < row["mean_ms"] <= row["worst_ms"] and row["p99_ms"] <= row["p999_ms"] <= row["worst_ms"]
        assert 0 <= row["misses"] <= row["blocks"]
        assert row["block_ms"] == pytest.approx(1000 * row["block_samples"] / row["sample_rate_hz"], abs=1e-3)
    cpu = [row["threads"] for row in model["offline"] if row["what"] == "array" and row["device"] == "cpu"]
    whole = {row["what"]: row["real_time_factor"] for row in model["offline"]}
    assert cpu == thread_counts() and set(whole) == {"array", "MP3 to FLAC", "decoding MP3", "encoding FLAC"}
    assert 0 < whole["decoding MP3"] + whole["encoding FLAC"] < whole["MP3 to FLAC"]
    assert 0 < model["load_seconds"] < 60
    assert model["memory"][0]["peak_mb"] is None or 30 < model["memory"][0]["peak_mb"] < 2000
    assert model["giga_multiply_adds_per_second"] > 0 and model["share_of_peak"] > 0
    assert model["measured_latency_ms"]["44100"] == pytest.approx(model["latency"]["total"]["ms"], abs=0.02)


@pytest.mark.skipif(not RELEASED.is_file(), reason="no released model yet")
def test_pytorch_stands_beside_onnx_runtime(result: dict[str, Any]) -> None:
    runtimes = [(row["runtime"], row["frames_per_call"]) for row in result["models"][0]["runtimes"]]
    expected = [("ONNX Runtime", 1), ("ONNX Runtime", 16)]
    if importlib.util.find_spec("torch"):
        expected += [("PyTorch eager", 1), ("PyTorch eager", 16)]
    assert runtimes == expected


def test_tables_hold_the_numbers(result: dict[str, Any], tmp_path: Path) -> None:
    text, markdown = format_text(result), format_markdown(result)
    (model,) = result["models"]
    for table in (text, markdown):
        assert machine_line(result["machine"]) in table
        for row in model["offline"]:
            assert f"{row['real_time_factor']:.3f}" in table
        assert f"{model['load_seconds']:.2f} s" in table
    for row in model["streaming"]:
        assert f"{row['misses']:6d} / {row['blocks']:<6d}" in text
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) > 12 and all(line.count("|") == 3 for line in rows)
    for block in BLOCKS_SAMPLES:
        assert f"blocks of {block} samples" in markdown
    for frames in ("1 frame", "2 frames", "4 frames"):
        assert f"{frames} a call, one core" in markdown

    file = tmp_path / "speed.json"
    file.write_text(json.dumps(result))
    for option, expected in (([], text), (["--markdown"], markdown), (["--json"], json.dumps(result, indent=2))):
        done = CliRunner().invoke(benchmark, ["--from", str(file), *option], catch_exceptions=False)
        assert done.output.strip() == expected.strip()
    two = {**result, "models": [model, {**model, "name": "other", "memory": []}]}
    rows = [line for line in format_markdown(two).splitlines() if line.startswith("|")]
    assert all(line.count("|") == 4 for line in rows) and "other" in rows[0]


@pytest.mark.skipif(not SPEED.is_file(), reason="benchmarks/speed.json has not been measured")
def test_readme_has_the_table_of_the_measured_numbers() -> None:
    """`restorer benchmark --json > benchmarks/speed.json` comes first, the README's table is printed from it."""
    done = CliRunner().invoke(benchmark, ["--from", str(SPEED), "--markdown"], catch_exceptions=False)
    assert done.output.strip() in (ROOT / "README.md").read_text()
    assert [model["name"] for model in read_result(SPEED)["models"]] == list(bundled_models())


def test_wrong_requests(tmp_path: Path) -> None:
    def error_of(*arguments: object) -> BaseException | None:
        return CliRunner().invoke(benchmark, [str(argument) for argument in arguments]).exception

    file = tmp_path / "speed.json"
    file.write_text('{"models": []}')
    with pytest.raises(ConfigError, match="restorer benchmark --json"):
        read_result(file)
    with pytest.raises(ConfigError, match=r"none\.json"):
        read_result(tmp_path / "none.json")
    file.write_text('{"models": [{}], "machine": {}, "restorer": "0"}')
    assert "measure again" in str(error_of("--from", file))
    assert isinstance(error_of("--from", file, "--quick"), ConfigError)
    assert isinstance(error_of("--json", "--markdown"), ConfigError)
    assert isinstance(error_of(tmp_path / "none.onnx"), ModelError)  # at once, before anything is measured


def test_misses_are_counted() -> None:
    """A stream whose every tenth block is late."""
    calls = {"count": 0}

    def process(block: np.ndarray) -> np.ndarray:
        calls["count"] += 1
        if calls["count"] % 10 == 0:
            time.sleep(0.02)
        return block

    slow: Any = SimpleNamespace(stream=lambda channels, rate, **_: SimpleNamespace(process=process))
    times = measure_blocks(slow, 44100, 1, 512, 40 * 512 / 44100)
    assert times.blocks == 40 and times.misses >= 4
    assert times.p99_ms >= 20 and times.mean_ms >= 2 and times.worst_ms >= times.p99_ms
    limited = measure_blocks(slow, 44100, 1, 512, 100.0, limit_seconds=0.1)
    assert 1 <= limited.blocks < 2000


@pytest.mark.parametrize("kind", ["identity", "small_window"])
def test_latency_is_measured(kind: str, tmp_path: Path) -> None:
    restorer = Restorer(make_model(kind, tmp_path), device="cpu", threads=1)
    rate = restorer.sample_rate
    assert measure_latency(restorer, rate) * rate == pytest.approx(restorer.latency_samples)
    assert measure_latency(restorer, 2 * rate) > restorer.latency_samples / rate


def test_music_is_a_loop() -> None:
    long, piece = looped_music(9.0, 44100, 2), music(44100, 2)
    assert long.shape == (2, 9 * 44100)
    assert np.array_equal(long[:, : piece.shape[1]], long[:, piece.shape[1] : 2 * piece.shape[1]])
    assert not piece.flags.writeable


def test_machine() -> None:
    assert thread_counts()[0] == 1 and thread_counts()[-1] == min(8, available_cores())
    cores = available_cores()
    with one_core() as pinned:
        assert not pinned or available_cores() == 1
    assert available_cores() == cores
    assert resident_bytes() is None or resident_bytes() > 10e6
    assert str(describe_machine()["cores"]) in machine_line(describe_machine())
    with pytest.raises(RestorerError, match="no such luck"):
        run_python("raise SystemError('no such luck')")
