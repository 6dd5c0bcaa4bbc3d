"""Spectrogram pictures: how a sound, its MP3 and its restoration look side by side."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import ConfigError, RestorerError
from restorer.whole_file import whole_file

FLOOR_DB = -160.0


def spectrogram_db(audio: NDArray[Any], window: int = 2048, hop: int = 512) -> NDArray[np.float32]:
    """The spectrogram of the mean of all channels in dB; 0 dB is a sine at full scale.

    Frame t is centred on sample t x hop; beyond both ends is silence.

    Shape
    -----
    Input: (channels, samples) or (samples,). Output: (window / 2 + 1, 1 + samples // hop), -160 dB and up.
    """
    mono = np.asarray(audio, dtype=np.float32)
    mono = mono.mean(axis=0) if mono.ndim == 2 else mono
    padded = np.pad(mono, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)).astype(np.float32)
    magnitude = np.abs(np.fft.rfft(frames * hann, axis=1)).T / (0.5 * hann.sum())
    return (20.0 * np.log10(np.maximum(magnitude, 10 ** (FLOOR_DB / 20)))).astype(np.float32)


def draw_spectrograms(
    path: str | Path,
    panels: list[tuple[str, NDArray[Any]]],
    sample_rate: int,
    seconds: float | None = None,
    start_seconds: float = 0.0,
    highest_hz: float | None = None,
    range_db: tuple[float, float] = (-105.0, -20.0),
    stacked: bool = False,
) -> None:
    """Writes a PNG with one spectrogram per panel; all share the axes (s, kHz) and the colour scale (dB).

    Parameters
    ----------
    path : the PNG file; it is written beside and renamed into place.
    panels : (title, audio) pairs; audio has shape (channels, samples) or (samples,).
    sample_rate : of every panel, in Hz.
    seconds, start_seconds : the excerpt shown; to the end of the longest panel by default.
    highest_hz : top of the frequency axis; Nyquist by default.
    range_db : levels of the darkest and of the brightest colour.
    stacked : one panel above the other instead of side by side.

    Raises
    ------
    ConfigError : no panel, or an excerpt with no sound in it.
    RestorerError : the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = round(start_seconds * sample_rate)
    last = None if seconds is None else first + round(seconds * sample_rate)
    excerpts = [(title, np.atleast_2d(audio)[:, first:last]) for title, audio in panels]
    samples = max((audio.shape[1] for _, audio in excerpts), default=0)
    if samples == 0:
        raise ConfigError(f"panels must hold sound in the excerpt and not {len(panels)} panels of 0 samples")

    count = len(excerpts)
    rows, columns = (count, 1) if stacked else (1, count)
    size = (10.0, 0.7 + 2.3 * count) if stacked else (0.9 + 3.7 * count, 3.7)
    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    hop = int(np.clip(samples // 900, 64, 1024))
    for axis, (title, audio) in zip(axes, excerpts, strict=True):
        level_db = spectrogram_db(audio, hop=hop)
        half_hop = 0.5 * hop / sample_rate
        right = level_db.shape[1] * 2 * half_hop + start_seconds - half_hop
        image = axis.imshow(
            level_db,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=range_db[0],
            vmax=range_db[1],
            extent=(start_seconds - half_hop, right, 0.0, sample_rate / 2000),
            interpolation="antialiased",
        )
        axis.set_title(title, fontsize=11)
        axis.set_facecolor("black")
        axis.tick_params(labelsize=8, length=3)
    axes[0].set_xlim(start_seconds, start_seconds + samples / sample_rate)
    axes[0].set_ylim(0.0, (highest_hz or sample_rate / 2) / 1000)
    for axis in axes if stacked else axes[:1]:
        axis.set_ylabel("frequency (kHz)", fontsize=9)
    for axis in axes[-1:] if stacked else axes:
        axis.set_xlabel("time (s)", fontsize=9)
    bar = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=30)
    bar.set_label("level (dB)", fontsize=9)
    bar.ax.tick_params(labelsize=8, length=3)
    bar.outline.set_visible(False)

    path = Path(path)
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        raise RestorerError(f"cannot write {path}: {error.strerror}; name another place") from error
