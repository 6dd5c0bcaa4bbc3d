"""`restorer takes`: the busiest stretch, several seeds, what is measured of them, and the files that come out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_bright import DIRECTION, NOISE_SIZE, save_bright
from toy_model import make_music, save_convolution

from restorer import Restorer, draw_noise
from restorer.cli import main
from restorer.profiles import measure_profiles, profile_difference
from restorer.takes import brightness_curve, compare_takes, find_busiest, make_takes, read_stretch, upper_band_hz

RATE_HZ = 44100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bright(tmp_path_factory.mktemp("model") / "bright.onnx")


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of a soft tone, with noise bursts from second 5 to 7; all of it below 9 kHz."""
    time = np.arange(8 * RATE_HZ) / RATE_HZ
    bursts = np.random.default_rng(0).standard_normal(len(time)) * np.exp(-20 * (time % 0.25))
    spectrum = np.fft.rfft(0.2 * bursts * ((time >= 5) & (time < 7)))
    spectrum[9000 * 8 :] = 0
    audio = 0.1 * np.sin(2 * np.pi * 330 * time) + np.fft.irfft(spectrum, len(time))
    path = tmp_path_factory.mktemp("song") / "a song.wav"
    soundfile.write(path, np.stack([audio, 0.5 * audio], axis=1), RATE_HZ, subtype="FLOAT")
    return path


def run(*arguments: object, model: Path) -> Result:
    command = ["takes", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command)


def test_the_busiest_stretch_is_found(song: Path) -> None:
    start, samples = find_busiest(song, RATE_HZ, 2.0)
    assert samples == 2 * RATE_HZ
    assert start / RATE_HZ == pytest.approx(5.0, abs=0.3)
    assert find_busiest(song, RATE_HZ, 60.0) == (0, 8 * RATE_HZ)


def test_silence_has_a_busiest_stretch_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros((3 * RATE_HZ, 1)), RATE_HZ)
    start, samples = find_busiest(tmp_path / "silence.wav", RATE_HZ, 1.0)
    assert samples == RATE_HZ and 0 <= start <= 2 * RATE_HZ


@pytest.mark.parametrize(("window", "level"), [(2048, 1.0), (600, 1.0), (600, 0.02)])
def test_takes_are_what_the_whole_song_will_sound_like(tmp_path: Path, window: int, level: float) -> None:
    hop = {2048: 512, 600: 130}[window]
    path = save_convolution(tmp_path / "toy.onnx", window, hop, warmup_frames=12)
    restorer = Restorer(path, "cpu", 1)
    audio = make_music(2, 4 * RATE_HZ) * np.float32(level)
    audio[:, : 2 * RATE_HZ] *= 0.1
    soundfile.write(tmp_path / "song.wav", audio.T, RATE_HZ, subtype="FLOAT")
    stretch = read_stretch(tmp_path / "song.wav", restorer.model_info, 1.0)
    assert stretch.start >= 1.9 * RATE_HZ
    takes = make_takes(restorer, stretch, 3, 5, None, 8000.0)
    assert sorted(take.seed for take in takes) == [5, 6, 7]
    for take in takes:
        restorer.restore_file(
            tmp_path / "song.wav", tmp_path / "out.wav", take.seed, subtype="float", turn_up=True, overwrite=True
        )
        whole = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T[:, stretch.start :][:, : stretch.samples]
        assert take.audio.shape == (2, RATE_HZ)
        assert np.abs(take.audio - whole).max() < 1e-5 * level


def test_takes_come_from_dark_to_bright(song: Path, model: Path) -> None:
    restorer = Restorer(model, "cpu", 1)
    stretch = read_stretch(song, restorer.model_info, 2.0)
    above_hz = upper_band_hz(stretch)
    assert above_hz == pytest.approx(9000, abs=150)
    takes = make_takes(restorer, stretch, 6, 0, None, above_hz)
    levels = [take.brightness_db for take in takes]
    assert levels == sorted(levels)
    own = [float(draw_noise(take.seed, NOISE_SIZE) @ DIRECTION) for take in takes]
    assert own == sorted(own)
    assert {take.curve_db.shape for take in takes} == {(8,)}


def test_brightness_over_time_follows_the_sound() -> None:
    rng = np.random.default_rng(0)
    audio = np.concatenate([0.01 * rng.standard_normal((1, RATE_HZ)), 0.1 * rng.standard_normal((1, RATE_HZ))], axis=1)
    curve = brightness_curve(audio.astype(np.float32), RATE_HZ, 11025.0)
    # White noise has half of its power above a quarter of the rate.
    np.testing.assert_allclose(curve[[1, 2, 5, 6]], [-43, -43, -23, -23], atol=0.5)
    assert brightness_curve(np.zeros((1, 100), np.float32), RATE_HZ, 8000.0).tolist() == [-160]


def test_profiles_are_the_papers() -> None:
    time = np.arange(RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * 86.1328125 * 40 * time)[None].astype(np.float32)
    steady, late = measure_profiles(tone), measure_profiles(tone * (time > 0.5))
    assert steady.frequency.shape == (256,) and np.argmax(steady.frequency) in (39, 40)
    assert np.ptp(steady.rhythm) < 0.02 * steady.rhythm.mean()
    half = len(late.rhythm) // 2
    assert late.rhythm[: half - 3].max() < 1e-3 * late.rhythm[half + 3 :].min()
    assert profile_difference(steady.frequency, steady.frequency) == 0
    assert profile_difference(steady.rhythm, 0 * steady.rhythm) == pytest.approx(2)
    assert profile_difference(np.zeros(3), np.zeros(3)) == 0


def test_differences_grow_with_the_distance_of_takes(song: Path, model: Path) -> None:
    restorer = Restorer(model, "cpu", 1)
    stretch = read_stretch(song, restorer.model_info, 2.0)
    takes = make_takes(restorer, stretch, 4, 0, None, 9000.0)
    apart = compare_takes(takes)
    np.testing.assert_array_equal(apart.frequency, apart.frequency.T)
    assert (np.diff(apart.frequency[0]) > 0).all() and (np.diff(apart.rhythm[0]) > 0).all()
    assert not np.diag(apart.frequency).any() and not np.diag(apart.rhythm).any()
    assert apart.mean()[0] == pytest.approx(apart.frequency.sum() / 12)
    assert compare_takes(takes[:1]).mean() == (0, 0)


def test_the_command_writes_takes_and_a_contact_sheet(tmp_path: Path, song: Path, model: Path) -> None:
    result = run(song, tmp_path / "out", "--n", 3, "--seconds", 2, "--seed", 7, model=model)
    assert result.exit_code == 0, result.output
    files = [f"a song-seed{seed}.flac" for seed in (7, 8, 9)]
    assert sorted(os.listdir(tmp_path / "out")) == [*files, "a song-takes.png"]
    for name in files:
        info = soundfile.info(tmp_path / "out" / name)
        assert (info.frames, info.samplerate, info.channels) == (2 * RATE_HZ, RATE_HZ, 2)
    assert (tmp_path / "out" / "a song-takes.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for words in ("0:05", "From dark to bright", "Two takes differ by", "rhythm profile", "Contact sheet: "):
        assert words in result.stdout
    again = run(song, tmp_path / "out", "--n", 3, "--seconds", 2, "--seed", 7, model=model)
    assert again.exit_code == 2 and "exists; name another folder or pass --overwrite" in again.stderr
    assert run(song, tmp_path / "out", "--n", 1, "--seconds", 2, "--seed", 7, "--overwrite", model=model).exit_code == 0


def test_json_says_the_same(tmp_path: Path, song: Path, model: Path) -> None:
    arguments = [song, tmp_path / "out", "--n", 2, "--seconds", 1, "--format", "wav", "--brightness", "dark", "--json"]
    result = run(*arguments, model=model)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["brightness"] == -2 and report["seconds"] == 1
    assert 4.9 < report["start_seconds"] < 7
    assert [Path(take["file"]).name for take in report["takes"]] == [
        f"a song-seed{take['seed']}.wav" for take in report["takes"]
    ]
    assert report["input_db"] < report["takes"][0]["brightness_db"] <= report["takes"][1]["brightness_db"]
    assert np.shape(report["differences"]["frequency"]) == (2, 2)


def test_the_default_folder_is_named_after_the_song(
    tmp_path: Path, song: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(song, "--n", 1, "--seconds", 1, model=model).exit_code == 0
    assert sorted(os.listdir(tmp_path / "a song-takes")) == ["a song-seed0.flac", "a song-takes.png"]


def test_what_is_impossible_takes_one_line(tmp_path: Path, song: Path, model: Path) -> None:
    unknown = save_bright(tmp_path / "unknown.onnx", known=False)
    (tmp_path / "file").write_text("mine")
    for arguments, file, words in [
        ([tmp_path / "none.mp3"], model, "none.mp3 does not exist"),
        ([song, tmp_path / "file"], model, "is a file; name a folder"),
        ([song, tmp_path / "out", "--brightness", "dark"], unknown, "carries no brightness direction"),
        ([song, tmp_path / "out", "--brightness", "grey"], model, "brightness must be"),
    ]:
        result = run(*arguments, model=file)
        assert result.exit_code == 2, result.output
        assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["file", "unknown.onnx"]
