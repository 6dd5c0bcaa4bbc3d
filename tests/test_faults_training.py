"""A training run that is killed, or finds no room, keeps its last checkpoint and goes on as if nothing had been."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")
pytest.importorskip("tensorboard")
pytest.importorskip("onnxruntime")

pytest.register_assert_rewrite("fault_disk")
from fault_batch import contents, file_limit, start_restorer
from fault_disk import remount

from restorer.cli import main
from restorer.errors import RestorerError
from restorer.folder_lock import locked_folder
from restorer.training import checkpoint
from restorer.training.json_lines import append_lines, load_lines
from restorer.training.pairs import Pairs
from restorer.training.train import Trainer

SEED = 1
pytest_plugins = ["fault_disk"]  # its fixture disk


@pytest.fixture
def small_run(pairs_dir: Path, small_config, tmp_path: Path):
    from fault_training import InterruptedTraining

    data = replace(small_config.data, checkpoint_minutes=0.0)
    schedule = replace(small_config.schedule, steps=16, adversarial_from=8)
    return InterruptedTraining(tmp_path, pairs_dir, replace(small_config, data=data, schedule=schedule))


def test_a_killed_training_run_goes_on_with_the_same_losses(small_run, tmp_path: Path) -> None:
    """benchmarks/faults.py kills 50 times."""
    expected, seconds = small_run.whole()
    kill = small_run.kill(tmp_path / "run", SEED, 0, 0.8 * seconds)
    assert kill.signal_name == "SIGKILL" and not kill.failures
    assert small_run.finish(tmp_path / "run") == expected
    assert not small_run.kill(tmp_path / "run", SEED, 1, 0.0).in_time  # there was nothing left to do


def test_a_training_folder_has_one_run_at_a_time(pairs_dir: Path, small_config, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from restorer.training.train_command import run as train_run

    pairs = [Pairs(pairs_dir, split) for split in ("train", "valid")]
    with locked_folder(tmp_path), pytest.raises(RestorerError, match="another run is writing"):
        train_run(Trainer(small_config), *pairs, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_last_checkpoint(small_config, tmp_path: Path) -> None:
    trainer, path = Trainer(small_config), tmp_path / "state.safetensors"
    trainer.save(path)
    whole = path.read_bytes()
    trainer.step_number = 5
    with file_limit(len(whole) // 2), pytest.raises(RestorerError, match=r"cannot write .*state") as raised:
        trainer.save(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == whole and checkpoint.load(path)[2]["step"] == 0
    assert os.listdir(tmp_path) == ["state.safetensors"]


def write_config(folder: Path, config) -> Path:
    """A config as a TOML file."""
    values, path = config.to_dict(), folder / "small.toml"
    tables = {name: values[name] for name in ("generator", "critic", "loss", "schedule", "data")}
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if value is not None)
        for name, table in tables.items()
    ]
    path.write_text('name = "small"\n' + "".join(lines))
    return path


def train(config: Path, pairs: Path, run: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["train", str(config), "--pairs", str(pairs), "--out", str(run), *options])


@pytest.fixture(scope="module")
def whole_run(pairs_dir: Path, small_config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config, and an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder, small_config)
    assert train(config, pairs_dir, folder / "run").exit_code == 0
    return config, folder / "run"


@pytest.mark.parametrize("room", ["less than a checkpoint", "all but the last picture", "no log"])
def test_a_disk_that_fills_up_while_training(disk: Path, room: str, pairs_dir: Path, whole_run: tuple[Path, Path]):
    """One line that says how to go on; with room, the run ends as if nothing had been."""
    config, whole = whole_run
    run = disk / "run"
    sizes = {path: path.stat().st_size for path in whole.rglob("*") if path.is_file()}
    log = sum(size for path, size in sizes.items() if path.parent.name == "tensorboard")
    checkpoint_bytes = (whole / "state.safetensors").stat().st_size
    needed = sum(sizes.values()) + 100_000
    size = {
        "less than a checkpoint": checkpoint_bytes // 2,
        "all but the last picture": needed - log - min(v for path, v in sizes.items() if path.suffix == ".png"),
        "no log": needed - log // 2,
    }[room]
    remount(disk, f"size={size // 4096 * 4}k")
    result = train(config, pairs_dir, run)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: cannot write") and "No space left" in line and "make room there, and" in line
    assert "Traceback" not in result.stderr
    assert not list(run.glob(".*")) and not list((run / "previews").glob(".*"))
    saved = (run / "state.safetensors").exists()
    assert ("--resume" in line) == saved and saved == (room != "less than a checkpoint")

    remount(disk, "size=200m")
    again = train(config, pairs_dir, run, *(["--resume"] if saved else []))
    assert again.exit_code == 0, again.output
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [6]
    tensors, expected = (checkpoint.load(at / "state.safetensors")[0] for at in (run, whole))
    assert all(tensor.equal(expected[name]) for name, tensor in tensors.items())


def test_lines_are_there_in_full_or_not_at_all(disk: Path) -> None:
    path, rows = disk / "rows.jsonl", [{"number": number, "text": "x" * 300} for number in range(2000)]
    kept = 0
    with pytest.raises(RestorerError, match=r"cannot write .*rows.jsonl.*No space left") as raised:
        for start in range(0, len(rows), 3):
            append_lines(path, rows[start : start + 3])
            kept += 3
    assert "\n" not in str(raised.value) and load_lines(path) == rows[:kept] and kept > 100
    assert path.read_bytes().endswith(b"}\n")
    with path.open("r+b") as file:  # as a kill leaves it
        file.truncate(path.stat().st_size - 5)
    assert load_lines(path) == rows[: kept - 1]
    append_lines(path, rows[:1])
    assert load_lines(path) == [*rows[: kept - 1], rows[0]]
    path.write_text('{"a": 1}\n[2\n')
    with pytest.raises(RestorerError, match="damaged in line 2"):
        load_lines(path)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children of a process")
def test_a_killed_decoding_process_is_one_line(pairs_dir: Path, small_config, tmp_path: Path) -> None:
    config = replace(small_config, schedule=replace(small_config.schedule, steps=10**6, workers=1))
    arguments = ("--pairs", str(pairs_dir), "--out", str(tmp_path / "run"), "--threads", "1")
    process = start_restorer("train", str(write_config(tmp_path, config)), *arguments)
    children, deadline = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    found: list[str] = []
    while not found and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        found = children.read_text().split()
    os.kill(int(found[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in errors, errors
    assert "Error: a process that decodes excerpts was killed" in errors.splitlines()[-1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["original.flac", "32m.mp3"])
def test_a_file_of_the_pairs_that_goes_while_training(
    pairs_dir: Path, small_config, tmp_path: Path, workers: int, name: str
) -> None:
    pairs, files = tmp_path / "pairs", []
    shutil.copytree(pairs_dir, pairs)
    for folder in pairs.iterdir():
        if json.loads((folder / "song.json").read_text())["split"] == "train":
            (folder / name).write_bytes(b"")
            files.append(str(folder / name))
    data = replace(small_config.data, codings=("32m",))
    config = replace(small_config, schedule=replace(small_config.schedule, workers=workers), data=data)
    result = train(write_config(tmp_path, config), pairs, tmp_path / "run")
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"Error: '{files[0]}' cannot be read (") and "run restorer prepare again" in line


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children of a process")
def test_a_killed_process_of_prepare_is_one_line_and_the_next_run_finishes(music_dir: Path, tmp_path: Path) -> None:
    arguments = ("prepare", str(music_dir), str(tmp_path / "pairs"), "--kbps", "16", "32", "--jobs", "2")
    process = start_restorer(*arguments)
    children, deadline = Path(f"/proc/{process.pid}/task/{process.pid}/children"), time.monotonic() + 60
    found: list[str] = []
    while not found and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        found = children.read_text().split()
    os.kill(int(found[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in errors, errors
    assert errors.splitlines()[-1].startswith("Error: a process was killed")
    for out in ("pairs", "fresh"):
        again = CliRunner().invoke(main, ["prepare", str(music_dir), str(tmp_path / out), *arguments[3:]])
        assert again.exit_code == 0, again.output
    assert contents(tmp_path / "pairs") == contents(tmp_path / "fresh")


def test_a_full_disk_while_preparing_is_one_line(disk: Path, music_dir: Path) -> None:
    remount(disk, "size=900k")
    result = CliRunner().invoke(main, ["prepare", str(music_dir), str(disk / "pairs"), "--kbps", "16", "--jobs", "1"])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output and "No space left" in result.stderr.splitlines()[-1], result.stderr


def test_a_full_disk_while_exporting_is_one_line(disk: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from restorer.bundled import find_model

    (tmp_path / "card.json").write_text('{"name": "new"}')
    arguments = ["export", str(find_model(None)), str(disk / "a.onnx"), "--card", str(tmp_path / "card.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "No space left on device; make room" in result.stderr, result.output
    assert os.listdir(disk) == []
