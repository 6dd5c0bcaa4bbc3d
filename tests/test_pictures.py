"""Spectrograms: levels and places are right, the PNG is complete, matplotlib's global state stays alone."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from restorer.errors import ConfigError, RestorerError
from restorer.pictures import draw_spectrograms, spectrogram_db

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def tone(hz, seconds=1.0, sample_rate=44100):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate).astype(np.float32)


def test_full_scale_sine_reads_0_db_in_its_bin():
    level_db = spectrogram_db(tone(100 * 44100 / 2048))
    assert level_db.shape == (1025, 1 + 44100 // 512)
    middle = level_db[:, 40]
    assert np.argmax(middle) == 100
    assert middle[100] == pytest.approx(0.0, abs=0.01)
    assert middle[120:].max() < -80


def test_silence_reads_the_floor_and_channels_are_averaged():
    assert np.allclose(spectrogram_db(np.zeros((2, 5000))), -160)
    one = tone(1000)
    assert np.allclose(spectrogram_db(np.stack([one, -one])), -160)
    assert np.array_equal(spectrogram_db(np.stack([one, one])), spectrogram_db(one))


def test_frame_t_is_centred_on_sample_t_times_hop():
    click = np.zeros(8192)
    click[6 * 512] = 1.0
    assert np.argmax(spectrogram_db(click).sum(axis=0)) == 6


def test_an_empty_signal_has_one_silent_frame():
    assert spectrogram_db(np.zeros((2, 0))).shape == (1025, 1)


@pytest.mark.parametrize(("stacked", "wide"), [(False, True), (True, False)])
def test_picture_of_panels_of_different_length(tmp_path, stacked, wide):
    path = tmp_path / "picture.png"
    panels = [
        ("long", np.stack([tone(3000), tone(3000)])),
        ("short", tone(8000, 0.5)),
        ("shorter", tone(50, 0.1)),
    ]
    draw_spectrograms(path, panels, 44100, stacked=stacked)
    assert path.read_bytes().startswith(PNG_SIGNATURE)
    height, width = imread(path).shape[:2]
    assert (width > 2 * height) == wide
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_picture_shows_the_tone_where_it_is(tmp_path):
    path = tmp_path / "picture.png"
    audio = np.concatenate([np.zeros(44100), tone(15000), np.zeros(44100)])
    draw_spectrograms(path, [("tone", audio)], 44100, highest_hz=20000)
    pixels = imread(path)[..., :3]
    silent = pixels.max(axis=2) < 0.05
    rows, columns = (np.flatnonzero(silent.mean(axis=axis) > 0.3) for axis in (1, 0))
    body = pixels[rows[0] : rows[-1], columns[0] : columns[-1]]
    bright = np.argwhere((body[..., 0] > 0.9) & (body[..., 2] < 0.85))
    across = np.median(bright[:, 1]) / body.shape[1]
    up = 1 - np.median(bright[:, 0]) / body.shape[0]
    assert across == pytest.approx(0.5, abs=0.05)
    assert up == pytest.approx(0.75, abs=0.05)


def test_an_excerpt_is_the_picture_of_that_part(tmp_path):
    audio = np.concatenate([tone(500), tone(9000)])
    draw_spectrograms(tmp_path / "a.png", [("x", audio)], 44100, seconds=0.5, start_seconds=1.2)
    draw_spectrograms(tmp_path / "b.png", [("x", np.roll(audio, -10))], 44100, seconds=0.5, start_seconds=0.2)
    assert not np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("panels", "start_seconds"),
    [([], 0.0), ([("empty", np.zeros((2, 0)))], 0.0), ([("short", np.zeros(100))], 9.0)],
)
def test_nothing_to_draw_is_an_error(tmp_path, panels, start_seconds):
    with pytest.raises(ConfigError, match="panels must hold sound"):
        draw_spectrograms(tmp_path / "none.png", panels, 44100, start_seconds=start_seconds)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(RestorerError, match=r"cannot write .*none.picture\.png: No such file"):
        draw_spectrograms(tmp_path / "none" / "picture.png", [("tone", tone(440))], 44100)


def test_neither_import_nor_drawing_touches_pyplot(tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from restorer.pictures import draw_spectrograms\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"draw_spectrograms({str(tmp_path / 'picture.png')!r}, [('noise', np.ones(9999))], 44100)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
