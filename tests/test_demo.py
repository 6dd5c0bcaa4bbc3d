"""`restorer demo` on the bundled model, and what it is made of."""

import builtins
import re
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from scipy import signal

from restorer import RestorerError
from restorer.audio_in import read_audio
from restorer.demo_command import NAMES, demo, mp3_of_piece, shift
from restorer.lame import encode_mp3
from restorer.metrics import align, lsd
from restorer.synthesis import synthesize

BUNDLED_MP3 = files("restorer").joinpath("data/demo_32k.mp3")
needs_model = pytest.mark.skipif(
    not files("restorer").joinpath("weights/compact.onnx").is_file(), reason="the bundled model is not there"
)


@pytest.fixture(scope="module")
def piece():
    return synthesize()


@pytest.fixture
def no_encoder(monkeypatch):
    real = builtins.__import__

    def without_lameenc(name, *rest, **keywords):
        if name == "lameenc":
            raise ImportError("No module named 'lameenc'")
        return real(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_lameenc)


def test_bundled_mp3_is_the_piece_of_seed_0(piece):
    data = BUNDLED_MP3.read_bytes()
    assert len(data) < 200_000
    decoded, rate = read_audio(str(BUNDLED_MP3))
    assert rate == 44100
    lag = align(piece, decoded, 44100).lag_samples
    aligned = shift(decoded, lag, piece.shape[1])
    low = signal.butter(4, 3000, fs=44100, output="sos")
    heard, made = signal.sosfilt(low, aligned), signal.sosfilt(low, piece)
    assert np.corrcoef(heard.ravel(), made.ravel())[0, 1] > 0.98
    with soundfile.SoundFile(BytesIO(data)) as file:
        assert lag == pytest.approx(1105 * 44100 / file.samplerate, abs=1)


def test_without_encoder_only_seed_0_works(piece, no_encoder):
    assert mp3_of_piece(piece, 0) == BUNDLED_MP3.read_bytes()
    with pytest.raises(RestorerError, match=r"--seed must be 0 and not 3 .*pip install 'restorer\[mp3\]'"):
        mp3_of_piece(piece, 3)


@pytest.mark.parametrize("channels", [1, 2])
def test_encoded_audio_is_complete(channels):
    pytest.importorskip("lameenc")
    audio = synthesize(1.0, seed=2, channels=channels)
    with soundfile.SoundFile(BytesIO(encode_mp3(audio, 44100, 32))) as file:
        assert file.channels == channels
        assert (file.frames - 1105) / file.samplerate >= 1.0


@pytest.mark.parametrize("lag", [-300, 0, 1, 3046])
def test_shift_undoes_a_delay(lag):
    audio = synthesize(1.5, seed=1)
    delayed = np.pad(audio, ((0, 0), (lag, 50))) if lag >= 0 else audio[:, -lag:]
    assert align(audio, delayed, 44100).lag_samples == lag
    back = shift(delayed, lag, audio.shape[1])
    assert back.shape == audio.shape
    start = max(0, -lag)
    assert np.array_equal(back[:, start:], audio[:, start:])
    assert not back[:, :start].any()


def test_present_files_are_kept_without_overwrite(tmp_path):
    (tmp_path / "restored.wav").write_bytes(b"mine")
    result = CliRunner().invoke(demo, [str(tmp_path)])
    assert isinstance(result.exception, RestorerError)
    assert "restored.wav exists already; name another folder or pass --overwrite" in str(result.exception)
    assert [entry.name for entry in tmp_path.iterdir()] == ["restored.wav"]


@needs_model
def test_demo_writes_all_four_files_and_closes_the_gap(tmp_path):
    folder = tmp_path / "new" / "demo"
    run = CliRunner().invoke(demo, [str(folder), "--device", "cpu"], catch_exceptions=False)
    assert run.exit_code == 0
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(NAMES)
    original, compressed, restored = (read_audio(str(folder / name))[0] for name in NAMES[:3])
    assert original.shape == (2, 12 * 44100)
    assert restored.shape == compressed.shape
    lag = align(original, compressed, 44100).lag_samples
    aligned = [shift(audio, lag, original.shape[1]) for audio in (compressed, restored)]
    before_db, after_db = (lsd(original, audio) for audio in aligned)
    assert after_db < before_db - 1
    assert (folder / "spectrograms.png").read_bytes().startswith(b"\x89PNG")

    assert all(str(folder / name) in run.output for name in NAMES)
    assert re.search(r"real-time factor \d+\.\d+ on cpu", run.output)
    printed = re.search(r"MP3 ([\d.]+) dB, restored ([\d.]+) dB", run.output)
    assert [float(value) for value in printed.groups()] == pytest.approx([before_db, after_db], abs=0.02)

    again = CliRunner().invoke(demo, [str(folder), "--device", "cpu"])
    assert isinstance(again.exception, RestorerError)
    changed = {name: (folder / name).stat().st_mtime_ns for name in NAMES}
    CliRunner().invoke(demo, [str(folder), "--device", "cpu", "--overwrite"], catch_exceptions=False)
    assert all((folder / name).stat().st_mtime_ns > changed[name] for name in NAMES)
