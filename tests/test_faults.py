"""Whatever ends a run: inputs stay as they are, nothing is half there, and a second run makes the same bytes."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

pytest.register_assert_rewrite("fault_disk")
from fault_batch import InterruptedBatches, contents, file_limit, is_hidden, start_restorer, write_album
from fault_disk import remount
from toy_model import Graph, metadata, save_convolution

from restorer import Restorer
from restorer.batch_record import RECORD_NAME
from restorer.cli import main
from restorer.errors import AudioFileError
from restorer.folder_lock import locked_folder
from restorer.session import import_onnxruntime
from restorer.synthesis import synthesize
from restorer.whole_file import whole_file

SEED = 1
pytest_plugins = ["fault_disk"]  # its fixture disk


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx", window=512, hop=128)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return write_album(tmp_path / "album", 0.5)


def run(album: Path, out: Path, model: Path, *options: object) -> Result:
    arguments = ["restore", album, out, "--model", model, "--device", "cpu", "--threads", 1, *options]
    return CliRunner().invoke(main, list(map(str, arguments)))


def check_whole(album: Path, out: Path, model: Path, before: dict[str, str]) -> None:
    """A second run ends well, and its outputs are those of a run into an empty folder; inputs are as `before`."""
    result = run(album, out, model)
    assert result.exit_code == 0, result.output
    fresh = out.with_name("fresh")
    assert run(album, fresh, model).exit_code == 0
    assert contents(out) == contents(fresh)
    assert contents(album) == before


# Signals


def test_batches_interrupted_at_random_moments(tmp_path: Path, model: Path) -> None:
    """benchmarks/faults.py does it 200 times."""
    batches = InterruptedBatches(tmp_path, model, write_album(tmp_path / "album", 1.5))
    for index in (3, 4, 5):  # SIGINT, SIGTERM and SIGKILL, once work has begun
        assert not batches.interrupt(SEED, index).failures


def test_sigterm_leaves_nothing_of_a_single_file(tmp_path: Path, model: Path) -> None:
    source, out = tmp_path / "long.wav", tmp_path / "out"
    out.mkdir()
    soundfile.write(source, np.tile(synthesize(4.0, 8000, 0, 1), (1, 100)).T, 8000)
    process = start_restorer("restore", str(source), str(out / "long.flac"), "--model", str(model), "--threads", "1")
    while process.poll() is None and not os.listdir(out):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1].strip() == "Interrupted"
    assert process.returncode == 130
    assert os.listdir(out) == []


# Disks and folders


def test_a_full_disk_and_then_room(disk: Path, album: Path, model: Path) -> None:
    before, out = contents(album), disk / "out"
    result = run(album, out, model)
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit)
    assert "No space left" in result.stderr and "Traceback" not in result.stderr
    found = contents(out)
    assert not any(is_hidden(name) and not name.endswith(".jsonl") for name in found)
    remount(disk, "size=50m")
    check_whole(album, out, model, before)
    fresh = contents(disk / "fresh")
    assert all(fresh[name] == digest for name, digest in found.items() if not is_hidden(name))


def test_a_file_that_outgrows_the_disk(tmp_path: Path, album: Path, model: Path) -> None:
    before, out = contents(album), tmp_path / "out"
    with file_limit(60_000):
        result = run(album, out, model)
    assert result.exit_code == 1 and "cannot write" in result.stderr
    assert not any(map(is_hidden, contents(out)))
    check_whole(album, out, model, before)


def test_a_read_only_disk(disk: Path, album: Path, model: Path) -> None:
    before = contents(album)
    remount(disk, "size=50m")
    assert run(album, disk / "out", model).exit_code == 0
    remount(disk, "ro")
    for out, options in ((disk / "new", ()), (disk / "out", ()), (disk / "out", ("--seed", 3))):
        result = run(album, out, model, *options)
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1].startswith("Error: cannot write")
    with pytest.raises(OSError, match="Read-only"), whole_file(disk / "file") as partial:
        partial.write_text("")
    remount(disk, "rw")
    check_whole(album, disk / "out", model, before)


def test_a_file_in_the_way_of_a_folder(tmp_path: Path, album: Path, model: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cd").write_text("mine")
    result = run(album, tmp_path / "out", model)
    assert result.exit_code == 1
    assert "out/cd: a file of this name is in the way" in result.stderr
    assert (tmp_path / "out" / "cd").read_text() == "mine"


# Several runs, and time


def test_a_folder_has_one_run_at_a_time(tmp_path: Path, album: Path, model: Path) -> None:
    pytest.importorskip("fcntl")
    before, out = contents(album), tmp_path / "out"
    out.mkdir()
    with locked_folder(out):
        result = run(album, out, model)
        assert result.exit_code == 2
        assert "another run is writing to" in result.stderr
    assert os.listdir(out) == []
    check_whole(album, out, model, before)


def test_two_runs_at_once(tmp_path: Path, album: Path, model: Path) -> None:
    """Whoever comes second is refused, or finds everything done; nothing is lost of what the record knows."""
    before, out = contents(album), tmp_path / "out"
    results: list[Result] = []
    command = ("restore", str(album), str(out), "--model", str(model), "--device", "cpu", "--threads", "1")
    other = start_restorer(*command)
    while other.poll() is None and not (out / RECORD_NAME).exists():
        results.append(run(album, out, model))
    other.communicate(timeout=60)
    assert other.returncode in (0, 2)
    assert {result.exit_code for result in results} <= {0, 2}
    assert all("another run" in result.stderr for result in results if result.exit_code)
    check_whole(album, out, model, before)
    assert run(album, out, model).stdout.count("skipped") == 6  # all five, and the sum


@pytest.mark.parametrize("overwrite", [False, True])
def test_one_target_for_several_at_once(tmp_path: Path, model: Path, overwrite: bool) -> None:
    source, target = tmp_path / "song.wav", tmp_path / "out.flac"
    soundfile.write(source, synthesize(2.0, 22050, 0, 1).T, 22050)
    restorer, lines = Restorer(model, device="cpu", threads=1), []

    def work() -> None:
        try:
            restorer.restore_file(source, target, overwrite=overwrite)
        except AudioFileError as error:
            lines.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("exists" in line for line in lines) and not (lines and overwrite)
    restorer.restore_file(source, tmp_path / "alone.flac")
    assert target.read_bytes() == (tmp_path / "alone.flac").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["alone.flac", "out.flac", "song.wav"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_one_target_for_several_processes(tmp_path: Path, model: Path, overwrite: bool) -> None:
    """Whoever ends last leaves its whole file; without --overwrite, who comes too late is told so."""
    source, out = tmp_path / "song.wav", tmp_path / "out"
    out.mkdir()
    soundfile.write(source, synthesize(2.0, 22050, 0, 1).T, 22050)
    options = ("--model", str(model), "--device", "cpu", "--threads", "1", *(["--overwrite"] if overwrite else []))
    mixes = ("1", "0.5", "0.25")
    target = ("restore", str(source), str(out / "song.flac"), "--png", str(out / "song.png"), *options)
    ends = [process.communicate(timeout=60) for process in [start_restorer(*target, "--mix", mix) for mix in mixes]]
    lines = [end[1] for end in ends]
    late = [line for line in lines if line.startswith("Error: ")]
    assert len(late) < 3 and all(line.count("\n") == 1 and "exists; choose another name" in line for line in late)
    assert not (late and overwrite) and "Traceback" not in "".join(lines)
    alone = []
    for mix in mixes:
        other = tmp_path / f"{mix}.flac"
        assert run(source, other, model, "--mix", mix).exit_code == 0
        alone.append(other.read_bytes())
    assert (out / "song.flac").read_bytes() in alone
    assert sorted(os.listdir(out)) == ["song.flac", "song.png"]


def test_a_clock_that_goes_back(tmp_path: Path, album: Path, model: Path) -> None:
    out, song = tmp_path / "out", album / "song0.wav"
    os.utime(song, (4e9, 4e9))
    assert run(album, out, model).exit_code == 0  # outputs are older than their input
    made = (out / "song0.flac").read_bytes()
    assert "5 skipped" in run(album, out, model).stdout
    soundfile.write(song, synthesize(0.5, 22050, 9, 1).T, 22050)
    os.utime(song, (1e8, 1e8))  # another input, which is older than the output
    assert "1 restored, 0 copied, 4 skipped" in run(album, out, model).stdout
    assert (out / "song0.flac").read_bytes() != made


# Inputs that change, and memory


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg"])
@pytest.mark.parametrize("change", ["deleted", "growing", "emptied"])
def test_an_input_that_changes_while_it_is_read(tmp_path: Path, model: Path, suffix: str, change: str) -> None:
    source, target = tmp_path / f"song{suffix}", tmp_path / "out.wav"
    soundfile.write(source, synthesize(8.0, 22050, 0, 1).T, 22050)
    restorer = Restorer(model, device="cpu", threads=1)
    whole = restorer.restore_file(source, tmp_path / "whole.wav")
    given = source.read_bytes()
    changed: list[bytes] = []

    def progress(done: int, total: int) -> None:
        if not changed:
            if change == "deleted":
                source.unlink()
            elif change == "growing":
                with source.open("ab") as file:
                    file.write(given[len(given) // 2 :])
            else:
                os.truncate(source, 0)
            changed.append(source.read_bytes() if source.exists() else b"")

    report = None
    try:
        report = restorer.restore_file(source, target, progress=progress)
    except AudioFileError as error:
        assert "\n" not in str(error) and os.listdir(tmp_path).count("out.wav") == 0
    assert changed and (source.read_bytes() if source.exists() else b"") == changed[0]
    assert not any(map(is_hidden, os.listdir(tmp_path)))
    if change == "deleted":
        assert report is not None and target.read_bytes() == (tmp_path / "whole.wav").read_bytes()
    if report is not None and report.samples != whole.samples:
        assert change != "emptied" or report.warnings


def test_an_input_that_grew_is_done_again(tmp_path: Path, album: Path, model: Path) -> None:
    """The record says which version of an input an output was made from: the one at the start."""
    out, song = tmp_path / "out", album / "cd" / "song1.wav"
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.01):
            with suppress(OSError), song.open("ab") as file:
                file.write(bytes(512))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        run(album, out, model)
    finally:
        stop.set()
        writer.join()
    check_whole(album, out, model, contents(album))


def save_greedy(path: Path) -> Path:
    """A model that asks for 64 TB of memory as soon as a frame is loud."""
    graph = Graph(257)
    peak = graph.add("ReduceMax", "frames", keepdims=0)
    loud = graph.add("Greater", peak, graph.constant(2.0))
    size = graph.add("Mul", graph.add("CastLike", loud, graph.constant(0, np.int64)), graph.constant(1 << 44, np.int64))
    size = graph.add("Reshape", size, graph.constant([1], np.int64))
    around = graph.add("Concat", graph.constant([0], np.int64), size, axis=0)
    room = graph.add("Pad", graph.add("Reshape", peak, graph.constant([1], np.int64)), around)
    nothing = graph.add("Mul", graph.add("ReduceSum", room, keepdims=0), graph.constant(0.0))
    graph.add("Add", "frames", nothing, to="restored")
    return graph.save(path, metadata(512, 128, 0))


def test_out_of_memory_costs_one_file(tmp_path: Path) -> None:
    album, out, greedy = tmp_path / "album", tmp_path / "out", save_greedy(tmp_path / "greedy.onnx")
    album.mkdir()
    click = np.zeros((11025, 1))
    click[5000] = 0.5  # no frame of it is loud, and the file is not so quiet that it would be turned up
    for name, audio in (("a", click), ("b", synthesize(0.5, 22050, 0, 1).T), ("c", click)):
        soundfile.write(album / f"{name}.wav", audio, 22050)
    result = run(album, out, greedy, "--force", "--jobs", 2)
    assert result.exit_code == 1
    assert "b.wav: out of memory" in result.stderr
    assert sorted(contents(out)) == ["a.flac", "c.flac"]
    alone = run(album / "b.wav", tmp_path / "b.flac", greedy, "--force")
    assert alone.exit_code == 2 and alone.stderr.startswith("Error: out of memory")
    assert not (tmp_path / "b.flac").exists()


def test_an_interruption_while_the_runtime_loads_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its C++ part reports a KeyboardInterrupt inside as an ImportError, with the interruption as the cause."""

    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "onnxruntime":
                raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(KeyboardInterrupt):
        import_onnxruntime()
