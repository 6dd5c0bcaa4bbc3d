"""Folders: the tree is mirrored, what is done is skipped, a bad file stops nothing, an interruption neither."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import save_convolution, save_identity

import restorer
from restorer.batch_plan import plan_jobs
from restorer.batch_record import RECORD_NAME
from restorer.cli import main
from restorer.errors import AudioFileError, ConfigError

ROOT = Path(restorer.__file__).parents[1]
OURS = {RECORD_NAME, "restorer-report.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


def write_tone(path: Path, seconds: float = 0.5, rate: int = 22050) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * np.outer(time_s, [440, 660])), rate)
    return path


@pytest.fixture
def album(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two songs to restore in folders, one transparent, one that is no audio, and files of other kinds."""
    folder = tmp_path / "album"
    tagged = mutagen.File(write_tone(folder / "cd 1" / "one.mp3"))
    tagged.add_tags()
    tagged.tags.add(mutagen.id3.TIT2(text=["A title"]))
    tagged.save()
    write_tone(folder / "cd 2" / "two.wav")
    soundfile.write(folder / "full.flac", rng.uniform(-0.5, 0.5, (22050, 2)), 44100)
    (folder / "bad.mp3").write_text("no music " * 99)
    (folder / "cover.jpg").write_bytes(b"picture")
    (folder / ".hidden.mp3").write_bytes(b"")
    return folder


def run(*arguments: object, model: Path) -> Result:
    command = ["restore", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command)


def tree(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in OURS)


def report(folder: Path) -> dict:
    return json.loads((folder / "restorer-report.json").read_text())


def statuses(folder: Path) -> dict[str, str]:
    return {Path(entry["source"]).name: entry["status"] for entry in report(folder)["outcomes"]}


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_folder(tmp_path: Path, album: Path, model: Path, jobs: int) -> None:
    out = tmp_path / "out"
    result = run(album, out, "--jobs", jobs, model=model)
    assert result.exit_code == 1
    assert tree(out) == ["cd 1/one.flac", "cd 2/two.flac", "full.flac"]
    assert statuses(out) == {"one.mp3": "restored", "two.wav": "restored", "full.flac": "copied", "bad.mp3": "failed"}
    assert [report(out)[name] for name in ("files", "restored", "copied", "skipped", "failed")] == [4, 2, 1, 0, 1]
    (failure,) = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert failure.startswith(f"Failed: cannot read {album / 'bad.mp3'}: ") and failure.count("bad.mp3") == 1
    assert "full.flac: transparent: leave; copied unprocessed (--force restores it)" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["FILE", "STATUS", "LENGTH", "TIME", "NOTE"]
    assert "bad" in lines[4] and "failed" in lines[4]
    assert lines[5].startswith("4 files: 2 restored, 1 copied, 0 skipped, 1 failed")
    assert mutagen.File(out / "cd 1" / "one.flac")["title"] == ["A title"]
    assert (out / "full.flac").read_bytes() == (album / "full.flac").read_bytes()
    alone = tmp_path / "alone.flac"
    assert run(album / "cd 2" / "two.wav", alone, model=model).exit_code == 0
    np.testing.assert_array_equal(soundfile.read(alone)[0], soundfile.read(out / "cd 2" / "two.flac")[0])


def test_what_is_done_is_skipped(tmp_path: Path, album: Path, model: Path) -> None:
    (album / "bad.mp3").unlink()
    out = tmp_path / "out"
    assert run(album, out, model=model).exit_code == 0
    times = {name: (out / name).stat().st_mtime_ns for name in tree(out)}
    result = run(album, out, model=tmp_path / "never loaded.onnx")  # another model: not done
    assert result.exit_code == 2
    assert run(album, out, model=model).exit_code == 0
    assert set(statuses(out).values()) == {"skipped"}
    assert times == {name: (out / name).stat().st_mtime_ns for name in tree(out)}

    write_tone(album / "cd 2" / "two.wav", 0.7)
    (out / "full.flac").unlink()
    assert run(album, out, model=model).exit_code == 0
    assert statuses(out) == {"one.mp3": "skipped", "two.wav": "restored", "full.flac": "copied"}
    assert soundfile.info(out / "cd 2" / "two.flac").frames == round(0.7 * 44100)

    for change in (["--seed", 3], ["--mix", 0.5], ["--bits", 16], ["--force"]):
        assert run(album, out, *change, model=model).exit_code == 0
        assert "skipped" not in statuses(out).values()
    other = save_identity(tmp_path / "other.onnx")
    assert run(album, out, model=other).exit_code == 0
    assert "skipped" not in statuses(out).values()


def test_files_of_others_are_not_replaced(tmp_path: Path, album: Path, model: Path) -> None:
    out = tmp_path / "out"
    (out / "cd 1").mkdir(parents=True)
    (out / "cd 1" / "one.flac").write_text("mine")
    assert run(album, out, model=model).exit_code == 1
    assert statuses(out)["one.mp3"] == "failed"
    assert (out / "cd 1" / "one.flac").read_text() == "mine"
    assert run(album, out, "--overwrite", model=model).exit_code == 1  # the bad file alone
    assert statuses(out)["one.mp3"] == "restored"
    # What a user made of an output since is his, too.
    (out / "cd 2" / "two.flac").write_text("edited")
    run(album, out, "--seed", 1, model=model)
    assert (out / "cd 2" / "two.flac").read_text() == "edited"


def test_dry_run_writes_nothing(tmp_path: Path, album: Path, model: Path) -> None:
    result = run(album, tmp_path / "out", "--dry-run", model=model)
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()
    assert "2 restored, 1 copied, 0 skipped, 1 failed" in result.stdout
    (album / "bad.mp3").unlink()
    run(album, tmp_path / "out", model=model)
    assert "0 restored, 0 copied, 3 skipped" in run(album, tmp_path / "out", "--dry-run", model=model).stdout


def test_dry_run_refuses_what_the_real_run_refuses(tmp_path: Path, album: Path, model: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model" * 99)
    for file, more, words in (
        (model, ["--brightness", "bright"], "brightness"),
        (tmp_path / "broken.onnx", [], "no readable ONNX model"),
        (tmp_path / "missing.onnx", [], "does not exist"),
        (model, ["--ray-cpus", 1], "go with --ray"),
    ):
        real = run(album, tmp_path / "out", *more, model=file)
        dry = run(album, tmp_path / "out", *more, "--dry-run", model=file)
        assert (dry.exit_code, dry.stderr) == (real.exit_code, real.stderr) == (2, dry.stderr)
        assert words in dry.stderr and len(dry.stderr.splitlines()) == 1 and dry.stdout == ""


@pytest.mark.parametrize("audio_format", ["wav", "mp3", "ogg", "opus"])
def test_formats(tmp_path: Path, album: Path, model: Path, audio_format: str) -> None:
    (album / "bad.mp3").unlink()
    out = tmp_path / "out"
    assert run(album, out, "--format", audio_format, model=model).exit_code == 0
    assert tree(out) == sorted(f"{name}.{audio_format}" for name in ("cd 1/one", "cd 2/two", "full"))
    info = soundfile.info(out / "cd 1" / f"one.{audio_format}")
    assert info.samplerate == (48000 if audio_format == "opus" else 44100)
    assert info.duration == pytest.approx(soundfile.info(album / "cd 1" / "one.mp3").duration, abs=0.06)
    assert "A title" in str(mutagen.File(out / "cd 1" / f"one.{audio_format}").tags)


def test_candidates_in_folders(tmp_path: Path, album: Path, model: Path) -> None:
    assert run(album / "cd 1", tmp_path / "out", "--candidates", 2, "--seed", 4, model=model).exit_code == 0
    assert tree(tmp_path / "out") == ["one.seed4.flac", "one.seed5.flac"]


def test_several_inputs_and_patterns(tmp_path: Path, model: Path) -> None:
    for name in ("a/x.mp3", "a/x.wav", "b/deep/y.mp3", "z.wav"):
        write_tone(tmp_path / name)
    out = tmp_path / "out"

    def names(*inputs: Path) -> list[str]:
        return [job.name for job in plan_jobs(inputs, out, ".flac", [0])]

    assert names(tmp_path / "a", tmp_path / "b", tmp_path / "z.wav") == [
        "a/x.mp3.flac",
        "a/x.wav.flac",
        "b/deep/y.flac",
        "z.flac",
    ]
    assert names(tmp_path / "b") == ["deep/y.flac"]
    assert names(tmp_path / "**" / "*.mp3") == ["a/x.flac", "b/deep/y.flac"]
    assert names(tmp_path / "?") == ["a/x.mp3.flac", "a/x.wav.flac", "b/deep/y.flac"]
    assert names(tmp_path / "a" / "x.mp3", tmp_path / "a" / "x.mp3") == ["x.flac"]
    write_tone(out / "made.wav")
    assert "out/made.flac" not in names(tmp_path)  # the output folder is no input
    assert run(tmp_path / "b" / "deep" / "y.mp3", tmp_path / "z.wav", out, model=model).exit_code == 0
    assert tree(out) == ["made.wav", "y.flac", "z.flac"]


def test_what_cannot_be_planned(tmp_path: Path, album: Path, model: Path) -> None:
    write_tone(tmp_path / "a" / "x.mp3")
    write_tone(tmp_path / "b" / "x.mp3")
    (tmp_path / "empty").mkdir()
    files = (tmp_path / "a" / "x.mp3", tmp_path / "b" / "x.mp3")
    with pytest.raises(ConfigError, match="would both become"):
        plan_jobs([files[0], files[1].rename(tmp_path / "b" / "X.mp3")], tmp_path / "out", ".flac", [0])
    for inputs, error, words in (
        (tmp_path / "empty", AudioFileError, "no audio file"),
        (tmp_path / "no*", AudioFileError, "no file matches"),
        (tmp_path / "missing", AudioFileError, "does not exist"),
        (tmp_path / "out", ConfigError, "input folder itself"),
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(error, match=words):
            plan_jobs([inputs], tmp_path / "out", ".flac", [0])
    result = run(album, files[0], tmp_path / "out.wav", model=model)
    assert result.exit_code == 2 and "names a file" in result.stderr
    assert run(album, tmp_path / "out", "--format", "mp3", "--bits", 16, model=model).exit_code == 2


def test_a_damaged_record_is_no_error(tmp_path: Path, album: Path, model: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / RECORD_NAME).write_text('{"version": 1, "files": [')
    run(album, out, model=model)
    assert statuses(out)["one.mp3"] == "restored"
    assert json.loads((out / RECORD_NAME).read_text())["version"] == 1


def in_a_terminal(columns: int, *command: str) -> tuple[int, str]:
    """Exit status of a program, and what it wrote to a terminal of this width on its standard error."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # as Linux ends a terminal that nobody writes to any more
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    return process.wait(60), shown.decode()


@pytest.mark.parametrize("columns", [80, 132])
def test_bars_in_a_terminal(tmp_path: Path, album: Path, model: Path, columns: int) -> None:
    command = ["restore", str(album), str(tmp_path / "out"), "--jobs", "2", "--model", str(model), "--device", "cpu"]
    status, shown = in_a_terminal(columns, sys.executable, "-m", "restorer", *command)
    assert status == 1
    # One line for each time that a bar or a message was drawn, without what moves the cursor.
    lines = [re.sub(r"\x1b\[\w", "", line).rstrip() for line in re.split(r"[\r\n]+", shown)]
    bars = [line for line in lines if re.search(r"\d+% ?\|", line)]
    assert max(map(len, bars)) <= columns
    for label in ("all", "cd 1/one.flac", "cd 2/two.flac", "full.flac"):
        assert any(bar.startswith(f"{label:30} ") for bar in bars), label
    ends = [bar for bar in bars if bar.startswith("all ")]
    shares = [int(re.search(r"(\d+)%", bar)[1]) for bar in ends]
    assert shares == sorted(shares) and shares[-1] == 100
    messages = [line for line in lines if line.startswith(("Note: ", "Failed: "))]
    assert sorted(message.split(":")[0] for message in messages) == ["Failed", "Note"]  # each once, and whole
    assert all("bad.mp3" in line or line.endswith("(--force restores it)") for line in messages)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_started_again(tmp_path: Path, model: Path, how: signal.Signals) -> None:
    album, out = tmp_path / "album", tmp_path / "out"
    write_tone(album / "a.wav")
    write_tone(album / "b.wav", 400.0, 8000)
    for name in "cd":
        shutil.copy(album / "a.wav", album / f"{name}.wav")
    command = ["restore", str(album), str(out), "--model", str(model), "--device", "cpu", "--threads", "1"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "restorer", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(".restorer-*.flac")) or not (out / "a.flac").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how is signal.SIGKILL else 130)
    assert "b.flac" not in tree(out)
    if how is not signal.SIGKILL:
        assert tree(out) == ["a.flac"]
    write_tone(album / "b.wav", 0.5)
    assert run(album, out, model=model).exit_code == 0
    assert statuses(out) == {"a.wav": "skipped", "b.wav": "restored", "c.wav": "restored", "d.wav": "restored"}
    assert tree(out) == ["a.flac", "b.flac", "c.flac", "d.flac"]
