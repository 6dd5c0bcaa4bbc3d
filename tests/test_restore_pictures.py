"""`restorer restore --png`: what is drawn, where it goes, and that a picture never costs the sound."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import make_music, save_convolution

from restorer import file_pictures
from restorer.cli import main
from restorer.file_pictures import draw_files

RATE_HZ = 22050


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A second of stereo at a rate that leaves room above it."""
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.5 * make_music(2, RATE_HZ, RATE_HZ).T, RATE_HZ)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[Path, list[tuple[str, np.ndarray]]]:
    """The panels of each picture instead of the picture, which takes a while."""
    pictures: dict[Path, list[tuple[str, np.ndarray]]] = {}

    def note(path: Path, panels: list[tuple[str, np.ndarray]], sample_rate: int, stacked: bool) -> None:
        assert sample_rate == 44100 and stacked and path.parent.is_dir()
        pictures[path] = panels
        path.write_bytes(b"picture")

    monkeypatch.setattr(file_pictures, "draw_spectrograms", note)
    return pictures


def restore(model: Path, *arguments: object) -> Result:
    words = ["restore", *arguments, "--model", model, "--device", "cpu", "--threads", 1]
    return CliRunner().invoke(main, [str(word) for word in words])


def check_refused(result: Result, words: str) -> None:
    assert result.exit_code == 2, result.output
    assert words in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_one_file_is_drawn_above_its_restoration(model: Path, song: Path) -> None:
    picture = song.with_name("song.png")
    result = restore(model, song, song.with_name("out.flac"), "--png", picture)
    assert result.exit_code == 0, result.output
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert str(picture) in result.stderr
    check_refused(restore(model, song, song.with_name("two.flac"), "--png", picture), "exists")
    assert not song.with_name("two.flac").exists()
    assert restore(model, song, song.with_name("two.flac"), "--png", picture, "--overwrite").exit_code == 0


def test_panels_hold_input_and_outputs(model: Path, song: Path, drawn: dict) -> None:
    restore(model, song, song.with_name("out.flac"), "--png", song.with_name("a.png"), "--mix", 0)
    ((first, given), (second, restored)) = drawn[song.with_name("a.png")]
    assert (first, second) == ("song.wav, from 0 s", "out.flac, restored")
    assert given.shape == restored.shape == (44100,)
    np.testing.assert_allclose(given, restored, atol=1e-4)  # of the mix 0, in time with the input
    restore(model, song, song.with_name("out.flac"), "--candidates", 2, "--png", song.with_name("b.png"))
    assert [title for title, _ in drawn[song.with_name("b.png")]][1:] == [
        "out.seed0.flac, restored",
        "out.seed1.flac, restored",
    ]
    folder = song.with_name("pictures")
    folder.mkdir()
    restore(model, song, song.with_name("more.flac"), "--candidates", 2, "--png", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["more.seed0.flac.png", "more.seed1.flac.png"]


def test_a_copy_is_drawn_as_one(model: Path, tmp_path: Path, drawn: dict) -> None:
    soundfile.write(tmp_path / "full.wav", 0.1 * np.random.default_rng(0).standard_normal((20000, 1)), 44100)
    result = restore(model, tmp_path / "full.wav", tmp_path / "out.flac", "--png", tmp_path / "a.png")
    assert "converted to 44.1 kHz FLAC, not restored" in result.stderr
    assert drawn[tmp_path / "a.png"][1][0] == "out.flac, converted"
    restore(model, tmp_path / "full.wav", tmp_path / "out.wav", "--png", tmp_path / "b.png")
    assert drawn[tmp_path / "b.png"][1][0] == "out.wav, copied"


def test_what_cannot_be_drawn_is_refused_before_any_work(model: Path, song: Path) -> None:
    out = song.with_name("out.flac")
    (song.with_name("in.png")).write_bytes(song.read_bytes())
    for arguments, words in [
        ((song, out, "--png", "a.jpg"), "must name a .png"),
        ((song, out, "--png", song.parent / "none" / "a.png"), "does not exist"),
        ((song, out, "--png", "a.png", "--candidates", 13), "at most 12 candidates in one picture and not 13"),
        ((song.with_name("in.png"), out, "--png", song.with_name("in.png"), "--overwrite"), "must not be the input"),
        ((song, "-", "--png", "a.png"), "--png needs files and not -"),
        ((song, song.with_name("folder"), "--format", "flac", "--png", song), "must be a folder"),
    ]:
        check_refused(restore(model, *arguments), words)
    assert sorted(path.name for path in song.parent.iterdir()) == ["in.png", "song.wav"]


def test_a_folder_gets_a_picture_of_each_file(model: Path, song: Path, drawn: dict) -> None:
    album, out, pictures = (song.with_name(name) for name in ("album", "out", "pictures"))
    (album / "cd").mkdir(parents=True)
    song.rename(album / "cd" / "a.wav")
    (album / "bad.wav").write_text("no music")
    result = restore(model, album, out, "--png", pictures)
    assert result.exit_code == 1  # bad.wav
    assert [*drawn] == [pictures / "cd" / "a.flac.png"]
    assert [title for title, _ in drawn.popitem()[1]] == ["a.wav, from 0 s", "a.flac, restored"]

    restore(model, album, out, "--png", pictures)
    assert not drawn  # it is there
    (pictures / "cd" / "a.flac.png").unlink()
    result = restore(model, album, out, "--png", pictures)
    assert "skipped" in result.stdout
    assert [title for title, _ in drawn.popitem()[1]] == ["a.wav, from 0 s", "a.flac, made before"]


def test_a_picture_that_fails_costs_no_sound(model: Path, song: Path, drawn: dict) -> None:
    song.with_name("pictures").mkdir()
    (song.with_name("pictures") / "album").write_text("in the way")
    (song.with_name("in") / "album").mkdir(parents=True)
    song.rename(song.parent / "in" / "album" / "a.wav")
    result = restore(model, song.parent / "in", song.with_name("out"), "--png", song.with_name("pictures"))
    assert result.exit_code == 0, result.output
    assert "Warning: no picture of" in result.stderr
    assert (song.parent / "out" / "album" / "a.flac").exists()


def test_the_middle_half_minute_is_shown_also_of_a_file_shorter_than_it_claims(tmp_path: Path, drawn: dict) -> None:
    position = np.arange(50 * 8000) / (50 * 8000)
    soundfile.write(tmp_path / "long.wav", position, 8000, subtype="FLOAT")
    draw_files(tmp_path / "a.png", [("x", tmp_path / "long.wav")], 44100)
    ((title, middle),) = drawn[tmp_path / "a.png"]
    assert title == "x, from 10 s" and middle.shape == (30 * 44100,)
    assert middle[1000] == pytest.approx(0.2, abs=1e-3) and middle[-1000] == pytest.approx(0.8, abs=1e-3)

    data = (tmp_path / "long.wav").read_bytes()
    (tmp_path / "long.wav").write_bytes(data[: len(data) // 10])  # 5 of 50 s
    draw_files(tmp_path / "a.png", [("x", tmp_path / "long.wav")], 44100)
    assert drawn[tmp_path / "a.png"][0][1].shape[0] == pytest.approx(5 * 44100, abs=100)
