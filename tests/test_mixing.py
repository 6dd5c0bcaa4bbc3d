"""Mixes: repeatable, what their recipes promise, and a command that prepare understands."""

import csv

import numpy as np
import pytest
import soundfile

pytest.importorskip("lameenc")

from click.testing import CliRunner

from restorer.errors import ConfigError
from restorer.synthesis import synthesize
from restorer.training.mix_command import mix_command
from restorer.training.mixing import Mixer, Source, equalise, narrow, reverberate, shift_speed, widen
from restorer.training.prepare_command import plan

RATE_HZ = 44100


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Folders of voices and of one-shots."""
    voices, oneshots = (tmp_path_factory.mktemp(name) for name in ("voices", "oneshots"))
    for seed in range(2):
        soundfile.write(voices / f"voice{seed}.flac", synthesize(0.8, RATE_HZ, 7 + seed, 1).T, RATE_HZ)
        soundfile.write(oneshots / f"hit{seed}.flac", synthesize(0.2, RATE_HZ, 9 + seed, 1).T, RATE_HZ)
    return voices, oneshots


def mixer(music_dir, sounds, seconds=3.0, seed=0):
    voices, oneshots = (sorted(folder.iterdir()) for folder in sounds)
    return Mixer([Source(music_dir / "song0.flac", 18000.0)], voices, oneshots, seconds, seed)


def tone(hz, seconds=0.5):
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)[None]


def peak_hz(audio):
    return np.abs(np.fft.rfft(audio[0] * np.hanning(audio.shape[1]))).argmax() * RATE_HZ / audio.shape[1]


def test_same_index_same_mix_others_differ(music_dir, sounds):
    first, again, other = (mixer(music_dir, sounds).mix(index)[0] for index in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_mixes_are_full_and_finite_and_name_what_is_in_them(music_dir, sounds):
    used = set()
    for index in range(12):
        audio, bandwidth_hz, files = mixer(music_dir, sounds).mix(index)
        assert audio.shape == (2, 3 * RATE_HZ) and audio.dtype == np.float32
        assert 10 ** (-3 / 20) - 1e-3 <= np.abs(audio).max() <= 1 + 1e-6
        assert 18000 * 0.87 < bandwidth_hz <= RATE_HZ / 2
        assert files
        used |= {file.stem for file in files}
    assert used == {"song0", "voice0", "voice1", "hit0", "hit1"}


def test_songs_alone_are_enough(music_dir):
    audio, _, files = Mixer([Source(music_dir / "song0.flac", 18000.0)], [], [], 2.0).mix(3)
    assert np.abs(audio).max() > 0.5 and [file.name for file in files] == ["song0.flac"]


def test_speed_moves_pitch_and_length():
    audio = shift_speed(tone(1000), 1.1)
    assert audio.shape[1] == pytest.approx(RATE_HZ / 2 / 1.1, abs=2)
    assert peak_hz(audio) == pytest.approx(1100, abs=3)


def test_equaliser_has_the_gain_of_its_knots():
    level = [np.sqrt((equalise(tone(hz), (6, 0, -6)) ** 2).mean() * 2) for hz in (60, 950, 17000)]
    assert 20 * np.log10(level) == pytest.approx([5.4, 0, -5.9], abs=0.5)


def test_width():
    left_and_right = np.stack([tone(500)[0], tone(700)[0]])
    assert np.allclose(widen(left_and_right, 1), left_and_right, atol=1e-6)
    assert np.allclose(widen(left_and_right, -1), left_and_right[::-1], atol=1e-6)
    narrow = widen(left_and_right, 0)
    assert np.array_equal(narrow[0], narrow[1])


def test_a_room_rings_on_and_decays():
    click = np.zeros((1, RATE_HZ), np.float32)
    click[0, 0] = 1
    wet = reverberate(click, 0.5, 0.5, np.random.default_rng(0))
    energy = [(wet[:, start : start + 2000] ** 2).sum() for start in (1, 8000, 20000)]
    assert wet.shape == (2, RATE_HZ) and energy[0] > 10 * energy[1] > 100 * energy[2]


def test_command_writes_what_prepare_reads(music_dir, sounds, tmp_path):
    words = [str(music_dir), str(tmp_path / "mixes"), "--voices", str(sounds[0]), "--count", "2", "--seconds", "1"]
    result = CliRunner().invoke(mix_command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    tasks = plan(tmp_path / "mixes", tmp_path / "pairs", tmp_path / "mixes" / "MANIFEST.csv", ("32m",))
    assert [task.split for task in tasks] == ["train", "train"]
    assert {"voice0.flac", "voice1.flac"} & set(" ".join(task.row["title"] for task in tasks).split())
    with (tmp_path / "mixes" / "MANIFEST.csv").open() as file:
        assert all(float(row["bandwidth_hz"]) > 1000 for row in csv.DictReader(file))
    with pytest.raises(ConfigError, match="holds mixes already"):
        CliRunner().invoke(mix_command, words, catch_exceptions=False)


def test_what_is_not_for_training_is_refused(music_dir, tmp_path):
    (tmp_path / "MANIFEST.csv").write_text("file,split\nsong1.flac,valid\n")
    for folder, message in ((tmp_path, "no song of split 'train'"), (music_dir.parent, "must say which songs")):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(mix_command, [str(folder), str(tmp_path / "out")], catch_exceptions=False)


def test_narrow_music_ends_where_it_should():
    audio = np.random.default_rng(0).standard_normal((2, 44100)).astype(np.float32)
    ended = narrow(audio, 9500.0)
    assert ended.shape == audio.shape and ended.dtype == np.float32
    power = np.abs(np.fft.rfft(ended)) ** 2
    assert power[:, 11000:].mean() < 1e-4 * power[:, :9000].mean()
    assert np.abs(np.fft.rfft(ended - audio))[:, :9000].max() < 0.05 * np.abs(np.fft.rfft(audio))[:, :9000].mean()
