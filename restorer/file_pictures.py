"""Pictures of audio files: where `--png` puts them, and the middle of each file as a spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader
from restorer.errors import AudioFileError, ConfigError, RestorerError
from restorer.pictures import draw_spectrograms

PICTURE_SECONDS = 30.0
_BLOCK_SAMPLES = 1 << 16


def check_picture(png: Path) -> None:
    """Whether `png` can become a picture; an AudioFileError or a ConfigError says why not."""
    if png.suffix.lower() != ".png":
        raise ConfigError(f"--png must name a .png file and not {png}")
    if not png.parent.is_dir():
        raise AudioFileError(f"cannot write {png}: the folder {png.parent} does not exist; make it first")


def name_pictures(places: Sequence[Path], png: Path, folder: bool) -> list[Path]:
    """The picture of each file: `png` itself, or ``png / place.png`` where it is a `folder`.

    Raises
    ------
    ConfigError, AudioFileError : `png` is no .png, lies in no folder, or is a file where it must be a folder.
    """
    if not folder and not png.is_dir():
        check_picture(png)
        return [png for _ in places]
    if png.exists() and not png.is_dir():
        raise ConfigError(f"--png must be a folder for {len(places)} files and not the file {png}")
    return [png / place.with_name(f"{place.name}.png") for place in places]


def draw_files(
    picture: Path, files: Sequence[tuple[str, Path]], sample_rate: int | None = None, note: str = ""
) -> None:
    """Draw files that are equally long, one above the other: the middle of the first, up to half a minute, in all.

    Parameters
    ----------
    picture : the PNG; its folder is made.
    files : (title, path) pairs; "from 35 s" and `note` go behind the first title.
    sample_rate : at which they are shown, in Hz; None: that of the first file.

    Raises
    ------
    RestorerError : a file cannot be read, or the picture cannot be written.
    """
    (title, first), *others = files
    start, middle, rate = _read_middle(first, sample_rate)
    panels = [(f"{title}, from {start / rate:.0f} s{note}", middle)]
    panels += [(title, _read_mono(path, rate, start, len(middle))[0]) for title, path in others]
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RestorerError(f"cannot write {picture}: {error.strerror}; name another place") from error
    draw_spectrograms(picture, panels, rate, stacked=True)


def _read_middle(path: Path, sample_rate: int | None) -> tuple[int, NDArray[np.float32], int]:
    """Where it starts, in samples, the mean of all channels, ``(samples,)``, and the sample rate in Hz."""
    with AudioReader(path, sample_rate) as reader:
        total, rate = reader.samples, reader.sample_rate
    while True:
        samples = min(total, round(PICTURE_SECONDS * rate))
        start = (total - samples) // 2
        middle, total = _read_mono(path, rate, start, samples)
        if len(middle) == samples or total <= samples:
            return start, middle, rate
        # The file is shorter than it claims; now its length is known.


def _read_mono(path: Path, sample_rate: int, start: int, samples: int) -> tuple[NDArray[np.float32], int]:
    """The mean of all channels, ``(samples,)``, shorter where the file ends; and the length of the file."""
    pieces, done = [np.zeros(0, np.float32)], 0
    with AudioReader(path, sample_rate) as reader:
        for block in reader.blocks(_BLOCK_SAMPLES):
            if done + block.shape[1] > start:
                pieces.append(block[:, max(0, start - done) : start + samples - done].mean(axis=0))
            done += block.shape[1]
            if done >= start + samples:
                break
        return np.concatenate(pieces), reader.samples
