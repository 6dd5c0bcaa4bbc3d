"""Reading: exact durations, a clean resampler, and damaged files that give what decodes."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from restorer.audio_in import AudioReader, StreamResampler, read_audio, resampled_length
from restorer.errors import AudioFileError

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_24"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


def make_audio(channels: int, samples: int, rate: int) -> np.ndarray:
    time = np.arange(samples) / rate
    noise = np.random.default_rng(0).standard_normal((channels, samples))
    tones = [0.3 * np.sin(2 * np.pi * 440 * (1 + c) * time) for c in range(channels)]
    return (np.array(tones) + 0.02 * noise).astype(np.float32)


def write(path: Path, audio: np.ndarray, rate: int, **settings: object) -> Path:
    name, subtype = FORMATS[path.suffix]
    soundfile.write(path, audio.T, rate, **{"format": name, "subtype": subtype, **settings})
    return path


def make_mp3(path: Path, seconds: float = 2.0, rate: int = 44100, level: float = 0.7) -> bytes:
    """A constant-bitrate stereo MP3 with an Info frame."""
    audio = make_audio(2, round(seconds * rate), rate)
    write(path, audio, rate, bitrate_mode="CONSTANT", compression_level=level)
    return path.read_bytes()


def without_info_frame(data: bytes) -> bytes:
    assert b"Info" in data[:64] or b"Xing" in data[:64]
    start = data.index(data[:2], 4)
    return data[start:]


def read_all(path: Path, rate: int | None = None, block: int = 10000) -> tuple[np.ndarray, AudioReader]:
    with AudioReader(path, rate) as reader:
        audio = np.concatenate(list(reader.blocks(block)), axis=1)
    return audio, reader


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_duration_is_exact(tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    if suffix == ".opus" and rate not in OPUS_RATES:
        pytest.skip("Opus has no such rate")
    if suffix == ".mp3" and (rate > 48000 or channels > 2):
        pytest.skip("MP3 has no such format")
    path = write(tmp_path / f"in{suffix}", make_audio(channels, 5003, rate), rate)
    audio, reader = read_all(path, 44100, 3000)
    # An MP3 too small for the tag that tells its length comes in whole frames; then its own length counts.
    frames = soundfile.read(path)[0].shape[0] if suffix == ".mp3" else 5003
    assert audio.shape == (channels, round(frames * 44100 / rate))
    assert audio.dtype == np.float32
    assert reader.samples == audio.shape[1]
    assert (reader.channels, reader.source_rate, reader.source_samples) == (channels, rate, frames)
    assert reader.warnings == []


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 192000, 12345])
@pytest.mark.parametrize("samples", [0, 1, 2, 10, 999, 20001])
def test_resampler_length_and_blocks(rate: int, samples: int) -> None:
    audio = make_audio(2, samples, rate)
    outputs = []
    for sizes in ([samples], [1, 700, 3, 0, 4096], [64]):
        resampler = StreamResampler(2, rate, 44100)
        pieces, start, index = [], 0, 0
        while start < samples:
            size = sizes[index % len(sizes)]
            pieces.append(resampler.process(audio[:, start : start + size]))
            start, index = start + size, index + 1
        out = np.concatenate([*pieces, resampler.flush()], axis=1)
        assert out.shape == (2, round(samples * 44100 / rate)) == (2, resampled_length(samples, rate, 44100))
        assert out.dtype == np.float32
        outputs.append(out)
        assert resampler.flush().shape == (2, 0)
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], atol=1e-6)


def test_one_large_block_returns_as_much_as_many_small_ones() -> None:
    """soxr itself returns 693 samples less of 57,000 at once."""
    whole, cut = StreamResampler(1, 44100, 8000), StreamResampler(1, 44100, 8000)
    audio = make_audio(1, 57000, 44100)
    pieces = [cut.process(audio[:, start : start + 100]) for start in range(0, 57000, 100)]
    assert np.array_equal(whole.process(audio), np.concatenate(pieces, axis=1))


def test_equal_rates_change_nothing() -> None:
    audio = make_audio(3, 500, 44100)
    assert np.array_equal(StreamResampler(3, 44100, 44100).process(audio), audio)


@pytest.mark.parametrize("rate", [16000, 48000, 96000])
def test_a_tone_keeps_its_pitch_phase_and_level(rate: int) -> None:
    def tone(sample_rate: int) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 1000 * np.arange(sample_rate) / sample_rate)[None]

    resampler = StreamResampler(1, rate, 44100)
    out = np.concatenate([resampler.process(tone(rate).astype(np.float32)), resampler.flush()], axis=1)
    assert np.abs(out - tone(44100))[:, 2000:-2000].max() < 1e-5


def test_what_44100_cannot_hold_is_removed() -> None:
    time = np.arange(96000) / 96000
    resampler = StreamResampler(1, 96000, 44100)
    out = [resampler.process(np.sin(2 * np.pi * 30000 * time)[None].astype(np.float32)), resampler.flush()]
    assert np.abs(np.concatenate(out, axis=1)[:, 2000:-2000]).max() < 1e-5


def test_blocks_have_the_size_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "in.wav", make_audio(2, 30000, 48000), 48000)
    with AudioReader(path) as reader:
        whole = np.concatenate(list(reader.blocks(1 << 20)), axis=1)
        for size in (1000, 4096, 27562):
            blocks = list(reader.blocks(size))
            assert {block.shape[1] for block in blocks[:-1]} <= {size}
            assert all(block.flags.c_contiguous for block in blocks)
            assert np.array_equal(np.concatenate(blocks, axis=1), whole)


def test_read_audio(tmp_path: Path) -> None:
    audio = make_audio(2, 4000, 44100)
    path = write(tmp_path / "in.flac", audio, 44100)
    read, rate = read_audio(path)
    assert rate == 44100
    np.testing.assert_allclose(read, audio, atol=2**-23)
    path = write(tmp_path / "low.wav", audio, 8000)
    assert read_audio(path, None)[1] == 8000


# MP3: the length is exact, nothing is trimmed that has no tag, and damage is named.


@pytest.mark.parametrize("level", [0.0, 0.7, 0.99])
def test_mp3_in_blocks_is_mp3_at_once(tmp_path: Path, level: float) -> None:
    path = tmp_path / "in.mp3"
    make_mp3(path, level=level)
    whole = soundfile.read(path, dtype="float32")[0].T
    audio, reader = read_all(path, None, 3333)
    assert reader.warnings == []
    np.testing.assert_allclose(audio, whole, atol=1e-6)


def test_mp3_with_tag_is_trimmed_and_without_is_not(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    assert read_all(path)[0].shape[1] == 88200
    path.write_bytes(without_info_frame(data))
    audio, reader = read_all(path)
    assert reader.warnings == []
    assert audio.shape[1] % 1152 == 0
    assert audio.shape[1] >= 88200 + 1105
    np.testing.assert_allclose(audio, soundfile.read(path, dtype="float32")[0].T, atol=1e-6)


def test_variable_bitrate_without_tag_is_read_to_its_end(tmp_path: Path) -> None:
    # Loud noise first: the decoder's own guess from the first frames is far too short.
    path = tmp_path / "in.mp3"
    audio = make_audio(2, 4 * 44100, 44100) * 0.02
    audio[:, :22050] = 0.3 * np.random.default_rng(0).standard_normal((2, 22050))
    write(path, audio, 44100, bitrate_mode="VARIABLE", compression_level=0.5)
    path.write_bytes(without_info_frame(path.read_bytes()))
    assert soundfile.info(path).frames < 3 * 44100
    read, reader = read_all(path)
    assert read.shape[1] == reader.samples
    assert 4 * 44100 < read.shape[1] < 4 * 44100 + 4 * 1152


@pytest.mark.parametrize("tagged", [True, False])
def test_truncated_mp3(tmp_path: Path, tagged: bool) -> None:
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    data = data if tagged else without_info_frame(data)
    path.write_bytes(data)
    whole = read_all(path)[0]
    path.write_bytes(data[: len(data) // 2 + 33])
    with AudioReader(path) as reader:
        assert len(reader.warnings) == 1
        assert "truncated" in reader.warnings[0]
        audio = np.concatenate(list(reader.blocks(5000)), axis=1)
    assert abs(audio.shape[1] - whole.shape[1] / 2) < 3 * 1152
    assert reader.samples == audio.shape[1]
    np.testing.assert_allclose(audio[:, :-1152], whole[:, : audio.shape[1] - 1152], atol=1e-5)


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("garbage", [b"", bytes(50000), None])
@pytest.mark.parametrize("replaced", [0, 5000])
def test_garbage_in_the_middle_of_an_mp3(tmp_path: Path, tagged: bool, garbage: bytes | None, replaced: int) -> None:
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    data = data if tagged else without_info_frame(data)
    path.write_bytes(data)
    whole = read_all(path)[0]
    if garbage is None:
        garbage = np.random.default_rng(1).bytes(9000)
    middle = len(data) // 2
    damaged = data[:middle] + garbage + data[middle + replaced :]
    path.write_bytes(damaged)
    audio, reader = read_all(path)
    if damaged == data:
        assert reader.warnings == []
        return
    assert len(reader.warnings) == 1
    assert "damaged" in reader.warnings[0]
    lost = whole.shape[1] * replaced / len(data)
    assert whole.shape[1] - lost - 3 * 1152 <= audio.shape[1] <= whole.shape[1] - lost + 1152
    assert reader.samples == audio.shape[1]
    # Both ends are intact and nothing is louder than the music: no burst from half a frame.
    ends = 22000
    np.testing.assert_allclose(audio[:, :ends], whole[:, :ends], atol=1e-5)
    np.testing.assert_allclose(audio[:, -ends:], whole[:, -ends:], atol=1e-5)
    assert np.abs(audio).max() < 1.5 * np.abs(whole).max()


def test_a_burst_from_a_damaged_frame_is_silenced(tmp_path: Path) -> None:
    # Damage inside a frame leaves the headers in place; what it decodes to can be any number.
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        for position in random.integers(5000, len(data) - 5000, 20):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        if np.abs(soundfile.read(path)[0]).max() > 100:
            break
    else:
        pytest.fail("no damage of this kind was found")
    audio, reader = read_all(path)
    assert np.abs(audio).max() < 4
    assert any("far above full scale" in warning for warning in reader.warnings)
    assert np.abs(audio[:, :5000]).max() > 0.1


def test_a_damaged_info_frame_costs_only_the_trim(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    path.write_bytes(data[:40] + bytes(3) + data[300:])
    audio, reader = read_all(path)
    assert audio.shape[1] == reader.samples
    assert abs(audio.shape[1] - 88200) < 3 * 1152
    assert len(reader.warnings) == 1


def test_tags_around_the_frames_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    data = make_mp3(path)
    id3v2 = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\x64" * 64
    ape = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16)
    path.write_bytes(id3v2 + data + ape + b"TAG" + b"\xff\xfb\x90" * 41 + b"ab")
    audio, reader = read_all(path)
    assert reader.warnings == []
    assert audio.shape[1] == 88200


def test_a_truncated_flac_gives_what_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "in.flac", make_audio(2, 60000, 44100), 44100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    audio, reader = read_all(path)
    assert 20000 < audio.shape[1] < 40000
    assert reader.samples == audio.shape[1]
    assert len(reader.warnings) == 1


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_a_truncated_wav_or_aiff_gives_what_is_there(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"in{suffix}", make_audio(2, 60000, 44100), 44100)
    assert read_all(path)[1].warnings == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    audio, reader = read_all(path)
    assert 29900 < audio.shape[1] < 30000
    assert len(reader.warnings) == 1
    assert "truncated" in reader.warnings[0]


# Every kind of input that cannot be read has its one line.


def check_refused(path: Path, words: str) -> None:
    with pytest.raises(AudioFileError, match=words) as raised, AudioReader(path) as reader:
        list(reader.blocks(4096))
    assert "\n" not in str(raised.value)
    assert path.name in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    check_refused(tmp_path / "no.mp3", "does not exist")


def test_folder(tmp_path: Path) -> None:
    check_refused(tmp_path, "is a folder")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "in.mp3").touch()
    check_refused(tmp_path / "in.mp3", "empty")


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".ogg", ".xyz", ".raw"])
def test_text_with_another_name(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"in{suffix}").write_text("This is a letter and no music.\n" * 200)
    check_refused(tmp_path / f"in{suffix}", "cannot read")
    assert capfd.readouterr().err == ""


def test_mp3_cut_inside_its_first_frame(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.mp3"
    path.write_bytes(make_mp3(path)[:100])
    check_refused(path, "cannot read")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac"])
def test_zero_length_audio(tmp_path: Path, suffix: str) -> None:
    check_refused(write(tmp_path / f"in{suffix}", np.zeros((2, 0)), 44100), "holds no audio|is empty")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    audio = make_audio(2, 44100, 44100)
    audio[1, 22050] = value
    check_refused(write(tmp_path / "in.wav", audio, 44100, subtype="FLOAT"), "NaN or infinity at 0.500 s")


@pytest.mark.parametrize(("rate", "channels", "words"), [(4000, 1, "4000 Hz"), (44100, 9, "9 channels")])
def test_out_of_range(tmp_path: Path, rate: int, channels: int, words: str) -> None:
    check_refused(write(tmp_path / "in.wav", make_audio(channels, 100, rate), rate), words)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "in.wav", make_audio(1, 100, 44100), 44100)
    path.chmod(0)
    check_refused(path, "Permission denied")
