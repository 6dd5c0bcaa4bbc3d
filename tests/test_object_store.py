"""Inputs and outputs behind URLs: fetched, restored, put there whole, and skipped when they are done."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
fsspec = pytest.importorskip("fsspec")

from toy_model import save_convolution

from restorer.batch_plan import Job, plan_jobs
from restorer.batch_record import RECORD_NAME, Record
from restorer.cli import main
from restorer.errors import AudioFileError, ConfigError
from restorer.object_store import RemotePath, at_hand, is_url, parse_location


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


@pytest.fixture
def album(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "album"
    (folder / "cd 1").mkdir(parents=True)
    tones = 0.3 * np.sin(np.outer(np.arange(9000) / 22050, [2500, 4000]))
    soundfile.write(folder / "cd 1" / "one [live].mp3", tones, 22050)
    soundfile.write(folder / "two.wav", tones, 22050)
    soundfile.write(folder / "full.flac", rng.uniform(-0.5, 0.5, (22050, 2)), 44100)
    (folder / ".hidden.mp3").write_bytes(b"")
    (folder / "cover.jpg").write_bytes(b"picture")
    return folder


@pytest.fixture
def bucket(store: fsspec.AbstractFileSystem, album: Path) -> str:
    store.put(str(album) + "/", "/bucket/album/", recursive=True)
    return "memory://bucket/album"


def run(*arguments: object, model: Path) -> Result:
    command = ["restore", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command)


def names(store: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    return sorted(path.removeprefix(folder) for path in store.find(folder))


OUTPUTS = ["/cd 1/one [live].flac", "/full.flac", "/two.flac"]


def test_a_bucket_gives_the_same_files_as_a_folder(
    store: fsspec.AbstractFileSystem, bucket: str, album: Path, tmp_path: Path, model: Path
) -> None:
    here = tmp_path / "out"
    assert run(album, here, model=model).exit_code == 0
    result = run(bucket, "memory://bucket/out", "--jobs", 2, model=model)
    assert result.exit_code == 0, result.output
    assert names(store, "/bucket/out") == [f"/{RECORD_NAME}", *OUTPUTS[:2], "/restorer-report.json", OUTPUTS[2]]
    for name in OUTPUTS:
        assert store.cat_file(f"/bucket/out{name}") == (here / name[1:]).read_bytes()
    report = json.loads(store.cat_file("/bucket/out/restorer-report.json"))
    assert (report["restored"], report["copied"], report["failed"]) == (2, 1, 0)
    assert {entry["source"] for entry in report["outcomes"]} >= {"memory:///bucket/album/cd 1/one [live].mp3"}
    assert "cd 1/one [live].flac  restored" in result.stdout and "/tmp" not in result.output

    # From a bucket into a folder, and back.
    assert run(bucket, tmp_path / "there", model=model).exit_code == 0
    assert run(album, "memory://bucket/back", model=model).exit_code == 0
    for name in OUTPUTS:
        assert (tmp_path / "there" / name[1:]).read_bytes() == store.cat_file(f"/bucket/back{name}")


def test_what_is_done_is_skipped(
    store: fsspec.AbstractFileSystem, bucket: str, album: Path, tmp_path: Path, model: Path
) -> None:
    def statuses() -> dict[str, str]:
        result = run(bucket, "memory://bucket/out", model=model)
        assert result.exit_code in (0, 1), result.output
        outcomes = json.loads(store.cat_file("/bucket/out/restorer-report.json"))["outcomes"]
        return {Path(entry["target"]).name: entry["status"] for entry in outcomes}

    assert set(statuses().values()) == {"restored", "copied"}
    assert set(statuses().values()) == {"skipped"}
    store.pipe_file("/bucket/album/two.wav", (album / "two.wav").read_bytes() + b"\0\0")  # another version
    store.rm_file("/bucket/out/full.flac")
    assert statuses() == {"one [live].flac": "skipped", "two.flac": "restored", "full.flac": "copied"}
    # What somebody else put there is not replaced.
    store.pipe_file("/bucket/out/two.flac", b"mine")
    store.pipe_file("/bucket/album/two.wav", (album / "two.wav").read_bytes() + b"\0\0\0\0")
    assert statuses()["two.flac"] == "failed"
    assert store.cat_file("/bucket/out/two.flac") == b"mine"
    result = run(bucket, "memory://bucket/out", "--dry-run", model=model)
    assert "exists" in result.stdout and "2 skipped, 1 failed" in result.stdout


def test_a_killed_run_is_taken_up(store: fsspec.AbstractFileSystem, bucket: str, tmp_path: Path) -> None:
    out = parse_location("memory://bucket/out")
    jobs = plan_jobs([parse_location(bucket)], out, ".flac", [0])
    first = Record(out, "model", {})
    for job in jobs:
        first.begin(job)
        if job.name != "two.flac":
            store.pipe_file(f"/bucket/out/{job.name}", b"done")
            first.finish(job, "restored")
    store.pipe_file("/bucket/out/.restorer-0123456789ab.flac", b"half")
    store.pipe_file("/bucket/out/two.flac", b"begun, and perhaps complete")
    assert f"/{RECORD_NAME}" not in names(store, "/bucket/out")  # killed: never closed

    second = Record(out, "model", {})
    assert [job.name for job in jobs if second.is_done(job)] == ["cd 1/one [live].flac", "full.flac"]
    assert all(second.is_ours(job) for job in jobs)
    second.sweep(jobs)
    assert "/.restorer-0123456789ab.flac" not in names(store, "/bucket/out")
    second.close()
    assert names(store, "/bucket/out") == [f"/{RECORD_NAME}", *OUTPUTS]
    assert [job.name for job in jobs if Record(out, "model", {}).is_done(job)] == ["cd 1/one [live].flac", "full.flac"]
    assert not any(Record(out, "other", {}).is_done(job) for job in jobs)


def test_the_journal_takes_as_long_for_the_last_file_as_for_the_first(tmp_path: Path) -> None:
    source = tmp_path / "in.mp3"
    source.write_bytes(b"x")
    record = Record(tmp_path, "model", {})
    jobs = [Job(source, tmp_path / f"{number}.flac", f"{number}.flac", 0) for number in range(500)]
    sizes = []

    def work(some: list[Job]) -> None:
        for job in some:
            record.begin(job)
            job.target.write_bytes(b"y")
            record.finish(job, "restored")
            sizes.append(max(part.stat().st_size for part in tmp_path.glob(".restorer-done.*.jsonl")))

    threads = [threading.Thread(target=work, args=(jobs[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(sizes) < 100_000
    assert all(Record(tmp_path, "model", {}).is_done(job) for job in jobs)  # from the journal alone
    record.close()
    assert not list(tmp_path.glob("*.jsonl")) and not list(tmp_path.glob(".restorer-done.*.jsonl"))
    assert all(Record(tmp_path, "model", {}).is_done(job) for job in jobs)


def test_inputs_by_url(store: fsspec.AbstractFileSystem, bucket: str, album: Path, tmp_path: Path) -> None:
    out = parse_location("memory://bucket/album/out")
    store.pipe_file("/bucket/album/out/made.wav", b"")  # the output folder is no input

    def planned(*inputs: str) -> list[str]:
        return sorted(job.name for job in plan_jobs([parse_location(text) for text in inputs], out, ".flac", [0]))

    assert planned(bucket) == planned(f"{bucket}/") == ["cd 1/one [live].flac", "full.flac", "two.flac"]
    assert planned(f"{bucket}/cd 1/one [live].mp3") == ["one [live].flac"]
    assert planned(f"{bucket}/**/*.mp3") == ["cd 1/one [live].flac"]
    assert planned(f"{bucket}/cd*", str(album / "two.wav")) == ["cd 1/one [live].flac", "two.flac"]
    assert planned(f"{bucket}/cd 1", f"{bucket}/two.wav") == ["cd 1/one [live].flac", "two.flac"]
    for text, words in ((f"{bucket}/no", "does not exist"), (f"{bucket}/no*", "no file matches")):
        with pytest.raises(AudioFileError, match=words):
            planned(text)
    with pytest.raises(ConfigError, match="input folder itself"):
        planned("memory://bucket/album/out")


def test_nothing_half_done_is_seen(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe_file("/bucket/in.wav", b"input")
    source, target = (parse_location(f"memory://bucket/{name}") for name in ("in.wav", "deep/out.flac"))
    with (
        pytest.raises(AudioFileError, match=r"memory:///bucket/in\.wav is bad"),
        at_hand(source, target) as (here, there),
    ):
        assert here.read_bytes() == b"input" and there.suffix == ".flac"
        there.write_bytes(b"half")
        raise AudioFileError(f"{here} is bad")
    assert names(store, "/bucket") == ["/in.wav"]
    with at_hand(source, target) as (_, there):
        there.write_bytes(b"whole")
    assert store.cat_file("/bucket/deep/out.flac") == b"whole"
    assert names(store, "/bucket") == ["/deep/out.flac", "/in.wav"]
    with pytest.raises(AudioFileError, match="exists"), at_hand(source, target):
        pass
    with (
        pytest.raises(AudioFileError, match=r"cannot fetch memory:///bucket/gone\.wav"),
        at_hand(parse_location("memory://bucket/gone.wav")),
    ):
        pass


def test_file_urls_are_renamed_into_place(tmp_path: Path) -> None:
    target = parse_location(f"file://{tmp_path}/a b/[c].txt")
    assert isinstance(target, RemotePath) and target.name == "[c].txt" and target.suffix == ".txt"
    target.write_text("one")
    target.write_text("two")
    assert (tmp_path / "a b" / "[c].txt").read_text() == target.read_text() == "two"
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["[c].txt"]
    assert target.parent.is_dir() and target.exists() and not (target.parent / "d").exists()
    before = target.fingerprint()
    assert before == target.parent.find()[0].fingerprint()
    target.write_text("three")
    assert target.fingerprint() != before


def test_a_single_file_by_url(store: fsspec.AbstractFileSystem, bucket: str, tmp_path: Path, model: Path) -> None:
    result = run(f"{bucket}/two.wav", tmp_path / "two.flac", model=model)
    assert result.exit_code == 0 and soundfile.info(tmp_path / "two.flac").frames == 18000
    store.pipe_file("/bucket/bad.mp3", b"no music " * 99)
    result = run("memory://bucket/bad.mp3", tmp_path / "bad.flac", model=model)
    assert result.exit_code == 2 and "memory:///bucket/bad.mp3" in result.stderr and "Traceback" not in result.stderr


def test_urls_that_cannot_be(bucket: str, tmp_path: Path, model: Path) -> None:
    for arguments, words in (
        (["nonsense://a/b", tmp_path / "out/"], "Protocol not known: nonsense"),
        ([bucket, "memory://bucket/song.flac"], "names a folder"),
        (["-", "memory://bucket/out"], "not with a URL"),
        ([f"{bucket}/gone", f"{tmp_path}/out/"], "does not exist"),
        ([f"{bucket}/gone.mp3", tmp_path / "out.flac"], "does not exist"),
    ):
        result = run(*arguments, model=model)
        assert result.exit_code == 2 and words in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not is_url("C:/music") and not is_url("s3:/x") and is_url("s3://bucket")
