"""Pairs are aligned to the sample, whichever stretch of them is read."""

import io
import json
from collections import Counter

import numpy as np
import pytest
import soundfile

pytest.importorskip("lameenc")

from click.testing import CliRunner

from restorer.errors import ConfigError
from restorer.synthesis import synthesize
from restorer.training.mp3 import Coding, Mp3, encode_mp3, round_trip, rounded_codings
from restorer.training.pairs import Pairs, measure_bandwidth
from restorer.training.prepare_command import prepare
from restorer.training.splits import split_songs

RATE_HZ = 44100
CODINGS = ["16m", "24m", "32m", "48m", "64m", "96m", "128m", "48j", "64j", "128j"]


def residual_lag(reference: np.ndarray, test: np.ndarray) -> float:
    """Delay of `test` in samples, to a fraction: the slope of the cross-spectrum's phase below 4 kHz."""
    spectrum = np.fft.rfft(test) * np.conj(np.fft.rfft(reference))
    frequency = np.fft.rfftfreq(len(reference)) * 2 * np.pi
    correlation = np.fft.irfft(spectrum)
    whole = int(np.argmax(correlation))
    whole -= len(reference) if whole > len(reference) // 2 else 0
    spectrum = spectrum * np.exp(1j * frequency * whole)
    low = slice(1, int(len(reference) * 4000 / RATE_HZ))
    weight = np.abs(spectrum[low])
    angle = np.angle(spectrum[low])
    slope = (weight * frequency[low] * angle).sum() / (weight * frequency[low] ** 2).sum()
    return whole - slope


@pytest.mark.parametrize("coding", CODINGS)
def test_pairs_have_no_residual_lag(pairs_dir, coding):
    pairs = Pairs(pairs_dir, "train")
    original, coded = pairs.excerpt(pairs.songs[0], coding, RATE_HZ, 4 * RATE_HZ, channel=0)
    assert original.shape == coded.shape == (4 * RATE_HZ,)
    assert abs(residual_lag(original, coded)) < 0.05


def test_a_coding_that_is_named_twice_is_drawn_twice_as_often(pairs_dir, monkeypatch):
    pairs = Pairs(pairs_dir, "train")
    drawn: Counter[str] = Counter()
    monkeypatch.setattr(
        pairs, "excerpt", lambda song, coding, *_: drawn.update([coding]) or (np.ones(9), np.ones(9, np.float32))
    )
    for index in range(900):
        pairs.draw(index, 9, codings=("32m", "64m", "64m"))
    assert set(drawn) == {"32m", "64m"} and 1.6 < drawn["64m"] / drawn["32m"] < 2.4


@pytest.mark.parametrize("coding", CODINGS)
def test_any_stretch_decodes_as_the_whole(coding):
    audio = synthesize(5.0, RATE_HZ, 3, 2)
    mp3 = Mp3.index(encode_mp3(audio, Coding.parse(coding)))
    whole = mp3.decode(0, audio.shape[1])
    for start, samples in ((0, 3000), (50_001, 44_100), (123_457, 30_000), (200_000, 40_000)):
        piece = mp3.decode(start, samples)
        inside = whole[:, start : start + samples]
        np.testing.assert_allclose(piece[:, : inside.shape[1]], inside, atol=2e-5)
    assert not mp3.decode(10 * RATE_HZ, 100).any()


@pytest.mark.parametrize("coding", ["16m", "32m", "48m", "64m", "48j", "64j"])
@pytest.mark.parametrize("rate_hz", [44100, 48000, 22050])
def test_a_coded_rate_that_was_asked_for_is_written_and_aligned(coding, rate_hz):
    audio = synthesize(4.0, RATE_HZ, 3, 2)
    mp3 = Mp3.index(encode_mp3(audio, Coding.parse(coding), coded_rate_hz=rate_hz))
    with soundfile.SoundFile(io.BytesIO(mp3.data)) as file:
        assert file.samplerate == mp3.sample_rate == rate_hz
    assert mp3.kbps == (32 if coding == "16m" and rate_hz > 24000 else Coding.parse(coding).kbps)
    whole = mp3.decode(0, audio.shape[1])
    original = audio if coding[-1] == "j" else audio.mean(axis=0, keepdims=True)
    assert whole.shape == original.shape
    inside = slice(RATE_HZ // 2, -RATE_HZ // 2)
    assert abs(residual_lag(original[0, inside], whole[0, inside])) < 0.05
    np.testing.assert_allclose(mp3.decode(50_001, 44_100), whole[:, 50_001:94_101], atol=2e-5)


def test_bitrates_that_a_coded_rate_lacks_are_found():
    assert rounded_codings(["16m", "24j", "32m", "64m"], 44100) == {"16m": 32, "24j": 32}
    assert rounded_codings(["16m", "160m", "192m"], 22050) == {"192m": 160}
    assert rounded_codings(["16m"], None) == {}


def test_stereo_keeps_two_channels_and_mono_one():
    audio = synthesize(1.0, RATE_HZ, 0, 2)
    assert round_trip(audio, Coding(64, True)).shape == audio.shape
    assert round_trip(audio, Coding(64, False)).shape == (1, audio.shape[1])


def test_draws_repeat_and_are_loud_enough(pairs_dir):
    pairs, again = Pairs(pairs_dir, "train"), Pairs(pairs_dir, "train")
    for index in range(6):
        first, second = pairs.draw(index, 20_000, 5), again.draw(index, 20_000, 5)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        assert 10 ** (-15.1 / 20) < np.abs(first[0]).max() <= 1.001
    assert not np.array_equal(pairs.draw(0, 20_000, 5)[0], pairs.draw(1, 20_000, 5)[0])


def test_splits_follow_the_manifest_and_prepare_resumes(music_dir, pairs_dir):
    before = {path: path.stat().st_mtime_ns for path in pairs_dir.rglob("*.mp3")}
    for split in ("train", "valid", "test"):
        assert len(Pairs(pairs_dir, split).songs) == 1
    arguments = [str(music_dir), str(pairs_dir), "--kbps", "16", "32", "--joint-kbps", "64"]
    result = CliRunner().invoke(prepare, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in pairs_dir.rglob("*.mp3")}


def test_a_folder_of_pairs_has_one_coded_rate_and_says_it(music_dir, pairs_dir, tmp_path):
    def make(folder, *arguments):
        words = [str(music_dir), str(folder), "--kbps", "16", "64", *arguments]
        return CliRunner().invoke(prepare, words, catch_exceptions=False)

    made = make(tmp_path, "--coded-rate", "44100")
    assert made.exit_code == 0
    assert made.stderr.count("16m as 32 kbit/s") == 1 and "64m" not in made.stderr
    for path in tmp_path.glob("*/song.json"):
        assert json.loads(path.read_text())["coded_rate_hz"] == 44100
    pairs = Pairs(tmp_path, "train")
    original, coded = pairs.excerpt(pairs.songs[0], "16m", RATE_HZ, 4 * RATE_HZ)
    assert abs(residual_lag(original, coded)) < 0.05
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert make(tmp_path, "--coded-rate", "44100").exit_code == 0
    with pytest.raises(ConfigError, match=r"44100 Hz and not at LAME's own sample rates; .* give --coded-rate 44100"):
        make(tmp_path)
    with pytest.raises(ConfigError, match="44100 Hz and not at 48000 Hz; choose another folder"):
        make(tmp_path, "--coded-rate", "48000")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    with pytest.raises(ConfigError, match=r"LAME's own sample rates and not at 44100 Hz; .* give no --coded-rate"):
        make(pairs_dir, "--coded-rate", "44100")
    refused = make(tmp_path / "new", "--coded-rate", "44000")
    assert refused.exit_code == 2 and "'44000' is not one of" in refused.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10, 14, 25, 100])
def test_splits_are_80_10_10_to_rounding(count):
    names = [f"album/{index}.flac" for index in range(count)]
    splits = split_songs(names, {})
    assert splits == split_songs(reversed(names), {}) and splits.keys() == set(names)
    counts = Counter(splits.values())
    tenth = max(1, (count + 5) // 10) if count >= 3 else 0
    assert (counts["valid"], counts["test"], counts["train"]) == (tenth, tenth, count - 2 * tenth)
    half = dict(list(splits.items())[::2])  # what an interrupted run had finished
    assert split_songs(names, half) == splits


def test_known_splits_stay_and_count():
    names = [f"{index}" for index in range(20)]
    known = {name: "test" for name in names[:5]} | {"gone": "valid"}
    counts = Counter(split_songs(names, known).values())
    assert counts == {"test": 5, "valid": 2, "train": 13}


def test_songs_that_are_added_move_no_prepared_one(tmp_path):
    music, pairs = tmp_path / "music", tmp_path / "pairs"
    music.mkdir()

    def add_and_prepare(numbers):
        for number in numbers:
            soundfile.write(music / f"{number}.wav", synthesize(0.5, RATE_HZ, number, 1).T, RATE_HZ)
        arguments = [str(music), str(pairs), "--kbps", "32", "--jobs", "1"]
        assert CliRunner().invoke(prepare, arguments).exit_code == 0
        songs = [json.loads(path.read_text()) for path in pairs.glob("*/song.json")]
        return {song["source"]: song["split"] for song in songs}

    first = add_and_prepare(range(3))
    assert sorted(first.values()) == ["test", "train", "valid"]
    second = add_and_prepare(range(3, 16))
    assert first.items() <= second.items()
    assert Counter(second.values()) == {"test": 2, "valid": 2, "train": 12}


def test_an_unfinished_song_is_made_again(music_dir, tmp_path):
    arguments = [str(music_dir), str(tmp_path), "--kbps", "32"]
    assert CliRunner().invoke(prepare, arguments).exit_code == 0
    victim = next(tmp_path.glob("*/song.json")).parent
    (victim / "song.json").unlink()
    (victim / "32m.mp3").write_bytes(b"half")
    assert CliRunner().invoke(prepare, arguments).exit_code == 0
    assert (victim / "song.json").exists() and (victim / "32m.mp3").stat().st_size > 1000


def test_a_broken_song_is_skipped_and_named(tmp_path):
    music = tmp_path / "music"
    music.mkdir()
    (music / "bad.flac").write_bytes(b"this is no music")
    soundfile.write(music / "good.wav", synthesize(1.0, RATE_HZ, 0, 1).T, RATE_HZ)
    result = CliRunner().invoke(prepare, [str(music), str(tmp_path / "pairs"), "--kbps", "32"])
    assert result.exit_code == 0 and "bad.flac" in result.output
    assert len(list((tmp_path / "pairs").glob("*/song.json"))) == 1


def test_bandwidth_is_found():
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(4 * RATE_HZ))
    spectrum[4 * 9000 :] = 0
    assert abs(measure_bandwidth(np.fft.irfft(spectrum)[None] * 0.1) - 9000) < 200
