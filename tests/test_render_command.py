"""`restorer render`: repeatable, goes on where it was ended, leaves nothing half done, and says what is wrong."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import soundfile

pytest.importorskip("mido")
pytest.importorskip("pedalboard")
pytest.importorskip("torch")

from click.testing import CliRunner
from toy_rendering import soundfont, write_fluidsynth, write_midi

from restorer.errors import RestorerError
from restorer.training.manifest import read_manifest
from restorer.training.mix_command import music_sources
from restorer.training.prepare_command import plan
from restorer.training.render_command import render_command


def invoke(*words):
    return CliRunner().invoke(render_command, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """A folder with MIDI files, one of them broken, a soundfont, and a PATH with a FluidSynth of ours."""
    folder = tmp_path_factory.mktemp("materials")
    (folder / "midi" / "deep").mkdir(parents=True)
    write_midi(folder / "midi" / "deep" / "song.MID", 30.0)
    (folder / "midi" / "broken.mid").write_bytes(b"MThd")
    (folder / "toy.sf2").write_bytes(soundfont([(0, 0), (0, 33), (128, 0)]))
    write_fluidsynth(folder / "bin")
    return folder


@pytest.fixture
def on_path(materials, monkeypatch):
    monkeypatch.setenv("PATH", f"{materials / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def finished(materials, tmp_path_factory):
    """Three pieces that two processes made, and what was said."""
    folder = tmp_path_factory.mktemp("run") / "renderings"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{materials / 'bin'}{os.pathsep}{os.environ['PATH']}")
        words = ["--midi", materials / "midi", "--soundfont", materials / "toy.sf2", "--synthesised", 0.4, "--seed", 2]
        result = invoke(folder, *words, "--count", 3, "--seconds", 12, "--workers", 2)
    assert result.exit_code == 0, result.output
    return folder, words, result.output


def test_pool_mix_and_prepare_understand_the_folder(finished):
    folder, _, output = finished
    assert f"3 pieces, 0.6 minutes, in {output.split(' in ')[1].split(' s;')[0]} s; 3 in '{folder}'" in output
    assert "Skipped MIDI file" in output and "broken.mid" in output
    assert [source.path.name for source in music_sources(folder)] == [f"piece2-0000{index}.flac" for index in range(3)]
    tasks = plan(folder, None, folder / "MANIFEST.csv", ())
    assert {task.split for task in tasks} == {"train"}
    assert {task.row["artist"] for task in tasks} <= {"rendered", "synthesised"}
    assert all(task.row["title"] and task.row["licence"] for task in tasks)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_started_again_it_makes_what_is_missing_and_the_same(finished, tmp_path, on_path):
    folder, words, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "piece2-00001.flac").unlink()
    old = (copy / "piece2-00000.flac").stat().st_mtime_ns
    result = invoke(copy, *words, "--count", 3, "--seconds", 12, "--workers", 1)  # one process this time
    assert "1 pieces" in result.output and "3 in" in result.output
    assert (copy / "piece2-00000.flac").stat().st_mtime_ns == old
    for name in ("piece2-00001.flac", "MANIFEST.csv"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    assert "0 pieces" in invoke(copy, *words, "--count", 3, "--seconds", 12).output


def command(folder, *words):
    line = [sys.executable, "-m", "restorer", "render", str(folder), "--seconds", "12", "--workers", "1", *words]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def pieces(folder):
    return sorted(folder.glob("*.flac"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_half_done(tmp_path, number):
    folder = tmp_path / "renderings"
    process = command(folder, "--count", "500")
    deadline = time.monotonic() + 60
    while not (folder / "MANIFEST.csv").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)  # a run killed before its first manifest has made nothing yet
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), errors
    if number == signal.SIGINT:
        assert "run it again to go on" in errors and "Traceback" not in errors
        assert not list(folder.glob(".*"))
        assert set(read_manifest(folder / "MANIFEST.csv")) == {path.name for path in pieces(folder)}
    else:
        time.sleep(1)  # for its process to find that nobody is there
    assert pieces(folder) and all(soundfile.read(path)[0].shape[1] == 2 for path in pieces(folder))
    assert {source.path for source in music_sources(folder)} <= set(pieces(folder))


def refused(message, *words):
    with pytest.raises(RestorerError, match=message) as raised:
        invoke(*words)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_is_told_in_one_line(materials, tmp_path, monkeypatch):
    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    refused("no MIDI files below .*looked for .mid, .midi", new, "--midi", empty)
    (empty / "broken.mid").write_bytes(b"MThd")
    refused("none of the 1 MIDI files below .* can be read; the first", new, "--midi", empty)
    refused("broken.mid' is no soundfont", new, "--soundfont", empty / "broken.mid")
    refused("no sounds below", new, "--oneshots", empty)
    refused("cannot make the folder", empty / "broken.mid" / "below")
    monkeypatch.setenv("PATH", str(empty))
    refused("no program 'fluidsynth' is on the PATH; install it", new, "--soundfont", materials / "toy.sf2")
    (empty / "MANIFEST.csv").write_text("file,split\nsong.flac,train\n")
    refused("is of other music, such as 'song.flac'", empty, "--count", 1)
    assert not new.exists() and (empty / "MANIFEST.csv").read_text().endswith("song.flac,train\n")


def test_a_fluidsynth_that_always_fails_ends_the_run_with_its_reason(materials, tmp_path, monkeypatch):
    write_fluidsynth(tmp_path / "bin", "fail")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    words = ("--soundfont", materials / "toy.sf2", "--synthesised", 0, "--count", 1, "--workers", 1)
    refused("none of 1 pieces could be made; 1 because: FluidSynth ended with status 1", tmp_path / "out", *words)
    assert not list((tmp_path / "out").iterdir())
