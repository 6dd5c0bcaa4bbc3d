"""The public class: arrays, candidates and files give what a stream gives."""

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import MODELS, make_model, make_music

import restorer as package
from restorer import ConfigError, ModelError, Restorer, RestorerError
from restorer.errors import AudioFileError
from restorer.quiet import gain_for_quiet


@pytest.fixture(scope="module", params=MODELS)
def restorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(make_model(request.param, tmp_path_factory.mktemp("model")), device="cpu", threads=1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(make_model("convolution", tmp_path_factory.mktemp("model")), device="cpu", threads=1)


def write_music(path: Path, channels: int, samples: int, sample_rate: int) -> np.ndarray:
    audio = make_music(channels, samples, sample_rate) * 0.5
    soundfile.write(path, audio.T, sample_rate, subtype="FLOAT")
    return audio


def streamed(restorer: Restorer, audio: np.ndarray, sample_rate: int, block: int, seed: int) -> np.ndarray:
    stream = restorer.stream(len(audio), sample_rate, seed)
    pieces = [stream.process(audio[:, i : i + block]) for i in range(0, audio.shape[1], block)]
    return np.concatenate([*pieces, stream.flush()], axis=1)


def test_facts_come_from_the_model(restorer: Restorer) -> None:
    info = restorer.model_info
    assert restorer.sample_rate == info.sample_rate
    assert restorer.latency_samples == restorer.stream().latency_samples >= info.latency_samples
    assert restorer.stream(frames_per_call=1).latency_samples == info.latency_samples
    assert restorer.device == "cpu"


@pytest.mark.parametrize("sample_rate", [16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_is_streamed(restorer: Restorer, channels: int, sample_rate: int) -> None:
    audio = make_music(channels, 15000, sample_rate)
    whole = restorer(audio, sample_rate, seed=3)
    assert whole.dtype == np.float32
    assert whole.shape == (channels, round(15000 * restorer.sample_rate / sample_rate))
    assert np.abs(whole - streamed(restorer, audio, sample_rate, 999, 3)).max() < 1e-5


@pytest.mark.parametrize("peak", [0.8, 0.25, 0.2, 0.004])
def test_a_quiet_file_is_restored_as_if_it_were_loud(restorer: Restorer, tmp_path: Path, peak: float) -> None:
    rate = restorer.sample_rate
    audio = make_music(2, 70_000, rate)
    audio = np.float32(peak) * audio / np.abs(audio).max()
    soundfile.write(tmp_path / "in.wav", audio.T, rate, subtype="FLOAT")
    restorer.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", seed=1, subtype="float", turn_up=True)
    found = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    gain = np.float32(1 if peak >= 0.25 else 2 ** np.floor(-np.log2(peak)))
    np.testing.assert_array_equal(found, restorer(audio * gain, rate, seed=1) / gain)
    restorer.restore_file(tmp_path / "in.wav", tmp_path / "same.wav", mix=0.0, subtype="float", turn_up=True)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "same.wav", dtype="float32")[0].T, audio)


def test_silence_is_not_turned_up(toy: Restorer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros(5000, np.float32), 44100, subtype="FLOAT")
    assert gain_for_quiet(tmp_path / "in.wav") == 1
    assert toy.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", turn_up=True).seconds > 0.1


def test_a_block_border_inside_a_long_array_changes_nothing(toy: Restorer) -> None:
    audio = make_music(1, 300_000)
    assert np.abs(toy(audio, 44100) - streamed(toy, audio, 44100, 100_003, 0)).max() < 1e-5


def test_number_of_axes_and_dtype(toy: Restorer) -> None:
    audio = make_music(1, 6000)
    flat = toy(audio[0].astype(np.float64), 44100)
    assert flat.shape == (6000,) and flat.dtype == np.float32 and flat.flags.c_contiguous
    np.testing.assert_array_equal(flat, toy(audio, 44100)[0])
    np.testing.assert_array_equal(toy(np.asfortranarray(audio), 44100)[0], flat)
    assert toy(np.zeros((2, 0), np.float32), 44100).shape == (2, 0)
    assert toy(np.zeros(0, np.float32), 8000).shape == (0,)


def test_the_input_array_is_never_touched(toy: Restorer) -> None:
    audio = make_music(2, 6000)
    kept = audio.copy()
    audio.setflags(write=False)
    out = toy(audio, 44100, mix=0.0)
    np.testing.assert_array_equal(out, kept)
    assert not np.shares_memory(out, audio)


def test_candidates_are_the_restorations_of_consecutive_seeds(restorer: Restorer) -> None:
    audio = make_music(2, 9000)
    takes = restorer.candidates(audio, 44100, n=3, seed=10)
    assert takes.shape == (3, *restorer(audio, 44100).shape)
    for i, take in enumerate(takes):
        assert np.abs(take - restorer(audio, 44100, seed=10 + i)).max() < 1e-5
    assert restorer.candidates(audio[0], 44100, n=2).shape == (2, takes.shape[2])


def test_equal_channels_stay_equal(restorer: Restorer) -> None:
    out = restorer(np.repeat(make_music(1, 9000), 2, axis=0), 44100, seed=4)
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)


@pytest.mark.parametrize("sample_rate", [22050, 44100])
def test_file_is_array(restorer: Restorer, tmp_path: Path, sample_rate: int) -> None:
    audio = write_music(tmp_path / "in.wav", 2, 20000, sample_rate)
    calls: list[tuple[int, int]] = []
    report = restorer.restore_file(
        tmp_path / "in.wav",
        tmp_path / "out.wav",
        seed=2,
        subtype="FLOAT",
        progress=lambda *call: calls.append(call),
    )
    written, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == restorer.sample_rate
    whole = restorer(audio, sample_rate, seed=2)
    assert written.T.shape == whole.shape
    assert np.abs(written.T - np.clip(whole, -1, 1)).max() < 1e-5
    assert (report.samples, report.target) == (whole.shape[1], tmp_path / "out.wav")
    assert report.seconds == pytest.approx(20000 / sample_rate, abs=1e-3)
    assert report.real_time_factor == pytest.approx(report.elapsed_seconds / report.seconds)
    assert report.peak_memory_bytes is None or report.peak_memory_bytes > 10_000_000
    assert report.warnings == ()
    assert calls[-1] == (report.samples, report.samples)
    assert all(0 <= done <= total for done, total in calls)


def test_memory_of_a_file_does_not_grow_with_its_length(toy: Restorer, tmp_path: Path) -> None:
    peaks = []
    for seconds in (10, 40):
        write_music(tmp_path / "in.wav", 1, seconds * 44100, 44100)
        gc.collect()
        tracemalloc.start()
        try:
            toy.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500_000  # 30 s more are 5 MB


def test_clipping_is_counted(toy: Restorer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full((9000, 1), 1.5, np.float32), 44100, subtype="FLOAT")
    report = toy.restore_file(tmp_path / "in.wav", tmp_path / "out.flac", mix=0.0)
    assert report.clipped_samples == 9000


def test_existing_target_is_kept_before_any_work(toy: Restorer, tmp_path: Path) -> None:
    write_music(tmp_path / "in.wav", 1, 2000, 44100)
    (tmp_path / "out.wav").write_text("mine")
    with pytest.raises(AudioFileError):
        toy.restore_file(tmp_path / "in.wav", tmp_path / "out.wav")
    with pytest.raises(AudioFileError):
        toy.restore_file(tmp_path / "in.wav", tmp_path / "in.wav", overwrite=True)
    assert (tmp_path / "out.wav").read_text() == "mine"
    toy.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", overwrite=True)
    assert soundfile.info(tmp_path / "out.wav").frames == 2000


def test_a_failure_half_way_leaves_no_file(toy: Restorer, tmp_path: Path) -> None:
    write_music(tmp_path / "in.wav", 1, 300_000, 44100)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.restore_file(tmp_path / "in.wav", tmp_path / "out.wav", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_wrong_audio_is_named(toy: Restorer) -> None:
    for audio, message in [
        (np.array([0.0, np.nan, np.inf]), "2 samples that are NaN or infinite"),
        (np.zeros((5000, 2), np.float32), r"pass audio\.T"),
        (np.zeros((2, 9), np.int16), "not int16"),
        (np.zeros((2, 2, 2), np.float32), r"not \(2, 2, 2\)"),
        (np.float32(0), "numpy array"),
        (np.zeros((0, 9), np.float32), "channels"),
        (np.zeros((9, 99), np.float32), "channels must be an integer from 1 to 8 and not 9"),
    ]:
        with pytest.raises(RestorerError, match=message) as raised:
            toy(audio, 44100)  # type: ignore[arg-type]
        assert "\n" not in str(raised.value)


def test_wrong_settings_are_named(toy: Restorer, tmp_path: Path) -> None:
    audio = make_music(1, 100)
    for settings, message in [
        ({"sample_rate": 4000}, "sample_rate"),
        ({"seed": -5}, "seed must be an integer from 0 .* not -5"),
        ({"mix": 2}, "mix must be"),
    ]:
        with pytest.raises(ConfigError, match=message):
            toy(audio, **{"sample_rate": 44100, **settings})
    for n in (0, 65, 2.0, True):
        with pytest.raises(ConfigError, match="n must be an integer from 1 to 64"):
            toy.candidates(audio, 44100, n=n)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="does not exist"):
        Restorer(tmp_path / "none.onnx")


def test_every_public_name_loads_and_the_package_loads_nothing_early() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert {*package.__all__} <= {*dir(package)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    code = "import sys, restorer; assert not {'onnxruntime', 'scipy', 'soundfile'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
