"""WAV through pipes: every sample format, headers without a length, bounded memory, and the real ffmpeg."""

import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import save_convolution, save_identity

import restorer
from restorer.cli import main
from restorer.errors import AudioFileError
from restorer.pipe import WavStreamReader, WavStreamWriter

ROOT = Path(restorer.__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


def wav_bytes(audio: np.ndarray, subtype: str = "PCM_16", rate: int = 44100, **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, audio.T, rate, subtype, format=options.get("format", "WAV"))
    return file.getvalue()


def read_all(data: bytes, block: int = 777) -> np.ndarray:
    return np.concatenate(list(WavStreamReader(Drip(data)).blocks(block)), axis=1)


class Drip(io.RawIOBase):
    """A pipe: it cannot seek, and gives what it likes to at a time."""

    def __init__(self, data: bytes) -> None:
        self._data, self._rng = io.BytesIO(data), np.random.default_rng(0)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        return self._data.read(int(self._rng.integers(1, size + 1)))


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_reads_what_libsndfile_writes(rng: np.random.Generator, subtype: str, container: str) -> None:
    audio = rng.uniform(-0.9, 0.9, (2, 3000))
    data = wav_bytes(audio, subtype, format=container)
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0].T
    np.testing.assert_allclose(read_all(data), expected, atol=1e-7)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_header_without_length(rng: np.random.Generator, size: int) -> None:
    audio = rng.uniform(-0.9, 0.9, (2, 3000))
    data = bytearray(wav_bytes(audio))
    data[4:8] = struct.pack("<I", size)
    data[40:44] = struct.pack("<I", size)
    reader = WavStreamReader(Drip(bytes(data)))
    assert reader.samples is None
    assert sum(block.shape[1] for block in reader.blocks(512)) == 3000
    assert reader.warnings == []


def test_truncated_and_trailing(rng: np.random.Generator) -> None:
    data = wav_bytes(rng.uniform(-0.9, 0.9, (2, 3000)))
    reader = WavStreamReader(Drip(data[:-402]))
    assert sum(block.shape[1] for block in reader.blocks(512)) == 2899
    assert "truncated; 2899 of 3000" in reader.warnings[0]
    assert read_all(data + b"LIST\4\0\0\0abcd").shape == (2, 3000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"ID3 and so on, no WAV", "is no WAV stream"),
        (wav_bytes(np.zeros((1, 9)))[:30], "damaged"),
        (wav_bytes(np.zeros((1, 9)), rate=4000), "4000 Hz; allowed are 8000"),
        (wav_bytes(np.zeros((9, 9))), "9 channels; allowed are 1 to 8"),
        (wav_bytes(np.zeros((1, 9)), "ALAW"), "WAV format 6"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x7f", "more than 16 MB"),
        (b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff", "no format"),
    ],
)
def test_what_is_no_wav_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(AudioFileError, match=words):
        WavStreamReader(Drip(data))


@pytest.mark.parametrize(("subtype", "step"), [("16", 2**-15), ("24", 2**-23), ("float", 1e-9)])
def test_written_streams_read_back(rng: np.random.Generator, subtype: str, step: float) -> None:
    audio = rng.uniform(-0.99, 0.99, (2, 3000)).astype(np.float32)
    file = io.BytesIO()
    writer = WavStreamWriter(file, 2, 44100, subtype)
    for start in range(0, 3000, 700):
        writer.write(audio[:, start : start + 700])
    assert file.getvalue()[4:8] == file.getvalue()[40:44] == b"\xff" * 4
    assert np.abs(read_all(file.getvalue()) - audio).max() <= step
    file.seek(0)
    np.testing.assert_array_equal(soundfile.read(file, dtype="float32")[0].T, read_all(file.getvalue()))
    writer.write(np.full((2, 5), 1.5, np.float32))
    assert writer.clipped_samples == (0 if subtype == "float" else 10)


def restore(*arguments: object, model: Path, data: bytes | None = None):
    command = ["restore", *map(str, arguments), "--model", str(model), "--device", "cpu", "--threads", "1"]
    return CliRunner().invoke(main, command, input=data)


def test_pipes_and_files_give_the_same_sound(tmp_path: Path, model: Path, rng: np.random.Generator) -> None:
    audio = rng.uniform(-0.5, 0.5, (2, 30000))
    data = wav_bytes(audio, "PCM_16", 32000)
    (tmp_path / "in.wav").write_bytes(data)
    assert restore(tmp_path / "in.wav", tmp_path / "out.wav", "--force", model=model).exit_code == 0
    expected = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T

    result = restore("-", "-", model=model, data=data)
    assert result.exit_code == 0, result.stderr
    assert "restored in" in result.stderr
    np.testing.assert_allclose(read_all(result.stdout_bytes), expected, atol=1e-5)
    result = restore(tmp_path / "in.wav", "-", "--force", model=model)
    np.testing.assert_allclose(read_all(result.stdout_bytes), expected, atol=1e-5)
    assert restore("-", tmp_path / "piped.flac", model=model, data=data).exit_code == 0
    np.testing.assert_allclose(soundfile.read(tmp_path / "piped.flac", dtype="float32")[0].T, expected, atol=1e-5)


def test_what_a_pipe_cannot_do(tmp_path: Path, model: Path) -> None:
    data = wav_bytes(np.zeros((1, 999)))
    for arguments, words in (
        (["-", "-", "--candidates", 2], "--candidates"),
        (["-", "other.wav", "-"], "one stream"),
        (["-", "-", "--dry-run"], "--dry-run"),
        (["-", tmp_path / "a.wav", "--png", tmp_path / "a.png"], "--png needs files and not -"),
        (["-", tmp_path / "a.xyz"], "unsupported extension"),
    ):
        result = restore(*arguments, model=model, data=data)
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stdout_bytes == b""
    assert "holds no audio" in restore("-", tmp_path / "a.wav", model=model, data=wav_bytes(np.zeros((1, 0)))).stderr
    assert os.listdir(tmp_path) == []


def test_a_transparent_file_passes_with_a_note_and_a_stream_is_always_restored(
    tmp_path: Path, model: Path, rng: np.random.Generator
) -> None:
    audio = rng.uniform(-0.5, 0.5, (2, 30000))
    data = wav_bytes(audio, "PCM_16")
    (tmp_path / "full.wav").write_bytes(data)
    result = restore(tmp_path / "full.wav", "-", "--bits", "16", model=model)
    assert result.exit_code == 0, result.stderr
    note, summary = result.stderr.splitlines()
    assert note.startswith(f"Note: {tmp_path / 'full.wav'}: transparent: leave; it was converted to 44.1 kHz WAV, not")
    assert "--force restores it" in note and summary.startswith("-: 0:00.7 converted in")
    np.testing.assert_allclose(read_all(result.stdout_bytes), read_all(data), atol=2**-15)
    for source, more in ((tmp_path / "full.wav", ["--force"]), ("-", [])):
        result = restore(source, "-", *more, model=model, data=data)
        assert "Note" not in result.stderr and "restored in" in result.stderr
        assert np.abs(read_all(result.stdout_bytes) - read_all(data)).max() > 1e-3
    assert "standard input is always restored" in " ".join(restore("--help", model=model).stdout.split())


class Endless(io.RawIOBase):
    """A WAV stream of unknown length that is made while it is read."""

    def __init__(self, seconds: float) -> None:
        header = wav_bytes(np.zeros((1, 0)))
        self._header = header[:40] + b"\xff" * 4
        self._left = int(seconds * 44100) * 2

    def read(self, size: int = -1) -> bytes:
        if self._header:
            part, self._header = self._header[:size], self._header[size:]
            return part
        count = min(size, self._left)
        self._left -= count
        return bytes(count)


def test_memory_is_flat(tmp_path: Path) -> None:
    from restorer import Restorer
    from restorer.restoring import restore_pipe

    toy = Restorer(save_identity(tmp_path / "toy.onnx"), device="cpu", threads=1)
    peaks = []
    for seconds in (2.0, 2.0, 20.0):
        with open(os.devnull, "wb") as sink:
            tracemalloc.start()
            report, _ = restore_pipe(toy, Endless(seconds), sink)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert report.samples == int(seconds * 44100)
    assert peaks[2] < 1.2 * peaks[1] + 100_000


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_on_both_sides(tmp_path: Path, model: Path, rng: np.random.Generator) -> None:
    time = np.arange(2 * 44100) / 44100
    soundfile.write(tmp_path / "in.mp3", 0.3 * np.sin(2 * np.pi * np.outer(time, [440, 660])), 44100)
    python = f"{shlex.quote(sys.executable)} -m restorer restore - - --model {shlex.quote(str(model))} --device cpu"
    line = f"ffmpeg -v error -i in.mp3 -f wav - | {python} | ffmpeg -v error -f wav -i - out.flac"
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    assert "restored in" in done.stderr
    assert abs(soundfile.info(tmp_path / "out.flac").frames - 2 * 44100) < 3000
    assert soundfile.info(tmp_path / "out.flac").samplerate == 44100
