"""Writing: exact samples, counted clipping, and no file at all when something fails."""

import errno
import os
import re
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import soundfile

from restorer.audio_in import read_audio
from restorer.audio_out import AudioWriter, check_target, choose_format
from restorer.errors import AudioFileError

SUFFIXES = [".wav", ".flac", ".ogg", ".mp3"]


def make_audio(channels: int = 2, samples: int = 20000) -> np.ndarray:
    time = np.arange(samples) / 44100
    tones = [0.5 * np.sin(2 * np.pi * 440 * (c + 1) * time) for c in range(channels)]
    return (np.array(tones) + 0.02 * np.random.default_rng(0).standard_normal((channels, samples))).astype("f")


def write(path: Path, audio: np.ndarray, block: int = 3000, **settings: object) -> AudioWriter:
    with AudioWriter(path, len(audio), **settings) as writer:  # type: ignore[arg-type]
        for start in range(0, audio.shape[1], block):
            writer.write(audio[:, start : start + block])
    return writer


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_length_and_level_are_kept(tmp_path: Path, suffix: str, channels: int) -> None:
    if suffix == ".mp3" and channels > 2:
        pytest.skip("MP3 has two channels at most")
    audio = make_audio(channels)
    writer = write(tmp_path / f"out{suffix}", audio)
    read, rate = read_audio(tmp_path / f"out{suffix}")
    assert rate == 44100
    assert read.shape == audio.shape
    assert writer.samples == audio.shape[1]
    assert writer.clipped_samples == 0
    gain_db = 20 * np.log10(np.std(read) / np.std(audio))
    assert abs(gain_db) < (0.1 if suffix in (".ogg", ".mp3") else 1e-4)
    assert os.listdir(tmp_path) == [f"out{suffix}"]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("subtype", "bits"), [("16", 16), ("24", 24), ("PCM_16", 16), (None, 24)])
def test_integers_come_back_bit_for_bit(tmp_path: Path, suffix: str, subtype: str | None, bits: int) -> None:
    full = 1 << (bits - 1)
    steps = np.random.default_rng(0).integers(-full, full, (2, 5000))
    steps[:, :4] = [-full, full - 1, 0, -1]
    audio = (steps / full).astype(np.float32)
    writer = write(tmp_path / f"out{suffix}", audio, subtype=subtype)
    assert writer.clipped_samples == 0
    assert soundfile.info(tmp_path / f"out{suffix}").subtype == f"PCM_{bits}"
    assert np.array_equal(read_audio(tmp_path / f"out{suffix}")[0], audio)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_clipping_is_counted_and_limited(tmp_path: Path, suffix: str) -> None:
    audio = make_audio()
    audio[0, 100:110] = 1.5
    audio[1, 500:505] = -3.0
    audio[1, 700] = 1.0
    assert write(tmp_path / f"out{suffix}", audio, 64).clipped_samples == 15
    read = read_audio(tmp_path / f"out{suffix}")[0]
    if suffix in (".wav", ".flac"):
        assert read[0, 105] == pytest.approx(1, abs=1e-6)
        assert read[1, 502] == -1


def test_float_wav_is_never_clipped(tmp_path: Path) -> None:
    audio = make_audio() * 5
    assert write(tmp_path / "out.wav", audio, subtype="float").clipped_samples == 0
    assert np.array_equal(read_audio(tmp_path / "out.wav")[0], audio)


def test_lossy_formats_are_written_at_their_best(tmp_path: Path) -> None:
    audio = 0.2 * np.random.default_rng(0).standard_normal((2, 3 * 44100)).astype(np.float32)
    for suffix, kbps in [(".mp3", 300), (".ogg", 250)]:
        write(tmp_path / f"out{suffix}", audio)
        assert (tmp_path / f"out{suffix}").stat().st_size * 8 / 3 / 1000 > kbps


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path: Path, suffix: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind), AudioWriter(tmp_path / f"out{suffix}", 2) as writer:
        writer.write(make_audio())
        assert len(os.listdir(tmp_path)) == 1
        assert not (tmp_path / f"out{suffix}").exists()
        raise kind
    assert os.listdir(tmp_path) == []


def interrupt_at(line: int, path: Path) -> bool:
    """Write a file and raise KeyboardInterrupt before a line of the writer's code; whether there was such a line."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal seen
        called_by = frame.f_back.f_code.co_name if frame.f_back else ""
        if Path(frame.f_code.co_filename).name != "audio_out.py" or called_by.startswith(("vio_", "_discard")):
            return None
        if frame.f_code.co_name in ("_discard", "__del__"):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        check_target(path, path)
        write(path, make_audio(1, 4000), overwrite=True)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interruption_at_any_line_leaves_nothing(tmp_path: Path) -> None:
    """As Ctrl-C does, which comes at any time; libsndfile's callbacks only remember it."""
    path = tmp_path / "out.flac"
    line, ends = 1, 0
    while interrupt_at(line, path):
        found = os.listdir(tmp_path)
        if found == ["out.flac"]:  # it was complete
            ends += 1
            path.unlink()
        else:
            assert found == [], line
        line += 1
    assert line > 50 and ends < 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    audio = make_audio()
    audio[1, 7] = value
    with pytest.raises(AudioFileError, match="NaN or infinite"):
        write(tmp_path / "out.wav", audio)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The system refuses every byte after the first 30,000."""
    resource = pytest.importorskip("resource")
    audio = 0.2 * np.random.default_rng(0).standard_normal((2, 200_000)).astype(np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(AudioFileError, match=re.escape(os.strerror(errno.EFBIG))) as raised:
            write(tmp_path / f"out{suffix}", audio)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_disk_that_fills_up_with_the_last_bytes(tmp_path: Path, suffix: str) -> None:
    """Encoders hold data back: the error may come only when the file is closed."""
    resource = pytest.importorskip("resource")
    audio = make_audio(2, 9000)
    write(tmp_path / f"whole{suffix}", audio)
    size = (tmp_path / f"whole{suffix}").stat().st_size
    (tmp_path / f"whole{suffix}").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 10, hard))
    try:
        with pytest.raises(AudioFileError):
            write(tmp_path / f"out{suffix}", audio)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_no_space_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything the writer opens for writing is the device that is always full."""
    real_open = Path.open

    def open_full(path: Path, mode: str = "r", *rest: int, **settings: int) -> object:
        if "x" in mode:
            real_open(path, "x").close()
            return real_open(Path("/dev/full"), "r+b", buffering=0)
        return real_open(path, mode, *rest, **settings)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(AudioFileError, match="No space left on device"):
        write(tmp_path / "out.wav", make_audio())
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_kept_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    path.write_text("mine")
    with pytest.raises(AudioFileError, match=r"exists; .*--overwrite"):
        AudioWriter(path, 2)
    with pytest.raises(RuntimeError), AudioWriter(path, 2, overwrite=True) as writer:
        writer.write(make_audio())
        raise RuntimeError
    assert path.read_text() == "mine"
    write(path, make_audio(), overwrite=True)
    assert soundfile.info(path).frames == 20000
    assert os.listdir(tmp_path) == ["out.wav"]


def test_formats_and_what_they_cannot_hold(tmp_path: Path) -> None:
    assert choose_format(Path("a.WAV"), "float") == ("WAV", "FLOAT")
    assert choose_format(Path("a.flac"), None) == ("FLAC", "PCM_24")
    with pytest.raises(AudioFileError, match=r"extension '.aac'; allowed are .wav, .flac, .ogg, .mp3, .opus"):
        choose_format(Path("a.aac"), None)
    with pytest.raises(AudioFileError, match="'float'; allowed are 24, 16"):
        choose_format(Path("a.flac"), "float")
    with pytest.raises(AudioFileError, match="none to choose"):
        choose_format(Path("a.mp3"), "16")
    with pytest.raises(AudioFileError, match="MP3 holds at most 2 channels and the audio has 6"):
        AudioWriter(tmp_path / "a.mp3", 6)
    assert os.listdir(tmp_path) == []


def test_targets_are_checked_before_work(tmp_path: Path) -> None:
    source = tmp_path / "in.wav"
    soundfile.write(source, make_audio().T, 44100)
    before = source.read_bytes()
    os.link(source, tmp_path / "hard.wav")
    (tmp_path / "soft.wav").symlink_to(source)
    (tmp_path / "there.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    check_target(source, tmp_path / "out.wav")
    check_target(source, tmp_path / "there.wav", overwrite=True)
    for name, words in [
        ("out.doc", "unsupported extension '.doc'"),
        ("out", r"unsupported extension '\(none\)'"),
        ("folder.wav", "is a folder"),
        ("there.wav", "exists"),
        ("no/out.wav", "does not exist"),
    ]:
        with pytest.raises(AudioFileError, match=words) as raised:
            check_target(source, tmp_path / name)
        assert "\n" not in str(raised.value)
    for name in ("in.wav", "hard.wav", "soft.wav"):
        with pytest.raises(AudioFileError, match="is the input itself"):
            check_target(source, tmp_path / name, overwrite=True)
    with pytest.raises(AudioFileError, match="at most 2 channels"):
        check_target(source, tmp_path / "out.mp3", channels=3)
    assert source.read_bytes() == before
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder nobody can write to")
def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"cannot write /proc/out\.wav: "):
        check_target(tmp_path / "in.wav", Path("/proc/out.wav"))
    with pytest.raises(AudioFileError, match=r"cannot write /proc/out\.wav: "):
        AudioWriter(Path("/proc/out.wav"), 2)


def test_a_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "out.wav", make_audio())
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("links", [True, False])
def test_who_comes_second_replaces_nothing_without_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Two writers of one name that both found it free: the later is refused when it gives its file the name."""
    if not links:

        def refuse(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    path, audio = tmp_path / "out.wav", np.full((1, 1000), 0.5, np.float32)
    with AudioWriter(path, 1) as first:
        first.write(audio)
        with pytest.raises(AudioFileError, match="exists; choose another name"), AudioWriter(path, 1) as second:
            second.write(audio)
            with AudioWriter(tmp_path / "other.wav", 1) as other:
                other.write(audio)
            path.write_bytes(b"somebody else's")
        path.unlink()
    assert soundfile.info(path).frames == 1000 and path.stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == ["other.wav", "out.wav"]


def test_the_name_is_taken_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at before: what appears at the last moment stays."""
    path = tmp_path / "out.wav"
    link = os.link

    def late(made: Path, target: Path) -> None:
        path.write_bytes(b"somebody else's")
        link(made, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(AudioFileError, match="exists"), AudioWriter(path, 1) as writer:
        writer.write(np.zeros((1, 10), np.float32))
    assert path.read_bytes() == b"somebody else's" and os.listdir(tmp_path) == ["out.wav"]
    monkeypatch.setattr(os, "link", link)
    with AudioWriter(path, 1, overwrite=True) as writer:
        writer.write(np.zeros((1, 10), np.float32))
    assert soundfile.info(path).frames == 10
