"""What `Restorer` takes besides arrays: paths, tensors, pedalboard's files; how it tells how far it is; its help."""

import doctest
import logging
import pydoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import make_music, save_convolution

from restorer import AudioFileError, ConfigError, Restorer, RestorerError


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), device="cpu", threads=1)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A third of a second of stereo at 22.05 kHz."""
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.5 * make_music(2, 7000, 22050).T, 22050, subtype="FLOAT")
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_sounds_as_restore_file_writes_it(toy: Restorer, song: Path, kind: type) -> None:
    restored = toy(kind(song), seed=3)
    assert restored.dtype == np.float32 and restored.shape == (2, 14000)
    toy.restore_file(song, song.with_name("out.wav"), seed=3, subtype="FLOAT")
    written = soundfile.read(song.with_name("out.wav"), dtype="float32")[0].T
    np.testing.assert_allclose(np.clip(restored, -1, 1), written, atol=1e-6)
    np.testing.assert_array_equal(toy(song, 22050, seed=3), restored)
    np.testing.assert_allclose(toy.candidates(song, n=2, seed=2)[1], restored, atol=1e-5)


def test_a_mono_file_keeps_its_axis_of_channels(toy: Restorer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", make_music(1, 3000)[0] * 0.5, 44100)
    assert toy(tmp_path / "mono.wav").shape == (1, 3000)


def test_a_damaged_file_is_restored_as_far_as_it_decodes_and_a_warning_logged(
    toy: Restorer, song: Path, caplog: pytest.LogCaptureFixture
) -> None:
    song.write_bytes(song.read_bytes()[:-20000])
    with caplog.at_level(logging.WARNING):
        restored = toy(song)
    assert 5000 < restored.shape[1] < 14000
    assert "truncated" in caplog.text and str(song) in caplog.text


def test_tensors_are_taken_and_arrays_given(toy: Restorer) -> None:
    torch = pytest.importorskip("torch")
    audio = make_music(2, 4000)
    expected = toy(audio, 44100)
    for tensor in (torch.from_numpy(audio), torch.from_numpy(audio).double(), torch.tensor(audio, requires_grad=True)):
        restored = toy(tensor, 44100)
        assert type(restored) is np.ndarray and restored.dtype == np.float32
        np.testing.assert_allclose(restored, expected, atol=1e-6)
    assert toy(torch.from_numpy(audio[0]), 44100).shape == (4000,)
    assert np.abs(toy(torch.from_numpy(audio).bfloat16(), 44100, mix=0.0) - audio).max() < 0.01
    assert toy.candidates(torch.from_numpy(audio), 44100, n=2).shape == (2, 2, 4000)
    with pytest.raises(RestorerError, match="not int16"):
        toy(torch.zeros((2, 9), dtype=torch.int16), 44100)


def test_an_open_file_of_pedalboard_is_read_from_where_it_stands(toy: Restorer, song: Path) -> None:
    io = pytest.importorskip("pedalboard.io")
    audio = soundfile.read(song, dtype="float32")[0].T
    with io.AudioFile(str(song)) as file:
        np.testing.assert_allclose(toy(file), toy(audio, 22050), atol=1e-6)
        file.seek(5000)
        np.testing.assert_allclose(toy(file, 22050), toy(audio[:, 5000:], 22050), atol=1e-6)
        assert toy(file).shape == (2, 0)  # it stands at its end
        with pytest.raises(ConfigError, match="22050 Hz and not 44100"):
            toy(file, 44100)
    with pytest.raises(AudioFileError, match="closed"):
        toy(file)
    with io.AudioFile(str(song)).resampled_to(44100) as file:
        assert toy.candidates(file, n=2).shape == (2, 2, 14000)
    with io.AudioFile(str(song.with_name("new.wav")), "w", 44100, 2) as file, pytest.raises(RestorerError):
        toy(file)


def test_what_cannot_be_restored_is_named(toy: Restorer, song: Path) -> None:
    with soundfile.SoundFile(song) as opened:  # its arrays lie the other way
        for audio, sample_rate, kind, message in [
            (make_music(2, 100), None, ConfigError, "sample_rate is missing"),
            (song, 44100, ConfigError, "22050 Hz and not 44100; leave sample_rate out"),
            (song.with_name("none.wav"), None, AudioFileError, "does not exist"),
            (opened, None, RestorerError, "the path of a file.* and not SoundFile"),
            ([0.0, 1.0], 44100, RestorerError, "a torch tensor.* and not list"),
            (None, None, RestorerError, "not NoneType"),
        ]:
            with pytest.raises(kind, match=message) as raised:
                toy(audio, sample_rate)  # type: ignore[arg-type]
            assert "\n" not in str(raised.value)


def test_settings_are_checked_before_a_file_is_read(toy: Restorer) -> None:
    for settings in ({"mix": 2}, {"seed": -1}, {"brightness": "loud"}):
        with pytest.raises(ConfigError):
            toy("none.wav", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("verbose", [False, True])
def test_progress_ends_at_the_length_of_the_result(
    toy: Restorer, song: Path, capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    calls: list[tuple[int, int]] = []
    told: dict[str, Any] = {"progress": lambda *call: calls.append(call), "verbose": verbose}
    long = make_music(1, 300_000)
    for name, restore in (
        ("restoring", lambda: toy(long, 44100, **told).shape[-1]),
        ("song.wav", lambda: toy(song, **told).shape[-1]),
        ("song.wav", lambda: toy.candidates(song, n=3, **told).shape[-1]),
        ("o.wav", lambda: toy.restore_file(song, song.with_name("o.wav"), **told).samples),
    ):
        calls.clear()
        samples = restore()
        assert calls[-1] == (samples, samples)
        assert calls == sorted(calls) and all(0 <= done <= total for done, total in calls)
        assert len(calls) > (3 if samples == 300_000 else 1)
        said = capsys.readouterr()
        assert said.out == ""
        assert (f"{name} 100%" in said.err) is verbose and bool(said.err) is verbose


def test_a_callback_stops_the_work(toy: Restorer, song: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        toy(song, progress=stop)


def test_the_example_in_the_docstring_runs_and_help_names_everything(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(song.parent)
    song.rename(song.with_name("song.mp3"))  # the content decides, not the extension
    names = {"Restorer": Restorer, "audio": make_music(2, 3000)}
    example = doctest.DocTestParser().get_doctest(Restorer.__doc__ or "", names, "Restorer", None, 0)
    assert len(example.examples) > 6
    assert doctest.DocTestRunner().run(example).failed == 0
    shown = pydoc.render_doc(Restorer, renderer=pydoc.plaintext)
    for word in ("candidates(self", "stream(self", "restore_file(self", "torch", "latency_samples", "verbose"):
        assert word in shown
