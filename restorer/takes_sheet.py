"""The contact sheet of several takes: their spectrograms beside the input's, and their brightness over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from restorer.brightness import upper_level_db
from restorer.errors import RestorerError
from restorer.pictures import spectrogram_db
from restorer.takes import CURVE_SECONDS, Take, brightness_curve
from restorer.transform import Float32
from restorer.whole_file import whole_file

_COLUMNS = 4
_RANGE_DB = (-105.0, -20.0)
_INK, _GREY = "#222222", "#767676"


def draw_sheet(
    path: Path,
    title: str,
    given: tuple[str, Float32],
    takes: Sequence[Take],
    sample_rate: int,
    start_seconds: float,
    above_hz: float,
) -> None:
    """Draw the contact sheet as PNG.

    Parameters
    ----------
    path
        Written beside its place and renamed.
    title
        One line above everything.
    given
        Name and sound of the input, ``(channels, samples)`` like each take.
    takes
        From dark to bright.
    start_seconds
        Where the stretch begins in the song, for the time axis.
    above_hz
        The cut-off, drawn as a line; brightness is the level above it.

    Raises
    ------
    RestorerError
        The file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = 1 + len(takes)
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure: Any = Figure(figsize=(13.0, 2.3 * rows + 5.2), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, color=_INK)
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.3 * rows, 4.6])
    colours = [colormaps["plasma"](0.85 * place) for place in np.linspace(0.0, 1.0, len(takes))]
    panels = [(given[0], given[1], _GREY)]
    panels += [
        (f"seed {take.seed}:  {take.brightness_db:.2f} dB", take.audio, colour)
        for take, colour in zip(takes, colours, strict=True)
    ]
    _draw_spectrograms(upper, panels, rows, columns, sample_rate, start_seconds, above_hz)
    _draw_curves(lower, given, takes, colours, sample_rate, start_seconds, above_hz)
    try:
        with whole_file(path) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        raise RestorerError(f"cannot write {path}: {error.strerror}; name another place") from error


def _draw_spectrograms(
    figure: Any,
    panels: Sequence[tuple[str, Float32, Any]],
    rows: int,
    columns: int,
    sample_rate: int,
    start_seconds: float,
    above_hz: float,
) -> None:
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    seconds = panels[0][1].shape[1] / sample_rate
    hop = int(np.clip(panels[0][1].shape[1] // 500, 64, 4096))
    image = None
    for axis, (name, audio, colour) in zip(axes, panels, strict=False):
        level_db = spectrogram_db(audio, hop=hop)
        image = axis.imshow(
            level_db,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=_RANGE_DB[0],
            vmax=_RANGE_DB[1],
            extent=(start_seconds, start_seconds + level_db.shape[1] * hop / sample_rate, 0.0, sample_rate / 2000),
            interpolation="antialiased",
        )
        axis.axhline(above_hz / 1000, color="white", linewidth=0.7, linestyle=(0, (6, 4)), alpha=0.8)
        axis.set_title(name, fontsize=10, color=_INK, pad=4)
        for side in axis.spines.values():
            side.set_edgecolor(colour)
            side.set_linewidth(2.2)
        axis.tick_params(labelsize=8, length=3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    axes[0].set_xlim(start_seconds, start_seconds + seconds)
    for axis in axes[::columns]:
        axis.set_ylabel("frequency (kHz)", fontsize=9)
    for index, axis in enumerate(axes[: len(panels)]):
        if index + columns >= len(panels):
            axis.tick_params(labelbottom=True)
    bar = figure.colorbar(image, ax=list(axes), pad=0.01, aspect=30)
    bar.set_label("level (dB)", fontsize=9)
    bar.ax.tick_params(labelsize=8, length=3)
    bar.outline.set_visible(False)


def _draw_curves(
    figure: Any,
    given: tuple[str, Float32],
    takes: Sequence[Take],
    colours: Sequence[Any],
    sample_rate: int,
    start_seconds: float,
    above_hz: float,
) -> None:
    """Above: brightness over time. Below: the same relative to the mean of all takes, which shows the order."""
    level, relative = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 1.0])
    curves = np.array([take.curve_db for take in takes])
    time = start_seconds + CURVE_SECONDS * (np.arange(curves.shape[1]) + 0.5)
    below = brightness_curve(given[1], sample_rate, above_hz)
    mean = curves.mean(axis=0)
    name = f"{given[0]}:  {upper_level_db(given[1], sample_rate, above_hz):.1f} dB"
    level.plot(time, below, color=_GREY, linewidth=1.2, linestyle=(0, (3, 2)), label=name)
    for take, curve, colour in zip(takes, curves, colours, strict=True):
        label = f"seed {take.seed}:  {take.brightness_db:.2f} dB"
        level.plot(time, curve, color=colour, linewidth=1.4, label=label)
        relative.plot(time, curve - mean, color=colour, linewidth=1.4)
    # Silence and the nearly empty band of the input must not press the takes together.
    low, high = np.percentile(curves, [2, 100])
    room = max(3.0, 0.1 * (high - low))
    level.set_ylim(low - 4 * room, high + room)
    level.set_ylabel(f"level above {above_hz / 1000:.1f} kHz (dB)", fontsize=9)
    relative.axhline(0.0, color=_GREY, linewidth=0.8)
    relative.set_ylabel("relative to the mean take (dB)", fontsize=9)
    relative.set_xlabel("time in the song (s)", fontsize=9)
    relative.set_xlim(time[0] - CURVE_SECONDS / 2, time[-1] + CURVE_SECONDS / 2)
    for axis in (level, relative):
        axis.grid(color="#e4e4e4", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8, length=3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    level.legend(
        title="dark to bright",
        title_fontsize=9,
        fontsize=8.5,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
    )
