"""A batch on Ray: the bytes of the local run, jobs taken when a worker is free, a lost worker's file redone."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import save_convolution

import restorer
from restorer.batch import Outcome, Progress, Settings, run_batch
from restorer.batch_plan import Job, plan_jobs
from restorer.batch_queue import ATTEMPTS, JobQueue, WorkerLostError
from restorer.batch_ray import Cluster, RayWorker, ray_workers
from restorer.batch_record import RECORD_NAME, Record
from restorer.batch_screen import Screen
from restorer.cli import main
from restorer.errors import ConfigError

ROOT = Path(restorer.__file__).parents[1]
OURS = {RECORD_NAME, "restorer-report.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long song, two short ones, and one that is no audio."""
    folder = tmp_path_factory.mktemp("music") / "album"
    (folder / "cd 1").mkdir(parents=True)
    for name, seconds in (("a long", 200), ("cd 1/b", 1), ("c", 2)):
        soundfile.write(folder / f"{name}.wav", 0.3 * np.sin(np.arange(8000 * seconds) / 3), 8000)
    (folder / "bad.mp3").write_text("no music " * 99)
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, album: Path, model: Path) -> Path:
    """What a run without Ray makes of it."""
    out = tmp_path_factory.mktemp("local") / "out"
    assert run(album, out, model=model).exit_code == 1
    return out


def run(*arguments: object, model: Path) -> Result:
    command = ["restore", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command)


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items()) if name not in OURS}


def test_a_batch_by_urls_is_that_of_the_local_run(tmp_path: Path, album: Path, local: Path, model: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("fsspec")
    out = tmp_path / "out"
    cluster = ["--ray", "local", "--ray-cpus", 0.5, "--jobs", 2]
    result = run(f"file://{album}", f"file://{out}", *cluster, model=model)
    assert result.exit_code == 1, result.output
    assert tree(out) == tree(local)
    there, here = (json.loads((folder / "restorer-report.json").read_text()) for folder in (out, local))
    counts = ("files", "restored", "copied", "skipped", "failed", "seconds", "model", "settings")
    assert [there[name] for name in counts] == [here[name] for name in counts]
    assert "bad.mp3" in result.stderr and "2 actors on 1 machine" in result.stderr
    assert "4 files: 3 restored, 0 copied, 0 skipped, 1 failed" in result.stdout
    # Without Ray it goes on where Ray left.
    assert "3 skipped, 1 failed" in run(f"file://{album}", f"file://{out}", model=model).stdout


class Fragile:
    """A worker whose process is killed in the middle of the first song that takes long enough."""

    killed: list[int]

    def __init__(self, worker: RayWorker, killed: list[int]) -> None:
        self.worker, self.killed = worker, killed

    def wait(self, stop: threading.Event) -> bool:
        return self.worker.wait(stop)

    def restore(self, job: Job, settings: Settings, overwrite: bool, progress: Progress) -> Outcome:
        def watch(done: int, total: int) -> None:
            if 0 < done < total and not self.killed:
                self.killed.append(self.worker.pid)
                os.kill(self.worker.pid, signal.SIGKILL)
            progress(done, total)

        return self.worker.restore(job, settings, overwrite, watch)


def test_a_worker_killed_in_mid_run(
    tmp_path: Path, album: Path, local: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    out, killed = tmp_path / "out", []
    out.mkdir()
    jobs = plan_jobs([album], out, ".flac", [0])
    record, screen = Record(out, "model", {}), Screen(jobs, 2)
    with (
        ray_workers(Cluster("local", 2, 0.5), model.read_bytes(), "cpu", 1, len(jobs), screen.say) as actors,
        closing(run_batch([Fragile(actor, killed) for actor in actors], jobs, record, Settings(), screen)) as running,
    ):
        outcomes = {Path(outcome.source).name: outcome.status for outcome in running}
    assert len(killed) == 1 and killed[0] > 0
    assert outcomes == {"a long.wav": "restored", "b.wav": "restored", "c.wav": "restored", "bad.mp3": "failed"}
    assert tree(out) == tree(local)  # and no half file is left
    assert "a long.wav: the worker was lost" in capsys.readouterr().err


def test_interrupted(tmp_path: Path, album: Path, model: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    command = ["restore", str(album), str(out), "--model", str(model), "--threads", "1"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "restorer", *command, "--jobs", "1", "--ray-cpus", "0.5", "--ray", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".restorer-????????????.flac")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in said, said
    assert tree(out) == {} and (out / "restorer-report.json").exists()


class Steady:
    """A worker in this process that takes as many seconds for a job as its name says."""

    def __init__(self, lost: set[str]) -> None:
        self.lost, self.done = lost, []

    def wait(self, stop: threading.Event) -> bool:
        return not stop.is_set()


def share(workers: list[Steady], names: list[str]) -> tuple[list[str], list[str]]:
    """Results, and what was said, of jobs that take as many seconds as their names say."""

    def do(worker: Steady, job: Job) -> str:
        if job.name in worker.lost:
            raise WorkerLostError("gone")
        worker.done.append(job.name)
        time.sleep(float(job.name))
        return job.name

    said: list[str] = []
    queue: JobQueue[Steady, str] = JobQueue(do, lambda job, error: f"{job.name} {error}", said.append)
    jobs = [Job(Path(name), Path(name), name, 0) for name in names]
    return list(queue.run(workers, jobs, threading.Event())), said


def test_jobs_are_taken_by_whoever_is_free() -> None:
    slow, quick = Steady(set()), Steady(set())
    results, _ = share([slow, quick], ["0.6", *(f"0.0{number}" for number in range(1, 9))])
    assert len(results) == 9 and results[-1] == "0.6"
    assert sorted(map(len, (slow.done, quick.done))) == [1, 8]  # cut beforehand it would be 4 and 5


def test_a_lost_job_is_given_to_another_and_given_up_at_last() -> None:
    results, said = share([Steady({"0.01"}), Steady(set())], ["0.01", "0.02", "0.03"])
    assert sorted(results) in (["0.01", "0.02", "0.03"], ["0.01 gone", "0.02", "0.03"])
    results, said = share([Steady({"0.01"}), Steady({"0.01"})], ["0.01", "0.02"])
    assert sorted(results) == ["0.01 gone", "0.02"] and len(said) == ATTEMPTS - 1


def test_a_bug_ends_the_batch() -> None:
    class Broken(Steady):
        def wait(self, stop: threading.Event) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share([Broken(set())], ["0"])


def test_options_are_checked(tmp_path: Path, album: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match="write it last"):
        Cluster("album")
    with pytest.raises(ConfigError, match="part of a CPU"):
        Cluster("local", cpus=0)
    with pytest.raises(ConfigError, match="--ray-gpus"):
        Cluster("local").choose_device("cuda")
    assert [Cluster("auto", gpus=gpus).choose_device("auto") for gpus in (0, 0.5)] == ["cpu", "cuda"]
    out = tmp_path / "out"
    for arguments, words in (
        (["--ray", album, "x", out], "write it last"),
        ([album, out, "--ray-cpus", 1], "go with --ray"),
        ([album / "c.wav", tmp_path / "c.flac", "--ray"], "--ray is for an OUTPUT folder"),
    ):
        result = run(*arguments, model=model)
        assert result.exit_code == 2 and words in result.stderr, result.stderr


def test_a_cluster_that_is_not_there(tmp_path: Path, album: Path, model: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:  # a port that is nobody's: bound, and not listened at
        taken.bind(("127.0.0.1", 0))
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "ray://127.0.0.1:no"):
            result = run(album, tmp_path / "out", f"--ray={address}", model=model)
            assert result.exit_code == 2 and f"cannot reach Ray at {address}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_ray_is_named_where_it_is_missing(
    tmp_path: Path, album: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # Python's own sign for a module that cannot be imported
    result = run(album, tmp_path / "out", "--ray", model=model)
    assert result.exit_code == 2 and 'pip install "restorer[cluster]"' in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
