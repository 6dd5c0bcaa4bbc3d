"""A pool: pairs that belong together, whole slots only, and training that needs nothing else."""

import csv
import pickle
from dataclasses import replace

import numpy as np
import pytest
import soundfile

pytest.importorskip("lameenc")
pytest.importorskip("torch")

from click.testing import CliRunner
from toy_config import write_config

from restorer.errors import ConfigError, RestorerError
from restorer.metrics import snr
from restorer.synthesis import synthesize
from restorer.training import checkpoint
from restorer.training.config import Config
from restorer.training.growing_music import GrowingMusic
from restorer.training.mixing import Mixer, Sounds, Source
from restorer.training.pool import Pool, PoolShape
from restorer.training.pool_command import pool_command
from restorer.training.train import Trainer
from restorer.training.train_command import train_command

RATE_HZ = 44100
SECONDS = 1.5


@pytest.fixture(scope="module")
def filled(music_dir, tmp_path_factory):
    """What `restorer pool` makes: eight slots, written more than once."""
    folder = tmp_path_factory.mktemp("pool") / "ring"
    words = [str(folder), str(music_dir), "--slots", "8", "--seconds", str(SECONDS), "--workers", "1", "--pairs", "12"]
    words += ["--narrow", "0.5"]
    result = CliRunner().invoke(pool_command, [*words, "--codings", "64m v4j"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "8 in" in result.output
    return folder


def test_pairs_are_aligned_and_drawn_as_pairs_are(filled):
    pool = pickle.loads(pickle.dumps(Pool.open(filled)))  # as data loaders hand it to their workers
    assert pool.filled == 8
    peaks = []
    for index in range(40):
        original, coded, bandwidth_hz = pool.draw(index, RATE_HZ // 2)
        assert original.shape == coded.shape == (RATE_HZ // 2,) and original.dtype == coded.dtype == np.float32
        assert snr(original, coded / 0.95) > 3  # one sample of shift would leave nothing of it
        assert 1000 < bandwidth_hz <= RATE_HZ / 2
        peaks.append(np.abs(original).max())
        assert np.array_equal(original, pool.draw(index, RATE_HZ // 2)[0])
    assert 10 ** (-15 / 20) - 1e-3 < min(peaks) < 0.5 < max(peaks) <= 1 + 1e-3


def test_in_turn_no_slot_is_read_twice_before_all_have_been(tmp_path):
    pool = Pool.create(tmp_path / "pool", PoolShape(16, 1000))
    rng = np.random.default_rng(0)
    for slot in range(16):
        sound = rng.standard_normal(1000).astype(np.float32) / 8
        pool.write(slot, sound, sound, 20000.0)
    for first in (0, 5):
        drawn = [pool.draw(first + index, 1000, 3, in_turn=True)[0] for index in range(16)]
        assert len({np.argmax(np.abs(sound)) for sound in drawn}) == 16
    pool._bandwidths[7] = 0  # being written: another one is read in its place
    assert all(np.abs(pool.draw(index, 1000, 3, in_turn=True)[0]).max() > 0.1 for index in range(16))


def test_a_slot_that_is_being_written_is_not_read(tmp_path):
    pool = Pool.create(tmp_path / "pool", PoolShape(2, 1000))
    with pytest.raises(RestorerError, match="nearly empty; start restorer pool"):
        pool.draw(0, 500)
    sound = np.linspace(-1.2, 1.2, 1000, dtype=np.float32)  # decoded MP3s overshoot
    pool.write(1, sound, sound / 2, 18000.0)
    assert pool.read(0, 0, 500) is None and pool.filled == 1
    original, coded, bandwidth_hz = pool.read(1, 100, 500)
    np.testing.assert_allclose(original, sound[100:600], atol=1e-4)
    np.testing.assert_allclose(coded, sound[100:600] / 2, atol=1e-4)
    assert bandwidth_hz == 18000.0
    pool._bandwidths[1] = 0  # what a writer does first
    assert pool.read(1, 100, 500) is None
    with pytest.raises(RestorerError, match="make one with longer pairs"):
        pool.draw(0, 1001)


def test_what_cannot_be_is_told_in_one_line(filled, music_dir, tmp_path):
    def invoke(*words):
        return CliRunner().invoke(pool_command, [str(word) for word in words], catch_exceptions=False)

    with pytest.raises(RestorerError, match=r"holds a pool of 8 pairs of 1\.5 s"):
        invoke(filled, music_dir, "--slots", "9", "--seconds", SECONDS)
    with pytest.raises(ConfigError, match="such as 16m, 64j, a96j or v5m and not '64x'"):
        invoke(tmp_path / "new", music_dir, "--codings", "32m 64x")
    (tmp_path / "noise.flac").write_bytes(bytes(1000))
    (tmp_path / "MANIFEST.csv").write_text("file,split\nnoise.flac,train\n")
    with pytest.raises(RestorerError, match=r"noise\.flac"):
        invoke(tmp_path / "refused", tmp_path, "--seconds", SECONDS, "--workers", 1)
    with pytest.raises(RestorerError, match="no pool at"):
        Pool.open(tmp_path)
    (tmp_path / "pool.json").write_text('{"slots": 3}')
    with pytest.raises(RestorerError, match="is damaged"):
        Pool.open(tmp_path)


def test_a_folder_of_decoded_sounds_changes_no_mix(music_dir, tmp_path):
    source = [Source(music_dir / "song0.flac", 18000.0)]
    voice = tmp_path / "voice.flac"
    soundfile.write(voice, synthesize(0.8, RATE_HZ, 7, 1).T, RATE_HZ)
    mixers = [Mixer(source, [voice], [], 2.0, 3, sounds) for sounds in (None, Sounds(tmp_path / "decoded"))]
    for index in range(3):
        np.testing.assert_allclose(*(mixer.mix(index)[0] for mixer in mixers), atol=1e-3)
    assert len(list((tmp_path / "decoded").glob("*.npy"))) == 2


def test_training_from_a_pool_needs_no_pairs_and_ends_in_time(filled, small_config, tmp_path):
    schedule = replace(small_config.schedule, steps=1000, adversarial_from=1000, minutes=0.03, frames=100)
    config = write_config(replace(small_config, schedule=schedule), tmp_path / "small.toml")
    run = tmp_path / "run"
    arguments = [str(config), "--pool", str(filled), "--out", str(run)]
    result = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "weights: " in result.output, result.output
    _, loaded, extra = checkpoint.load(run / "last.safetensors")
    assert loaded == Config.load(config) and 1 <= extra["step"] < 1000 and extra["seconds"] >= 1.8
    with pytest.raises(ConfigError, match="nothing to train on: give --pairs, --pool, or both"):
        CliRunner().invoke(train_command, [str(config), "--out", str(tmp_path / "other")], catch_exceptions=False)
    finished = Trainer(loaded)
    finished.resume(run / "state.safetensors")
    assert finished.finished


def test_manifests_of_several_folders_are_drawn_from(music_dir, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "tone.flac", np.zeros((RATE_HZ, 2)), RATE_HZ)
    with (other / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "split"], ["tone.flac", "train"]])
    folder = tmp_path / "pool"
    words = [str(folder), str(music_dir), str(other), "--slots", "16", "--seconds", "1", "--workers", "1"]
    CliRunner().invoke(pool_command, [*words, "--pairs", "16", "--codings", "64m"], catch_exceptions=False)
    assert len(list((folder / "decoded").glob("*.npy"))) == 2


def test_music_that_comes_meanwhile_is_drawn_from(tmp_path, monkeypatch):
    monkeypatch.setattr("restorer.training.growing_music.LOOK_SECONDS", 0.0)
    manifest = tmp_path / "MANIFEST.csv"

    def name(*files: str) -> None:
        manifest.with_suffix(".part").write_text("\n".join(["file,split", *(f"{file},train" for file in files), ""]))
        manifest.with_suffix(".part").replace(manifest)

    for file in ("a.flac", "b.flac"):
        (tmp_path / file).touch()
    name("a.flac")
    music = GrowingMusic([tmp_path])
    assert not music.look()
    name("a.flac", "b.flac")
    assert music.look() and [song.path.name for song in music.songs] == ["a.flac", "b.flac"]
    for unusable in (lambda: name("c.flac"), lambda: manifest.write_text("no manifest"), manifest.unlink):
        unusable()
        assert not music.look() and len(music.songs) == 2
    name("b.flac")
    assert music.look() and [song.path.name for song in music.songs] == ["b.flac"]
