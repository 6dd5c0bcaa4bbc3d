"""The paper's figures of an evaluation, as PNG: spectrograms (3), violins (4), frequency profiles (5)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from restorer.pictures import draw_spectrograms
from restorer.training.evaluation import ORIGINAL, Key, ModelFile, Results, Work, open_restorer, profiles
from restorer.training.evaluation_data import read_excerpt
from restorer.training.evaluation_summary import LABELS, Choice, describe_coding
from restorer.training.mp3 import SAMPLE_RATE, Coding
from restorer.whole_file import whole_file

SHOWN_KBPS = 32  # the paper's figures 3 and 5
SHOWN_SONGS = 3
SHOWN_TAKES = 3
FEWEST_NOISES, MOST_NOISES = 3, 4  # of figure 5
PROFILES = 50  # excerpts of figure 5
COLOURS = ("#8c8c8c", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2")
T = TypeVar("T")


def draw_figures(
    folder: Path,
    work: list[Work],
    table: dict[str, list[Choice]],
    results: Results,
    models: tuple[ModelFile, ...],
    metrics: tuple[str, ...],
) -> Iterator[str]:
    """Draw every figure that the results allow; yields a line about each when it is there.

    Figures 3 and 5 restore what no result holds: three takes, whatever was asked for.
    """
    coding = min((name for name in table if "-mix" not in name), key=_far_from_shown)
    for path in _draw_spectrograms(folder, work, coding, models):
        yield f"{path}: drawn"
    yield f"{_draw_violins(folder / 'figure4.png', table, metrics)}: drawn"
    for model in models:
        measured = next((set(choice.cell) for choice in table[coding] if choice.model == model), set())
        chosen = spread([one for one in work if one.coding == coding and _place(one) in measured], PROFILES)
        if chosen:
            path = folder / f"figure5-{_file_name(model.label)}.png"
            _draw_profiles(path, chosen, results, model)
            few = f" of {len(chosen)} excerpts and not {PROFILES}; more: --excerpts-per-song, --split"
            yield f"{path}: drawn{few if len(chosen) < PROFILES else ''}"


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _far_from_shown(name: str) -> tuple[bool, int]:
    coding = Coding.parse(name)
    return coding.stereo, abs(coding.kbps - SHOWN_KBPS)


def _title(coding: str) -> str:
    return describe_coding(coding).replace(" ", " kbit/s ", 1)


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-")


@contextmanager
def _figure(path: Path, **settings: Any) -> Iterator[Any]:
    """A matplotlib figure without global state, saved beside its place and renamed into it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=130, layout="constrained", facecolor="white", **settings)
    FigureCanvasAgg(figure)
    yield figure
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")


def _draw_spectrograms(folder: Path, work: list[Work], coding: str, models: tuple[ModelFile, ...]) -> Iterator[Path]:
    """Figure 3: original, MP3 and three takes (one of a deterministic model) of a few songs."""
    first = [one for one in work if one.coding == coding and one.excerpt == 0]
    for one in spread(first, SHOWN_SONGS):
        start, samples = one.piece.bounds(0, one.excerpts, one.settings.seconds)
        excerpt = read_excerpt(one.piece, coding, start, samples, one.settings.normalise)
        for model in models:
            restorer = open_restorer(model.path, one.device, one.threads)
            count = SHOWN_TAKES if model.noise_size else 1
            takes = restorer.candidates(excerpt.heard, SAMPLE_RATE, n=count)
            panels = [("Original", excerpt.original), (f"MP3, {_title(coding)}", excerpt.coded)]
            for index, take in enumerate(takes):
                title = f"Restored, z {index}" if model.noise_size else "Restored"
                panels.append((title, excerpt.inside(take)))
            path = folder / f"figure3-{_file_name(model.label)}-{one.piece.id}.png"
            draw_spectrograms(path, panels, SAMPLE_RATE)
            yield path


def _draw_violins(path: Path, table: dict[str, list[Choice]], metrics: tuple[str, ...]) -> Path:
    """Figure 4: the distribution of every metric over excerpts, by coding and system."""
    from matplotlib.patches import Patch

    labels = list(dict.fromkeys(c.label for choices in table.values() for c in choices))
    labels = [label for label in labels if label != "MP3 / 0.95"]
    colours = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(labels)}
    columns = 2 if len(metrics) > 1 else 1
    rows = -(-len(metrics) // columns)
    width = max(4.0, 0.5 + 0.28 * len(table) * len(labels))
    with _figure(path, figsize=(columns * width, 0.5 + 2.6 * rows)) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(metrics) :]:
            axis.set_visible(False)
        for axis, name in zip(axes, metrics, strict=False):
            for group, choices in enumerate(table.values()):
                for choice in choices:
                    if choice.label not in labels:
                        continue
                    offset = (labels.index(choice.label) - (len(labels) - 1) / 2) * 0.8 / len(labels)
                    parts = axis.violinplot(
                        [choice.values(name)], [group + offset], widths=0.75 / len(labels), showmeans=True
                    )
                    for body in parts["bodies"]:
                        body.set_facecolor(colours[choice.label])
                        body.set_alpha(0.6)
                    for part in ("cmeans", "cmins", "cmaxes", "cbars"):
                        parts[part].set_color(colours[choice.label])
                        parts[part].set_linewidth(1.0)
            names = [describe_coding(coding).replace(" ", "\n").replace(",", "") for coding in table]
            axis.set_xticks(range(len(names)), names, fontsize=7)
            axis.tick_params(axis="y", labelsize=8)
            axis.set_title(LABELS[name], fontsize=10)
            axis.grid(axis="y", alpha=0.3)
        handles = [Patch(color=colours[label], alpha=0.6, label=label) for label in labels]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(labels)), fontsize=9)
    return path


def _place(one: Work) -> tuple[str, int]:
    return one.piece.id, one.excerpt


def _take_profiles(work: list[Work], results: Results, model: ModelFile) -> list[np.ndarray]:
    """Frequency profiles (excerpts, bands) of each z of figure 5; those that no result holds are measured and kept."""
    most = 1
    if model.noise_size:
        takes = [key.take for key in results.profiles if key.system == model.sha256]
        most = int(np.clip(1 + max(takes, default=0), FEWEST_NOISES, MOST_NOISES))
    rows = []
    for one in work:
        keys = [Key(model.sha256, *_place(one), one.coding, take) for take in range(most)]
        if any(key not in results.profiles for key in keys):
            start, samples = one.piece.bounds(one.excerpt, one.excerpts, one.settings.seconds)
            excerpt = read_excerpt(one.piece, one.coding, start, samples, one.settings.normalise)
            restorer = open_restorer(model.path, one.device, one.threads)
            takes = restorer.candidates(excerpt.heard, SAMPLE_RATE, n=most)
            measured = [profiles(excerpt.inside(audio)) for audio in takes]
            results.add([(key, {}, shape) for key, shape in zip(keys, measured, strict=True)])
        rows.append([results.profiles[key]["frequency"] for key in keys])
    return list(np.array(rows).swapaxes(0, 1))


def _draw_profiles(path: Path, work: list[Work], results: Results, model: ModelFile) -> None:
    """Figure 5: for several z, the frequency profiles of excerpts, and their mean beside the originals'."""
    panels = _take_profiles(work, results, model)
    keys = [Key(ORIGINAL, *_place(one), one.coding, 0) for one in work]
    originals = np.array([results.profiles[key]["frequency"] for key in keys])
    bands = originals.shape[1]
    khz = (np.arange(bands) + 0.5) * SAMPLE_RATE / 2000 / bands
    with _figure(path, figsize=(0.6 + 3.4 * len(panels), 3.4)) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for take, (axis, shapes) in enumerate(zip(axes, panels, strict=True)):
            axis.plot(khz, _db(shapes).T, color="#1f77b4", alpha=0.25, linewidth=0.6)
            axis.plot(khz, _db(shapes.mean(axis=0)), color="#2ca02c", linewidth=1.8, label="mean")
            axis.plot(
                khz,
                _db(originals.mean(axis=0)),
                ":",
                color="#d62728",
                linewidth=1.8,
                label="mean of originals",
            )
            z = f", z {take}" if model.noise_size else ""
            axis.set_title(f"{_title(work[0].coding)}{z}, {len(shapes)} excerpts", fontsize=10)
            axis.set_xlabel("frequency (kHz)", fontsize=9)
            axis.set_xlim(0, SAMPLE_RATE / 2000)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("mean magnitude (dB)", fontsize=9)
        axes[0].set_ylim(-50, 50)
        axes[0].legend(fontsize=8)


def _db(magnitude: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.maximum(magnitude, 1e-4))
