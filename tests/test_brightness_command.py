"""`--brightness` of `restorer restore`: for a file, a folder and a pipe, and part of what makes an output done."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_bright import DB_PER_UNIT, save_bright
from toy_model import save_identity

from restorer.brightness import upper_level_db
from restorer.cli import main

RATE_HZ = 44100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bright(tmp_path_factory.mktemp("model") / "bright.onnx")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Half a second of noise up to 9 kHz, float WAV."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal((2, 22050)))
    spectrum[:, 4500:] = 0
    path = tmp_path / "album" / "song.wav"
    path.parent.mkdir()
    soundfile.write(path, 0.05 * np.fft.irfft(spectrum, 22050).T, RATE_HZ, subtype="FLOAT")
    return path


def run(*arguments: object, model: Path, data: bytes | None = None) -> Result:
    command = ["restore", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command, input=data)


def level(audio: np.ndarray) -> float:
    return upper_level_db(np.ascontiguousarray(audio.T, np.float32), RATE_HZ, 11500.0)


def test_files_get_brighter(tmp_path: Path, song: Path, model: Path) -> None:
    levels = []
    for value in ("dark", "-1", "neutral", "0.5", "bright"):
        target = tmp_path / f"{value}.wav"
        assert run(song, target, "--brightness", value, "--bits", "float", model=model).exit_code == 0
        levels.append(level(soundfile.read(target)[0]))
    np.testing.assert_allclose(np.diff(levels), DB_PER_UNIT * np.array([1, 1, 0.5, 1.5]), atol=0.1)


def test_candidates_share_it_and_differ(tmp_path: Path, song: Path, model: Path) -> None:
    arguments = ["--brightness", "1", "--candidates", "2", "--bits", "float"]
    assert run(song, tmp_path / "out.wav", *arguments, model=model).exit_code == 0
    levels = [level(soundfile.read(tmp_path / f"out.seed{seed}.wav")[0]) for seed in (0, 1)]
    # The toy has brightness and nothing else, so its takes agree.
    assert levels[0] == pytest.approx(levels[1], abs=1e-3)


def test_a_pipe_takes_it(tmp_path: Path, song: Path, model: Path) -> None:
    result = run("-", "-", "--brightness", "dark", "--bits", "float", model=model, data=song.read_bytes())
    assert result.exit_code == 0
    assert run(song, tmp_path / "out.wav", "--brightness", "dark", "--bits", "float", model=model).exit_code == 0
    piped, _ = soundfile.read(io.BytesIO(result.stdout_bytes))
    np.testing.assert_allclose(piped, soundfile.read(tmp_path / "out.wav")[0], atol=1e-6)


def test_what_is_done_at_another_brightness_is_done_again(tmp_path: Path, song: Path, model: Path) -> None:
    def status(*more: object) -> str:
        assert run(song.parent, tmp_path / "out", *more, model=model).exit_code == 0
        report = json.loads((tmp_path / "out" / "restorer-report.json").read_text())
        return str(report["outcomes"][0]["status"])

    assert [status(), status()] == ["restored", "skipped"]
    assert [status("--brightness", "bright"), status("--brightness", 2)] == ["restored", "skipped"]
    assert [status("--brightness", "neutral"), status()] == ["restored", "restored"]


@pytest.mark.parametrize("folder", [False, True])
def test_one_line_says_what_is_wrong(tmp_path: Path, song: Path, model: Path, folder: bool) -> None:
    source, target = (song.parent, tmp_path / "out") if folder else (song, tmp_path / "out.wav")
    identity = save_identity(tmp_path / "identity.onnx")
    unknown = save_bright(tmp_path / "unknown.onnx", known=False)
    for value, file, words in [
        ("loud", model, "brightness must be dark, neutral, bright or a number from -4 (dark) to 4 (bright)"),
        ("4.5", model, "and not '4.5'"),
        ("dark", identity, "has no noise"),
        ("dark", unknown, "carries no brightness direction"),
    ]:
        result = run(source, target, "--brightness", value, model=file)
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr
        assert not list(tmp_path.rglob("out*/song*")) and not (tmp_path / "out.wav").exists()
