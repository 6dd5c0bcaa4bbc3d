"""Inspection: the measured cut-off, the verdicts, and the command."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner
from scipy import signal

from restorer import inspect_command
from restorer.codec_facts import CodecFacts
from restorer.cutoff import Cutoff, LongTermSpectrum, find_cutoff
from restorer.inspect_command import inspect
from restorer.inspection import inspect_file, judge
from restorer.synthesis import synthesize

RATE_HZ = 44100


@pytest.fixture(scope="module")
def music() -> np.ndarray:
    return synthesize(5.0, RATE_HZ, 0, 2)


def cutoff_of(audio: np.ndarray, sample_rate: int) -> Cutoff:
    spectrum = LongTermSpectrum(sample_rate)
    spectrum.add(audio.astype(np.float32))
    return find_cutoff(spectrum.loud_power(), sample_rate)


def decode(data: bytes) -> tuple[np.ndarray, int]:
    audio, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return audio.T, rate


def write_mp3(path: Path, audio: np.ndarray, kbps: int) -> Path:
    from restorer.lame import encode_mp3

    path.write_bytes(encode_mp3(audio, RATE_HZ, kbps, quality=7))
    return path


@pytest.mark.parametrize(("kbps", "khz"), [(16, 5.5), (24, 5.8), (32, 8.3), (48, 11.0), (64, 16.4), (96, 20.0)])
def test_lame_cut_offs_are_found(music: np.ndarray, kbps: int, khz: float) -> None:
    pytest.importorskip("lameenc")
    from restorer.lame import encode_mp3

    audio, rate = decode(encode_mp3(music[:1], RATE_HZ, kbps))
    coded = cutoff_of(audio, rate).edge_hz
    assert coded == pytest.approx(1000 * khz, abs=250)
    upsampled = soxr.resample(audio.T, rate, RATE_HZ, quality="VHQ").T
    assert cutoff_of(upsampled, RATE_HZ).edge_hz == pytest.approx(coded, abs=150)


@pytest.mark.parametrize("hz", [4000, 7000, 12000, 16000])
def test_a_steep_low_pass_is_an_edge_and_a_gentle_one_is_not(music: np.ndarray, hz: int) -> None:
    for taps, tolerance_hz in ((801, 150), (201, 300)):
        steep = signal.fftconvolve(music, signal.firwin(taps, hz, fs=RATE_HZ)[None], axes=1)
        assert cutoff_of(steep, RATE_HZ).edge_hz == pytest.approx(hz, abs=tolerance_hz)
    for order in (1, 2, 4):
        gentle = signal.sosfilt(signal.butter(order, 0.5 * hz, fs=RATE_HZ, output="sos"), music)
        assert cutoff_of(gentle, RATE_HZ).edge_hz is None


def test_no_edge_without_one(music: np.ndarray) -> None:
    assert cutoff_of(music, RATE_HZ).edge_hz is None
    assert cutoff_of(music, RATE_HZ).bandwidth_hz > 20000
    assert cutoff_of(np.zeros((2, 9999)), RATE_HZ) == Cutoff(None, 0.0)
    assert cutoff_of(music[:, :100], RATE_HZ).bandwidth_hz > 0
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    tones = sum(0.1 * np.sin(2 * np.pi * 440 * k * time_s) for k in range(1, 12))
    assert cutoff_of(tones[None], RATE_HZ).edge_hz is None  # the last note is no codec


@pytest.mark.parametrize("channels", [1, 2])
def test_low_bitrates_are_restored_and_high_ones_left(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("lameenc")
    dark = signal.butter(2, 2500, fs=RATE_HZ, output="sos")
    for seed in (channels,):
        audio = synthesize(3.0, RATE_HZ, seed, 2)[:channels]
        for name, sound in (("bright", audio), ("dark", signal.sosfilt(dark, audio))):
            for kbps in (16, 48, 64):
                found = inspect_file(write_mp3(tmp_path / "low.mp3", sound, kbps))
                assert found.verdict == "restore", (name, kbps, found)
            for kbps in (192, 320):
                found = inspect_file(write_mp3(tmp_path / "high.mp3", sound, kbps))
                assert found.verdict == "leave", (name, kbps, found)
                assert ("dark" in found.reason) == (name == "dark")


def test_what_is_found_in_an_mp3(tmp_path: Path, music: np.ndarray) -> None:
    pytest.importorskip("lameenc")
    found = inspect_file(write_mp3(tmp_path / "song.mp3", music, 96))
    assert (found.codec, found.lossy, found.kbps, found.sample_rate_hz) == ("MP3", True, 96.0, 32000)
    assert (found.channels, found.stereo_mode) == (2, "joint stereo")
    assert found.encoder.startswith("LAME")
    assert found.cutoff_hz is not None
    assert found.reason == f"cut at {found.cutoff_hz / 1000:.1f} kHz: restore"
    equal = np.repeat(music[:1], 2, axis=0)
    assert "channels equal" in inspect_file(write_mp3(tmp_path / "equal.mp3", equal, 96)).stereo_mode


def test_lossless_files_are_judged_by_their_cut_off_alone(tmp_path: Path, music: np.ndarray) -> None:
    pytest.importorskip("lameenc")
    from restorer.lame import encode_mp3

    audio, rate = decode(encode_mp3(music, RATE_HZ, 48))
    for name, sound, sample_rate, verdict in (
        ("was_mp3.flac", soxr.resample(audio.T, rate, RATE_HZ), RATE_HZ, "restore"),
        ("low_rate.wav", audio.T, rate, "restore"),
        ("full.flac", music.T, RATE_HZ, "leave"),
        ("silence.wav", np.zeros((9999, 2)), RATE_HZ, "leave"),
    ):
        soundfile.write(tmp_path / name, sound, sample_rate)
        assert inspect_file(tmp_path / name).verdict == verdict, name


def test_judge() -> None:
    full, cut = Cutoff(20000.0, 20100.0), Cutoff(16400.0, 16500.0)
    assert judge(CodecFacts("MP3", 128, "mono", ""), full, RATE_HZ, 1)[0] == "leave"
    assert judge(CodecFacts("MP3", 128, "stereo", ""), full, RATE_HZ, 2) == ("restore", "only 128 kbit/s: restore")
    assert judge(CodecFacts("MP3", 120, "stereo", "", vbr_quality=2), full, RATE_HZ, 2)[0] == "leave"
    assert judge(CodecFacts("Opus", 128, "stereo", ""), full, 48000, 2)[0] == "leave"
    assert judge(CodecFacts("Opus", 64, "mono", ""), full, 48000, 1)[0] == "restore"
    assert judge(CodecFacts("MP3", 320, "stereo", ""), cut, RATE_HZ, 2)[0] == "restore"
    assert judge(CodecFacts("FLAC", 30, "stereo", ""), full, RATE_HZ, 2)[0] == "leave"


def test_clipped_samples_and_bitrate_without_the_cover(tmp_path: Path, music: np.ndarray) -> None:
    from mutagen.flac import FLAC, Picture

    audio = music.copy()
    audio[0, 100:110], audio[1, 200] = 1.0, -1.0
    soundfile.write(tmp_path / "a.flac", audio.T, RATE_HZ)
    before = inspect_file(tmp_path / "a.flac")
    assert before.clipped_samples == 11
    assert inspect_file(tmp_path / "a.flac", count_clipped=False).clipped_samples is None
    file, picture = FLAC(tmp_path / "a.flac"), Picture()
    picture.mime, picture.data = "image/png", bytes(2_000_000)
    file.add_picture(picture)
    file.save()
    assert inspect_file(tmp_path / "a.flac").kbps == pytest.approx(before.kbps, rel=0.05)


def test_a_long_file_takes_less_than_a_second(tmp_path: Path, music: np.ndarray) -> None:
    pytest.importorskip("lameenc")
    from restorer.lame import encode_mp3

    frames = encode_mp3(music[:, : 5 * RATE_HZ], RATE_HZ, 192, quality=7)
    (tmp_path / "long.mp3").write_bytes(frames * 48)
    inspect_file(tmp_path / "long.mp3", count_clipped=False)
    before = time.process_time()
    found = inspect_file(tmp_path / "long.mp3", count_clipped=False)
    assert time.process_time() - before < 1.0
    assert found.seconds > 230
    assert found.verdict == "leave"


def test_command(tmp_path: Path, music: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lameenc")
    (tmp_path / "album" / "cd").mkdir(parents=True)
    low = write_mp3(tmp_path / "album" / "cd" / "low.mp3", music, 32)
    soundfile.write(tmp_path / "album" / "full.wav", music.T, RATE_HZ)

    def run(*arguments: object):
        return CliRunner().invoke(inspect, [str(argument) for argument in arguments])

    drawn: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(inspect_command, "_draw", lambda _, path: drawn.append(path.relative_to(tmp_path).as_posix()))
        result = run(tmp_path / "album", "--png", tmp_path / "pictures")
    assert sorted(drawn) == ["pictures/cd/low.mp3.png", "pictures/full.wav.png"]
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["FILE", "CODEC", "KBIT/S", "RATE"]
    assert len(lines) == 3
    assert any(line.startswith("cd/low.mp3") and line.endswith("kHz: restore") for line in lines)
    assert any(line.startswith("full.wav") and line.endswith("transparent: leave") for line in lines)
    (value,) = json.loads(run(low, "--json", "--png", tmp_path / "low.png").stdout)
    assert value["verdict"] == "restore"
    assert value["kbps"] == 32
    assert (tmp_path / "low.png").read_bytes()[:4] == b"\x89PNG"

    (tmp_path / "album" / "bad.mp3").write_text("no music")
    result = run(tmp_path / "album", "--json")
    assert result.exit_code == 1
    entries = {Path(entry["path"]).name: entry for entry in json.loads(result.stdout)}
    assert (entries["low.mp3"]["verdict"], entries["full.wav"]["verdict"]) == ("restore", "leave")
    failed = entries["bad.mp3"]
    assert set(failed) == {"path", "error"} and failed["error"].startswith("cannot read ")
    assert result.stderr == f"Failed: {failed['error']}\n"
