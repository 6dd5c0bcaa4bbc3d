"""The command line: what a user types, what comes out, and one clear line with status 2 when it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import save_convolution, save_identity

import restorer
from restorer import cli
from restorer.cli import COMMANDS, Entry, main

ROOT = Path(restorer.__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """One second of a 22.05 kHz stereo MP3 with a title."""
    from mutagen import id3

    path = tmp_path / "song.mp3"
    time = np.arange(22050) / 22050
    audio = 0.3 * np.sin(2 * np.pi * np.outer(time, [440, 660]))
    soundfile.write(path, audio, 22050, bitrate_mode="CONSTANT", compression_level=0.6)
    tags = id3.ID3()
    tags.add(id3.TIT2(text=["A title"]))
    tags.save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_restore(source: Path, target: Path, model: Path, *more: object) -> Result:
    return run("restore", source, target, "--model", model, "--device", "cpu", "--threads", 1, *more)


def check_refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert words in lines[0]
    assert result.stdout == ""


def python(*arguments: object, code: str | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *(["-c", code] if code else ["-m", "restorer"]), *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_restore(tmp_path: Path, song: Path, model: Path, suffix: str) -> None:
    import mutagen

    target = tmp_path / f"out{suffix}"
    result = run_restore(song, target, model)
    assert result.exit_code == 0, result.output
    read, rate = soundfile.read(target)
    assert (read.shape, rate) == ((44100, 2), 44100)
    assert "A title" in str(mutagen.File(target).tags)
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    for part in ("0:01.0 restored in", "real-time factor", "peak memory", "samples clipped"):
        assert part in lines[0]
    assert sorted(os.listdir(tmp_path)) == sorted([target.name, "song.mp3"])


@pytest.mark.parametrize(
    ("bits", "subtype"), [("16", "PCM_16"), ("24", "PCM_24"), ("float", "FLOAT"), (None, "PCM_24")]
)
@pytest.mark.parametrize("option", ["--bits", "--subtype"])
def test_sample_format(tmp_path: Path, song: Path, model: Path, bits: str | None, subtype: str, option: str) -> None:
    assert run_restore(song, tmp_path / "out.wav", model, *([option, bits] if bits else [])).exit_code == 0
    assert soundfile.info(tmp_path / "out.wav").subtype == subtype


def test_seeds_and_candidates(tmp_path: Path, song: Path, model: Path) -> None:
    result = run_restore(song, tmp_path / "out.flac", model, "--candidates", 3, "--seed", 5)
    assert result.exit_code == 0, result.output
    names = [f"out.seed{seed}.flac" for seed in (5, 6, 7)]
    assert sorted(os.listdir(tmp_path)) == [*names, "song.mp3"]
    takes = [soundfile.read(tmp_path / name)[0] for name in names]
    assert not np.array_equal(takes[0], takes[1])
    assert run_restore(song, tmp_path / "one.flac", model, "--seed", 6).exit_code == 0
    assert np.array_equal(soundfile.read(tmp_path / "one.flac")[0], takes[1])


def test_no_candidate_is_made_when_one_is_in_the_way(tmp_path: Path, song: Path, model: Path) -> None:
    (tmp_path / "out.seed2.wav").write_text("mine")
    check_refused(run_restore(song, tmp_path / "out.wav", model, "--candidates", 3), "out.seed2.wav exists")
    assert sorted(os.listdir(tmp_path)) == ["out.seed2.wav", "song.mp3"]
    assert run_restore(song, tmp_path / "out.wav", model, "--candidates", 3, "--overwrite").exit_code == 0


def test_takes_that_would_all_be_the_same_are_refused(tmp_path: Path, song: Path) -> None:
    one = save_identity(tmp_path / "one.onnx")
    check_refused(run_restore(song, tmp_path / "out.wav", one, "--candidates", 3), "toy has no noise: all 3 takes")
    result = CliRunner().invoke(main, ["takes", str(song), str(tmp_path / "takes"), "--model", str(one)])
    check_refused(result, "toy has no noise: all 6 takes would be the same")
    assert sorted(os.listdir(tmp_path)) == ["one.onnx", "song.mp3"]
    assert run_restore(song, tmp_path / "out.wav", one, "--candidates", 1).exit_code == 0


def test_mix_zero_is_the_input(tmp_path: Path, song: Path, model: Path) -> None:
    from restorer.audio_in import read_audio

    assert run_restore(song, tmp_path / "out.wav", model, "--mix", 0, "--bits", "float").exit_code == 0
    np.testing.assert_allclose(read_audio(tmp_path / "out.wav")[0], read_audio(song)[0], atol=1e-4)


@pytest.mark.parametrize("damage", ["truncated", "damaged"])
def test_a_broken_mp3_is_restored_with_a_warning(tmp_path: Path, song: Path, model: Path, damage: str) -> None:
    data = song.read_bytes()
    middle = len(data) // 2
    song.write_bytes(data[:middle] + (b"" if damage == "truncated" else bytes(9000) + data[middle:]))
    result = run_restore(song, tmp_path / "out.wav", model)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1
    assert damage in warnings[0]
    assert 10000 < soundfile.info(tmp_path / "out.wav").frames < 44101


@pytest.mark.parametrize("name", ["same.wav", "other.flac"])
def test_a_transparent_file_is_copied_with_a_note(tmp_path: Path, model: Path, name: str) -> None:
    source, target = tmp_path / "full.wav", tmp_path / name
    random = np.random.default_rng(0)
    soundfile.write(source, random.uniform(-0.5, 0.5, (44100, 2)), 44100, "PCM_16")
    result = run_restore(source, target, model)
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 1
    assert "transparent" in notes[0] and "--force" in notes[0]
    said, word = ("copied unprocessed", "copied") if name == "same.wav" else ("converted to 44.1 kHz FLAC", "converted")
    assert f"it was {said}" in notes[0] and f" {word} in " in result.stderr
    np.testing.assert_array_equal(soundfile.read(target)[0], soundfile.read(source)[0])
    if name == "same.wav":
        assert target.read_bytes() == source.read_bytes()
    result = run_restore(source, target, model, "--force", "--overwrite")
    assert result.exit_code == 0 and "Note" not in result.stderr
    assert not np.array_equal(soundfile.read(target)[0], soundfile.read(source)[0])
    run_restore(source, tmp_path / "take.wav", model, "--candidates", 1)
    assert not np.array_equal(soundfile.read(tmp_path / "take.seed0.wav")[0], soundfile.read(source)[0])


def test_a_transparent_file_of_another_rate_or_format_is_converted(tmp_path: Path, model: Path) -> None:
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "full.wav", random.uniform(-0.5, 0.5, (48000, 1)), 48000, "PCM_24")
    assert run_restore(tmp_path / "full.wav", tmp_path / "a.wav", model, "--bits", 16).exit_code == 0
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.samplerate, info.frames, info.subtype) == (44100, 44100, "PCM_16")
    result = run_restore(tmp_path / "full.wav", tmp_path / "a.opus", model)
    assert result.exit_code == 0 and "it was converted to 48 kHz Opus, not restored" in result.stderr
    assert soundfile.info(tmp_path / "a.opus").frames == 48000
    soundfile.write(tmp_path / "high.flac", random.uniform(-0.5, 0.5, (96000, 2)), 96000)
    result = run_restore(tmp_path / "high.flac", tmp_path / "b.flac", model)
    assert result.exit_code == 0 and "it was converted to 44.1 kHz FLAC, not restored" in result.stderr
    assert soundfile.info(tmp_path / "b.flac").samplerate == 44100


def test_options_of_folders_are_refused_for_a_file(tmp_path: Path, song: Path, model: Path) -> None:
    for option in (["--format", "mp3"], ["--jobs", 2], ["--dry-run"]):
        check_refused(run_restore(song, tmp_path / "out.wav", model, *option), option[0])


# Bad input: one line, status 2, nothing written.


def make_bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty.mp3").touch()
    (folder / "text.mp3").write_text("no music " * 999)
    (folder / "notes.xyz").write_text("no music " * 999)
    soundfile.write(folder / "nothing.wav", np.zeros((0, 2)), 44100)
    for name, value in [("nan", np.nan), ("inf", np.inf)]:
        audio = np.zeros((90000, 2), np.float32)
        audio[80000, 1] = value
        soundfile.write(folder / f"{name}.wav", audio, 44100, subtype="FLOAT")
    return {
        "missing": (folder / "missing.mp3", "does not exist"),
        "folder": (folder, "is a folder"),
        "empty": (folder / "empty.mp3", "is empty"),
        "text": (folder / "text.mp3", "cannot read"),
        "extension": (folder / "notes.xyz", "cannot read"),
        "zero length": (folder / "nothing.wav", "holds no audio"),
        "nan": (folder / "nan.wav", "NaN or infinity"),
        "inf": (folder / "inf.wav", "NaN or infinity"),
    }


BAD_INPUTS = ["missing", "folder", "empty", "text", "extension", "zero length", "nan", "inf"]


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_input(tmp_path: Path, model: Path, kind: str) -> None:
    source, words = make_bad_inputs(tmp_path)[kind]
    before = sorted(os.listdir(tmp_path))
    check_refused(run_restore(source, tmp_path / "out.wav", model), words)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.aac", "unsupported extension '.aac'; allowed are .wav, .flac, .ogg, .mp3"),
        ("no/out.wav", "does not exist"),
        ("song.mp3", "is the input itself"),
    ],
)
def test_bad_target(tmp_path: Path, song: Path, model: Path, name: str, words: str) -> None:
    before = song.read_bytes()
    check_refused(run_restore(song, tmp_path / name, model, "--overwrite"), words)
    assert os.listdir(tmp_path) == ["song.mp3"]
    assert song.read_bytes() == before


def test_unwritable_target(song: Path, model: Path) -> None:
    check_refused(run_restore(song, Path("/proc/out.wav"), model), "cannot write /proc/out.wav")


def test_existing_target(tmp_path: Path, song: Path, model: Path) -> None:
    (tmp_path / "out.wav").write_text("mine")
    check_refused(run_restore(song, tmp_path / "out.wav", model), "--overwrite")
    assert (tmp_path / "out.wav").read_text() == "mine"
    assert run_restore(song, tmp_path / "out.wav", model, "--overwrite").exit_code == 0
    assert soundfile.info(tmp_path / "out.wav").frames == 44100


def test_full_disk(tmp_path: Path, song: Path, model: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        result = run_restore(song, tmp_path / "out.wav", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_refused(result, "cannot write")
    assert os.listdir(tmp_path) == ["song.mp3"]


@pytest.mark.parametrize("kind", ["missing", "corrupt", "foreign", "newer"])
def test_bad_model(tmp_path: Path, song: Path, kind: str) -> None:
    from toy_model import save_identity

    path = tmp_path / "bad.onnx"
    if kind == "corrupt":
        path.write_bytes(b"not a model" * 99)
    elif kind == "foreign":
        import onnx
        from onnx import TensorProto, helper

        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", value[:1], value[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    elif kind == "newer":
        save_identity(path, format_version=99)
    check_refused(run_restore(song, tmp_path / "out.wav", path), "bad.onnx")
    assert not (tmp_path / "out.wav").exists()


def test_cuda_without_cuda(tmp_path: Path, song: Path, model: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have CUDA")
    result = run("restore", song, tmp_path / "out.wav", "--model", model, "--device", "cuda")
    check_refused(result, "'cuda' does not work here")
    assert os.listdir(tmp_path) == ["song.mp3"]


def test_onnx_runtime_not_installed(tmp_path: Path, song: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from restorer.cli import main; main(sys.argv[1:], prog_name='restorer')"
    )
    done = python("restore", song, tmp_path / "out.wav", code=code)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "restorer[cpu]"' in done.stderr
    assert 'pip install "restorer[gpu]"' in done.stderr
    assert os.listdir(tmp_path) == ["song.mp3"]


def test_wrong_options(tmp_path: Path, song: Path, model: Path) -> None:
    for option in [("--mix", 2), ("--seed", -1), ("--candidates", 0), ("--bits", 12), ("--device", "tpu")]:
        assert run_restore(song, tmp_path / "out.wav", model, *option).exit_code == 2
    check_refused(run_restore(song, tmp_path / "out.mp3", model, "--bits", 16), "none to choose")


# The group: quick, and clear about what is missing.


def test_help_lists_all_commands_and_imports_none() -> None:
    code = (
        "import sys\nfrom restorer.cli import main\n"
        "try:\n    main(['--help'], prog_name='restorer')\n"
        "finally:\n    print(sorted({'numpy', 'onnxruntime', 'soundfile', 'torch'} & set(sys.modules)))"
    )
    done = python(code=code)
    assert done.returncode == 0
    for name, entry in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert entry.help in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_version_and_module() -> None:
    done = python("--version")
    assert done.stdout == f"restorer, version {restorer.__version__}\n"
    assert python("restore", "--help").returncode == 0
    assert python("nonsense").returncode == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    pytest.importorskip(COMMANDS[name].module)
    result = run(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


def write_command(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "extra_command.py").write_text(
        f"import click\n@click.command()\ndef extra():\n    {body}\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "extra_command", raising=False)
    monkeypatch.setitem(cli.COMMANDS, "extra", Entry("extra_command", "extra", "An extra.", "train"))


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_command(tmp_path, "import library_that_is_missing.part", monkeypatch)
    check_refused(run("extra"), "library_that_is_missing, which is not installed or is damaged; run: pip install")
    monkeypatch.setitem(cli.COMMANDS, "extra", Entry("also_missing", "extra", "An extra.", "train"))
    check_refused(run("extra"), 'pip install "restorer[train]"')


def test_a_bug_of_our_own_is_no_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_command(tmp_path, "import restorer.no_such_module", monkeypatch)
    assert isinstance(run("extra").exception, ModuleNotFoundError)


def test_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_command(tmp_path, "raise KeyboardInterrupt", monkeypatch)
    result = run("extra")
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted"


def test_known_errors_take_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_command(tmp_path, "from restorer.errors import ConfigError; raise ConfigError('bad\\n  thing')", monkeypatch)
    check_refused(run("extra"), "Error: bad thing")
