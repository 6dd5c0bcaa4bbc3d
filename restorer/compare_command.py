"""`restorer compare`: two or more versions of one song, aligned, as numbers and as a picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader
from restorer.batch import format_table
from restorer.errors import AudioFileError, ConfigError, RestorerError
from restorer.file_pictures import check_picture
from restorer.metrics.alignment import align
from restorer.metrics.likeness import likeness
from restorer.pictures import spectrogram_db
from restorer.whole_file import whole_file

SAMPLE_RATE_HZ = 44100
_BAND_EDGES_HZ = (0, 250, 500, 1000, 2000, 4000, 8000, 12000, 16000, 22050)
_SILENT_DB = -120.0
_DIFFERENCE_DB = 30.0  # where the colours of the difference end
# Of versions of one song: LAME at 16 kbit/s keeps 0.98, and unrelated music has less than 0.1.
_LEAST_LIKENESS = 0.3
_LIKENESS_SECONDS = 30.0


@click.command("compare")
@click.argument("original", metavar="A", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument(
    "others", metavar="B [C...]", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Draw the comparison into this picture.")
@click.option("--start", "start_seconds", type=click.FloatRange(0), help="Where to begin; default: the middle.")
@click.option("--seconds", default=30.0, show_default=True, type=click.FloatRange(1, 600), help="How much to compare.")
def compare(
    original: Path, others: tuple[Path, ...], png: Path | None, start_seconds: float | None, seconds: float
) -> None:
    """Compare B, C, ... with A, which they are versions of: delay and level by frequency band.

    All are mixed to mono, resampled to 44.1 kHz and aligned with A; levels are never touched. A file that has
    nothing in common with A is warned of. The picture shows spectrograms on one time axis, how each differs from
    A, and the long-term spectra.
    """
    if png is not None:
        check_picture(png)
    paths = (original, *others)
    signals = [_read_mono(path) for path in paths]
    lags, signals = _align_all(signals, others)
    _warn_of_strangers(signals, paths)
    excerpts, start = _cut(signals, start_seconds, seconds)
    spectra = [_long_term_db(excerpt) for excerpt in excerpts]
    click.echo(_table(paths, lags, spectra))
    if png is not None:
        titles = _titles(paths)
        _draw(png, titles, excerpts, spectra, start)
        click.echo(f"Wrote {png}", err=True)


def _read_mono(path: Path) -> NDArray[np.float32]:
    with AudioReader(path, SAMPLE_RATE_HZ) as reader:
        pieces = [block.mean(axis=0, dtype=np.float64).astype(np.float32) for block in reader.blocks(1 << 17)]
    if not pieces or not sum(map(len, pieces)):
        raise AudioFileError(f"{path} holds no sound to compare")
    return np.concatenate(pieces)


def _align_all(
    signals: list[NDArray[np.float32]], others: tuple[Path, ...]
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Shift everything onto the first signal's time and cut to what all have in common."""
    first = signals[0]
    lags = [align(first, other, SAMPLE_RATE_HZ).lag_samples for other in signals[1:]]
    begin = max(0, *(-lag for lag in lags))
    end = min(len(first), *(len(other) - lag for other, lag in zip(signals[1:], lags, strict=True)))
    if end - begin < SAMPLE_RATE_HZ // 2:
        names = ", ".join(str(path) for path in others)
        raise RestorerError(f"less than half a second is common to all files; are {names} versions of the same song?")
    shifted = [other[begin + lag : end + lag] for other, lag in zip(signals[1:], lags, strict=True)]
    return lags, [first[begin:end], *shifted]


def _warn_of_strangers(signals: list[NDArray[np.float32]], paths: tuple[Path, ...]) -> None:
    """Say of which files the best lag is none, by half a minute around the middle."""
    first, *others = _cut(signals, None, _LIKENESS_SECONDS)[0]
    for other, path in zip(others, paths[1:], strict=True):
        alike = likeness(first, other)
        if alike < _LEAST_LIKENESS:
            click.echo(
                f"Warning: {path}: correlates with {paths[0]} by {alike:.2f} at the best lag (versions of one song: "
                "near 1); it may be another song, inverted, or more than half a second early or late",
                err=True,
            )


def _cut(
    signals: list[NDArray[np.float32]], start_seconds: float | None, seconds: float
) -> tuple[list[NDArray[np.float32]], float]:
    total = len(signals[0])
    length = min(total, round(seconds * SAMPLE_RATE_HZ))
    start = (total - length) // 2 if start_seconds is None else round(start_seconds * SAMPLE_RATE_HZ)
    if start > total - SAMPLE_RATE_HZ // 2:
        raise ConfigError(f"--start must be at most {total / SAMPLE_RATE_HZ - 0.5:.1f} s here and not {start_seconds}")
    return [signal[start : start + length] for signal in signals], start / SAMPLE_RATE_HZ


def _long_term_db(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power by frequency in dB; 0 dB is a full-scale sine at a bin: (1025,)."""
    power = 10 ** (spectrogram_db(audio, hop=1024).astype(np.float64) / 10)
    return 10 * np.log10(power.mean(axis=1))


def _table(paths: tuple[Path, ...], lags: list[int], spectra: list[NDArray[np.float64]]) -> str:
    """Level of each band in A, and how far the others are from it."""
    frequency = np.linspace(0, SAMPLE_RATE_HZ / 2, len(spectra[0]))
    names = [chr(ord("A") + index) if index < 26 else str(index) for index in range(len(paths))]
    rows = [("BAND", "A", *(f"{name} - A" for name in names[1:]))]
    for low, high in pairwise(_BAND_EDGES_HZ):
        inside = (frequency >= low) & (frequency < high)
        levels = [10 * np.log10((10 ** (spectrum[inside] / 10)).sum()) for spectrum in spectra]
        first, *rest = (max(level, _SILENT_DB) for level in levels)
        rows.append((f"{low / 1000:g} to {high / 1000:g} kHz", f"{first:.1f} dB", *(f"{x - first:+.1f}" for x in rest)))
    lines = [f"{name}  {path}" for name, path in zip(names, paths, strict=True)]
    for index, lag in enumerate(lags, 1):
        lines[index] += f"  ({lag:+d} samples, {1000 * lag / SAMPLE_RATE_HZ:+.1f} ms, removed)"
    return "\n".join([*lines, "", format_table(rows)])


def _titles(paths: tuple[Path, ...]) -> list[str]:
    """File names, with their folders where two are the same; never too long for a panel."""
    names = [path.name for path in paths]
    full = [str(path) if names.count(path.name) > 1 else path.name for path in paths]
    return [name if len(name) <= 40 else f"...{name[-37:]}" for name in full]


def _draw(
    png: Path,
    titles: list[str],
    excerpts: list[NDArray[np.float32]],
    spectra: list[NDArray[np.float64]],
    start: float,
) -> None:
    """Above the spectrograms, below the long-term spectra (under A) and differences (under the others)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(excerpts)
    figure = Figure(figsize=(1.2 + 4.2 * count, 6.6), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, count, squeeze=False)
    hop = int(np.clip(len(excerpts[0]) // 900, 64, 1024))
    levels = [spectrogram_db(excerpt, hop=hop) for excerpt in excerpts]
    extent = (start, start + levels[0].shape[1] * hop / SAMPLE_RATE_HZ, 0.0, SAMPLE_RATE_HZ / 2000)
    look: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "antialiased"}
    for axis, title, level in zip(axes[0], titles, levels, strict=True):
        image = axis.imshow(level, cmap="magma", vmin=-105, vmax=-20, **look)
        axis.set_title(title, fontsize=10)
    for axis, title, level in zip(axes[1, 1:], titles[1:], levels[1:], strict=True):
        # what is quieter than -105 dB in both is no difference that anyone hears or sees above
        change = np.maximum(level, -105) - np.maximum(levels[0], -105)
        difference = axis.imshow(change, cmap="RdBu_r", vmin=-_DIFFERENCE_DB, vmax=_DIFFERENCE_DB, **look)
        axis.set_title(f"{title} - A", fontsize=10)
        axis.set_xlabel("time (s)", fontsize=9)
    khz = np.linspace(0, SAMPLE_RATE_HZ / 2000, len(spectra[0]))
    for title, spectrum in zip(titles, spectra, strict=True):
        axes[1, 0].plot(khz, np.maximum(spectrum, _SILENT_DB), linewidth=1.1, label=title)
    axes[1, 0].set(xlim=(0, khz[-1]), ylim=(_SILENT_DB, None))
    axes[1, 0].set_title("long-term spectra", fontsize=10)
    axes[1, 0].set_xlabel("frequency (kHz)", fontsize=9)
    axes[1, 0].set_ylabel("level (dB)", fontsize=9)
    axes[1, 0].legend(fontsize=8)
    axes[1, 0].grid(alpha=0.3)
    axes[0, 0].set_ylabel("frequency (kHz)", fontsize=9)
    axes[1, 1].set_ylabel("frequency (kHz)", fontsize=9)
    for axis in axes.flat:
        axis.tick_params(labelsize=8, length=3)
    for mapped, row, label in ((image, 0, "level (dB)"), (difference, 1, "louder (dB)")):
        bar = figure.colorbar(mapped, ax=list(axes[row]), pad=0.015, aspect=30)
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8, length=3)
    try:
        with whole_file(png) as partial:
            figure.savefig(partial, format="png")
    except OSError as error:
        raise RestorerError(f"cannot write {png}: {error.strerror}; name another place") from error
