"""`restorer evaluate`: its numbers are those of the metrics, and an interruption loses nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("lameenc")
pytest.importorskip("tqdm")

from toy_model import Graph, metadata, save_convolution, save_identity

from restorer import Restorer
from restorer.cli import main
from restorer.metrics import align, measure
from restorer.synthesis import synthesize
from restorer.training.evaluation_data import find_music, read_excerpt
from restorer.training.evaluation_figures import spread
from restorer.training.evaluation_summary import estimate
from restorer.training.mp3 import SAMPLE_RATE, Coding, round_trip
from restorer.training.prepare_command import plan, prepare_song
from restorer.transform import Analysis

SECONDS = 2
METRICS = ("odg", "di", "lsd", "mse", "snr", "si_snr")


def write_song(path: Path, seconds: float, seed: int, channels: int = 2) -> np.ndarray:
    audio = synthesize(seconds=seconds, seed=seed, channels=channels)
    soundfile.write(path, audio.T, SAMPLE_RATE, subtype="FLOAT")
    return audio


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo song of 4.5 s and a mono song of 2 s."""
    folder = tmp_path_factory.mktemp("music")
    write_song(folder / "long.wav", 4.5, 1)
    write_song(folder / "short.wav", 2.0, 2, channels=1)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "identity": save_identity(folder / "identity.onnx", name="identity"),
        "stochastic": save_convolution(folder / "stochastic.onnx", name="stochastic"),
    }


def save_playback(path: Path, audio: np.ndarray) -> Path:
    """A model that gives the frames of `audio`, ``(1, samples)``, one after the other, whatever it hears."""
    frames = Analysis(1, 2048, 512)(np.pad(audio, ((0, 0), (0, 8 * 512))))
    graph = Graph(1025)
    for kind, name in ((graph.inputs, "state_0"), (graph.outputs, "next_state_0")):
        value = type(graph.inputs[0])()
        value.CopyFrom(graph.inputs[0])
        value.name = name
        for axis in (1, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_value = 1
        kind.append(value)
    time = graph.add("Slice", graph.add("Shape", "frames"), *(graph.constant([k], np.int64) for k in (2, 3)))
    one = graph.constant([1], np.int64)
    place = graph.add("Reshape", graph.add("ReduceMax", "state_0", keepdims=0), one)
    start = graph.add("CastLike", place, one)
    end = graph.add("Add", start, time)
    piece = graph.add("Slice", graph.constant(frames), start, end, graph.constant([2], np.int64))
    graph.add("Add", piece, graph.add("Mul", "frames", graph.constant(0.0)), to="restored")
    graph.add("Add", "state_0", graph.add("CastLike", time, "state_0"), to="next_state_0")
    return graph.save(path, metadata(lookahead=0, name="perfect"))


def run(*arguments: object) -> Result:
    words = ["evaluate", "--device", "cpu", "--seconds", SECONDS, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def evaluate(*arguments: object) -> list[dict[str, Any]]:
    """The table of a run that works; the folder is the last argument."""
    result = run(*arguments[:-1], "--out", arguments[-1])
    assert result.exit_code == 0, result.output
    return json.loads((Path(str(arguments[-1])) / "summary.json").read_text())["table"]


def means(table: list[dict[str, Any]], coding: str, system: str) -> dict[str, float]:
    (line,) = (line for line in table if line["coding"] == coding and line["system"] == system)
    return {name: value["mean"] for name, value in line["metrics"].items()}


def test_identity_model_scores_as_the_mp3(music, models, tmp_path):
    table = evaluate(
        "--music", music, "--split", "all", "--model", models["identity"], "--kbps", 16, 64,
        "--joint-kbps", 64, "--no-figures", tmp_path / "out",
    )  # fmt: skip
    assert [line["coding"] for line in table] == [c for c in ("16m", "64m", "64j", "64j-mix") for _ in range(3)]
    for coding in ("16m", "64m", "64j", "64j-mix"):
        mp3, same = means(table, coding, "MP3"), means(table, coding, "identity, deterministic")
        assert same == pytest.approx(mp3, abs=0.01)
        scaled = means(table, coding, "MP3 / 0.95")
        assert scaled["si_snr"] == pytest.approx(mp3["si_snr"], abs=1e-3)
    assert all(line["worse"] in (None, 0.0) for line in table if "identity" in line["system"])
    assert {line["excerpts"] for line in table if line["coding"] == "64m"} == {2}
    assert {line["excerpts"] for line in table if line["coding"] == "64j"} == {1}  # the mono song has none
    assert means(table, "64m", "MP3")["odg"] > means(table, "16m", "MP3")["odg"]


def test_perfect_model_scores_as_the_original(tmp_path):
    (tmp_path / "music").mkdir()
    audio = write_song(tmp_path / "music" / "song.wav", SECONDS, 3, channels=1)
    model = save_playback(tmp_path / "perfect.onnx", audio)
    table = evaluate(
        "--music", tmp_path / "music", "--split", "all", "--model", model, "--kbps", 32, "--no-figures",
        tmp_path / "out",
    )  # fmt: skip
    perfect = means(table, "32m", "perfect, deterministic")
    best = measure(audio, audio, SAMPLE_RATE, ("odg", "di"))
    assert perfect["odg"] == pytest.approx(best["odg"], abs=0.02)
    # Float32 frames come back a rounding away, and PEAQ rounds to 16 bits; an MP3 is seven further down.
    assert perfect["di"] == pytest.approx(best["di"], abs=0.8)
    assert perfect["lsd"] < 0.02
    assert perfect["snr"] > 100
    assert means(table, "32m", "MP3")["odg"] < -1


def test_takes_are_those_of_the_seeds_and_best_is_best(music, models, tmp_path):
    table = evaluate(
        "--music", music, "--split", "all", "--model", models["stochastic"], "--kbps", 32, "--takes", 5,
        "--no-figures", tmp_path / "out",
    )  # fmt: skip
    mean, best = (means(table, "32m", f"stochastic, {which}") for which in ("mean of 5 takes", "best of 5"))
    for name in METRICS:
        assert best[name] < mean[name] if name in ("lsd", "mse") else best[name] > mean[name]
    (spread,) = (line["spread"] for line in table if line["spread"])
    assert 0 < spread["frequency_between_takes"] < spread["frequency_take_to_original"]

    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    (row,) = (r["metrics"] for r in rows if r["take"] == 4 and r["song"].startswith("short"))
    original, _ = soundfile.read(music / "short.wav", dtype="float32", always_2d=True)
    coded = round_trip(original.T, Coding(32, False))
    take = Restorer(models["stochastic"], device="cpu")(coded, SAMPLE_RATE, seed=4)
    assert row == pytest.approx(measure(original.T, take, SAMPLE_RATE, METRICS), abs=1e-2)


def test_an_interrupted_run_goes_on(music, models, tmp_path):
    arguments = ["--music", music, "--split", "all", "--model", models["stochastic"], "--no-figures"]
    out = tmp_path / "out"
    whole = evaluate(*arguments, "--kbps", 32, 64, out)
    results = out / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join(lines[:7]) + lines[7][:40])
    assert evaluate(*arguments, "--kbps", 32, 64, out) == whole
    again = results.read_bytes().splitlines(keepends=True)
    assert sorted(again) == sorted(lines)

    before = results.stat().st_mtime_ns
    assert evaluate(*arguments, "--kbps", 32, 64, out) == whole
    assert results.stat().st_mtime_ns == before
    evaluate(*arguments, "--kbps", 32, "--takes", 2, out)
    added = [json.loads(line) for line in results.read_bytes().splitlines()[len(lines) :]]
    assert {(row["coding"], row["take"]) for row in added} == {("32m", 1)}
    refused = run(*arguments, "--kbps", 32, "--excerpts-per-song", 2, "--out", out)
    assert refused.exit_code == 2
    assert "excerpts_per_song 1 and not 2" in refused.stderr


def test_several_processes_give_the_same_and_pairs_work(music, models, tmp_path):
    for task in plan(music, tmp_path / "pairs", None, ("32m", "64j")):
        prepare_song(task, 2)
    split = next((tmp_path / "pairs").glob("short*/song.json"))
    split = json.loads(split.read_text())["split"]
    arguments = ["--pairs", tmp_path / "pairs", "--split", split, "--model", models["identity"]]
    one = evaluate(*arguments, "--kbps", 32, "--no-figures", tmp_path / "one")
    assert one == evaluate(*arguments, "--kbps", 32, "--no-figures", "--jobs", 2, tmp_path / "two")

    original, _ = soundfile.read(music / "short.wav", dtype="float32", always_2d=True)
    rows = [json.loads(line) for line in (tmp_path / "one" / "results.jsonl").read_text().splitlines()]
    (row,) = (r["metrics"] for r in rows if r["system"] == "mp3" and r["song"].startswith("short"))
    expected = measure(original.T, round_trip(original.T, Coding(32, False)), SAMPLE_RATE, METRICS)
    assert row == pytest.approx(expected, abs=0.01)

    refused = run(*arguments, "--kbps", 48, "--out", tmp_path / "three")
    assert refused.exit_code == 2
    assert "coded as 48m; there are 32m" in refused.stderr


def test_a_coded_rate_is_kept_and_told(music, models, tmp_path):
    for task in plan(music, tmp_path / "pairs", None, ("16m", "32m")):
        prepare_song(task, 2, 44100)
    split = json.loads(next((tmp_path / "pairs").glob("short*/song.json")).read_text())["split"]
    arguments = ["--split", split, "--model", models["identity"], "--kbps", 16, 32, "--metrics", "lsd,snr"]
    prepared = evaluate("--pairs", tmp_path / "pairs", *arguments, "--no-figures", tmp_path / "pairs-out")
    coded = ["--music", music, "--coded-rate", 44100, *arguments]
    now = evaluate(*coded, "--no-figures", tmp_path / "out")
    own = evaluate("--music", music, *arguments, "--no-figures", tmp_path / "own")
    for coding in ("16m", "32m"):
        assert means(now, coding, "MP3") == pytest.approx(means(prepared, coding, "MP3"), abs=0.1)
        assert means(now, coding, "MP3")["lsd"] != pytest.approx(means(own, coding, "MP3")["lsd"], abs=0.1)
    for out in ("out", "pairs-out"):
        facts = json.loads((tmp_path / out / "summary.json").read_text())
        assert (facts["coded_rate_hz"], facts["rounded_kbps"]) == (44100, {"16m": 32})
        first = (tmp_path / out / "summary.md").read_text().splitlines()[0]
        assert "coded at 44100 Hz (there is no such bitrate at 44100 Hz, so LAME writes 16m as 32 kbit/s" in first
    assert "coded at" not in (tmp_path / "own" / "summary.md").read_text()
    for words, reason in (
        (["--music", music, *arguments, "--out", tmp_path / "out"], "coded_rate_hz 44100 and not None"),
        (["--pairs", tmp_path / "pairs", "--coded-rate", 44100, *arguments, "--out", "x"], "are coded already"),
    ):
        refused = run(*words)
        assert refused.exit_code == 2 and reason in refused.stderr, refused.output


def test_summary_and_figures_are_complete(music, models, tmp_path):
    out = tmp_path / "out"
    result = run(
        "--music", music, "--split", "all", "--model", models["stochastic"], models["identity"],
        "--kbps", 32, 64, "--metrics", "snr,lsd", "--takes", 2, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stderr.count("drawn of 2 excerpts and not 50; more: --excerpts-per-song") == 2
    table = json.loads((out / "summary.json").read_text())["table"]
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert {"figure4.png", "figure5-identity.png", "figure5-stochastic.png"} < set(pictures)
    assert sum(name.startswith("figure3-stochastic-") for name in pictures) == 2
    assert all((out / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for name in pictures)
    assert not list(out.glob(".*"))
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(table) == 2 * 5
    for row, line in zip(rows, table, strict=True):
        assert float(row["lsd"]) == pytest.approx(line["metrics"]["lsd"]["mean"], rel=1e-3)
        value = line["metrics"]["lsd"]
        assert value["low"] <= value["mean"] <= value["high"]
    text = (out / "summary.md").read_text()
    first = text.splitlines()[0]
    assert "stochastic version 0" in first and f"'{music.name}'" in first and "ONNX Runtime" in first
    assert "| 64 mono | stochastic, best of 2 |" in text
    assert "ODG |" not in text


def test_figure_5_has_three_z_however_many_takes_were_measured(music, models, tmp_path):
    arguments = ["--music", music, "--split", "all", "--model", models["stochastic"], "--kbps", 32]
    arguments += ["--metrics", "snr", "--excerpts-per-song", 2]
    evaluate(*arguments, "--takes", 1, tmp_path / "one")
    evaluate(*arguments, "--takes", 3, "--no-figures", tmp_path / "three")

    def profiles(out):
        rows = [json.loads(line) for line in (tmp_path / out / "profiles.jsonl").read_text().splitlines()]
        return {(row["song"], row["excerpt"], row["system"], row["take"]): row["frequency"] for row in rows}

    one, three = profiles("one"), profiles("three")
    assert one.keys() == three.keys() and len([key for key in one if key[3] == 2]) == 3  # excerpts
    for key, values in three.items():
        assert one[key] == pytest.approx(values, rel=1e-2, abs=1e-3)


def test_figures_show_excerpts_of_all_songs():
    assert spread(range(1000), 50) == sorted(set(spread(range(1000), 50)))
    assert spread(range(1000), 50)[::49] == [0, 999] and np.diff(spread(range(1000), 50)).max() <= 21
    assert spread("abc", 50) == ["a", "b", "c"] and spread("", 50) == []


def test_excerpts_are_aligned_warm_and_as_loud_as_asked(music):
    long = next(song for song in find_music(music, None, "all", ("32m", "64j")) if song.channels == 2)
    start, samples = long.bounds(1, 2, SECONDS)
    assert (start, samples) == ((long.samples * 3 // 2 - 2 * SAMPLE_RATE) // 2, 2 * SAMPLE_RATE)
    assert long.bounds(0, 2, SECONDS)[0] + samples <= start and start + samples <= long.samples
    for coding in long.codings:
        excerpt = read_excerpt(long, coding, start, samples, normalise=False)
        assert excerpt.before == SAMPLE_RATE
        assert excerpt.original.shape == excerpt.coded.shape == (2 if coding == "64j" else 1, samples)
        assert align(excerpt.original, excerpt.coded, SAMPLE_RATE).lag_samples == 0
    whole, _ = soundfile.read(music / "long.wav", dtype="float32", always_2d=True)
    quiet = read_excerpt(long, "64j", start, samples, normalise=False)
    loud = read_excerpt(long, "64j", start, samples, normalise=True)
    assert np.allclose(loud.original * np.abs(whole).max(), quiet.original, atol=1e-6)


def test_a_silent_song_is_skipped_and_named(models, tmp_path):
    (tmp_path / "music").mkdir()
    write_song(tmp_path / "music" / "song.wav", SECONDS, 5)
    soundfile.write(tmp_path / "music" / "silence.wav", np.zeros((2 * SAMPLE_RATE, 1)), SAMPLE_RATE)
    soundfile.write(tmp_path / "music" / "blip.wav", np.zeros((SAMPLE_RATE, 1)), SAMPLE_RATE)
    table = evaluate(
        "--music", tmp_path / "music", "--split", "all", "--model", models["identity"], "--kbps", 64,
        "--no-figures", tmp_path / "out",
    )  # fmt: skip
    assert {line["excerpts"] for line in table} == {1}
    (skipped,) = json.loads((tmp_path / "out" / "summary.json").read_text())["skipped"]
    assert skipped.startswith("silence.wav, 64m: reference")


def test_manifest_decides_the_split(music, models, tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("file,split\nlong.wav,train\nshort.wav,test\n")
    arguments = ["--music", music, "--manifest", manifest, "--model", models["identity"], "--kbps", 64]
    table = evaluate(*arguments, "--metrics", "lsd", "--no-figures", tmp_path / "out")
    assert {line["songs"] for line in table} == {1}
    refused = run(*arguments, "--split", "valid", "--out", tmp_path / "other")
    assert refused.exit_code == 2
    assert "none of the 2 songs" in refused.stderr and "--split all" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metrics", "lsd,pesq"], "not 'pesq'"),
        (["--kbps", "17"], "not 17"),
        (["--model", "missing.onnx"], "does not exist"),
        (["--pairs", "."], "--music DIR or --pairs DIR"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(music, tmp_path, arguments, words):
    result = run("--music", music, "--split", "all", *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_estimate_knows_songs_from_excerpts():
    rng = np.random.default_rng(0)
    songs = [f"{k}" for k in range(40)]
    values = rng.normal(3, 1, 40)
    mean, low, high = estimate(values, songs)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.1)
    # Ten equal excerpts of every song say nothing new.
    _, low_10, high_10 = estimate(np.repeat(values, 10), list(np.repeat(songs, 10)))
    assert (low_10, high_10) == pytest.approx((low, high))
    assert estimate(np.full(5, 2.0), songs[:5]) == (2, 2, 2)
