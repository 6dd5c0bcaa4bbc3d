"""What the page plays and draws: a 16-bit WAV copy of a sound, its peaks, its spectrogram and its level."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from restorer.audio_in import AudioReader
from restorer.audio_out import AudioWriter
from restorer.errors import AudioFileError
from restorer.progress import Progress

ROWS = 256
_COLUMNS, _PEAKS = 1200, 2000
_WINDOW_SAMPLES = 2 * 4 * ROWS  # four bins make a row
_FRAMES_PER_COLUMN = 3
_COLUMNS_AT_ONCE = 100
_RANGE_DB = 84.0  # what the picture shows below its brightest spots
_BLOCK_SAMPLES = 1 << 16
_FULL_SCALE = 1 << 15


@dataclass(frozen=True)
class Track:
    """A sound ready for the page.

    Attributes
    ----------
    path : 16-bit WAV whose samples start at byte `data_offset`.
    peaks : highest and lowest sample of equal stretches, ``(2, stretches)`` in [-1, 1].
    spectrogram : bytes ``(ROWS, columns)`` from low to high frequencies; 255 is the level `top_db`, 0 is 84 dB below.
    power : mean power of each bin, ``(4 ROWS,)`` from 0 Hz to half the sample rate.
    """

    path: Path
    data_offset: int
    samples: int
    channels: int
    sample_rate: int
    peaks: NDArray[np.float32]
    spectrogram: NDArray[np.uint8]
    top_db: float
    power: NDArray[np.float64]

    def level_db(self, below_hz: float) -> float:
        """Root mean square below a frequency, in dB; what was cut off does not count."""
        bins = max(1, round(below_hz / (self.sample_rate / 2) * len(self.power)))
        return float(10 * np.log10(self.power[:bins].sum() + 1e-12))


def make_track(
    source: Path, target: Path, sample_rate: int, max_seconds: float, progress: Progress, top_db: float | None = None
) -> Track:
    """Decode `source` to the WAV file `target` at `sample_rate` in Hz, and measure it.

    Parameters
    ----------
    max_seconds : longer audio is refused, whatever the header of the file promises.
    top_db : level of the brightest spots of another track, for pictures that can be compared.

    Raises
    ------
    AudioFileError : the source cannot be decoded or is too long, or the target cannot be written.
    """
    with AudioReader(source, sample_rate) as reader:
        check_length(reader, max_seconds)
        with AudioWriter(target, reader.channels, sample_rate, subtype="16") as writer:
            for block in reader.blocks(_BLOCK_SAMPLES):
                writer.write(block)
                if writer.samples > max_seconds * sample_rate:
                    raise _too_long(reader, writer.samples / sample_rate, max_seconds)
                progress(writer.samples, max(reader.samples, writer.samples))
        channels, samples = reader.channels, writer.samples
    offset = _data_offset(target)
    audio = np.memmap(target, "<i2", "r", offset, (samples, channels))
    peaks = _find_peaks(audio)
    levels, power = _find_levels(audio)
    top = float(np.percentile(levels, 99.8)) if top_db is None else top_db
    picture = np.clip(np.rint((levels - top + _RANGE_DB) * (255 / _RANGE_DB)), 0, 255).astype(np.uint8)
    return Track(target, offset, samples, channels, sample_rate, peaks, picture, top, power)


def check_length(reader: AudioReader, max_seconds: float) -> None:
    """An AudioFileError where the header promises more than `max_seconds`."""
    seconds = reader.source_samples / reader.source_rate
    if seconds > max_seconds:
        raise _too_long(reader, seconds, max_seconds)


def _too_long(reader: AudioReader, seconds: float, max_seconds: float) -> AudioFileError:
    return AudioFileError(
        f"{reader.path} lasts {seconds / 60:.1f} minutes and this studio takes up to {max_seconds / 60:g}; "
        "use `restorer restore`, which has no limit, or start the studio with a larger --max-minutes"
    )


def _data_offset(path: Path) -> int:
    """Where the samples of a WAV file start."""
    with path.open("rb") as file:
        at = 12
        while True:
            file.seek(at)
            head = file.read(8)
            if len(head) < 8:
                raise AudioFileError(f"{path} is no complete WAV file")
            if head[:4] == b"data":
                return at + 8
            size = int.from_bytes(head[4:], "little")
            at += 8 + size + size % 2


def _find_peaks(audio: NDArray[np.int16]) -> NDArray[np.float32]:
    edges = np.linspace(0, len(audio), min(_PEAKS, len(audio)) + 1).astype(int)
    pairs = [(audio[a:b].max(), audio[a:b].min()) for a, b in pairwise(edges)]
    return np.array(pairs, np.float32).T / np.float32(_FULL_SCALE)


def _find_levels(audio: NDArray[np.int16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Level in dB of each row and column (0 is a sine of full scale), and the mean power of each bin.

    The time taken does not grow with the length: every column takes a look at three places.
    """
    samples = len(audio)
    columns = int(np.clip(samples // (_WINDOW_SAMPLES // 4), 1, _COLUMNS))
    window = np.hanning(_WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
    scale = (_FULL_SCALE * window.sum() / 2) ** 2
    centres = (np.arange(columns * _FRAMES_PER_COLUMN) + 0.5) * samples / (columns * _FRAMES_PER_COLUMN)
    starts = centres.astype(int) - _WINDOW_SAMPLES // 2
    rows, total = [], np.zeros(_WINDOW_SAMPLES // 2)
    step = _COLUMNS_AT_ONCE * _FRAMES_PER_COLUMN
    for first in range(0, len(starts), step):
        frames = np.stack([_frame(audio, start) for start in starts[first : first + step]])
        spectra = fft.rfft(frames * window[:, None], axis=1)[:, :-1]
        power = (spectra.real**2 + spectra.imag**2).mean(axis=2) / scale
        total += power.sum(axis=0)
        rows.append(power.reshape(-1, _FRAMES_PER_COLUMN, ROWS, power.shape[1] // ROWS).mean(axis=(1, 3)))
    levels = 10 * np.log10(np.concatenate(rows).T + 1e-14)
    return levels, total / len(starts)


def _frame(audio: NDArray[np.int16], start: int) -> NDArray[np.float32]:
    """``(window, channels)`` from `start` on, with zeros where there is no audio."""
    before, after = max(0, -start), max(0, start + _WINDOW_SAMPLES - len(audio))
    piece = audio[start + before : start + _WINDOW_SAMPLES - after].astype(np.float32)
    return np.pad(piece, ((before, after), (0, 0)))
