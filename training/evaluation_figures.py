"""The paper's figures of an evaluation, as PNG: spectrograms (3), violins (4), frequency profiles (5)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from restorer.pictures import draw_spectrograms
from restorer.training.evaluation import ORIGINAL, Key, ModelFile, Results, Work, open_restorer
from restorer.training.evaluation_data import read_excerpt
from restorer.training.evaluation_summary import LABELS, Choice, describe_coding
from restorer.training.mp3 import SAMPLE_RATE, Coding
from restorer.whole_file import whole_file

SHOWN_KBPS = 32  # the paper's figures 3 and 5
SHOWN_SONGS = 3
SHOWN_TAKES = 3
SHOWN_NOISES = 4
PROFILES = 50
COLOURS = ("#8c8c8c", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2")


def draw_figures(
    folder: Path,
    work: list[Work],
    table: dict[str, list[Choice]],
    results: Results,
    models: tuple[ModelFile, ...],
    metrics: tuple[str, ...],
) -> Iterator[Path]:
    """Draw every figure that the results allow; yields each path when it is there."""
    coding = min((name for name in table if "-mix" not in name), key=_far_from_shown)
    yield from _draw_spectrograms(folder, work, coding, models)
    yield _draw_violins(folder / "figure4.png", table, metrics)
    for model in models:
        path = folder / f"figure5-{_file_name(model.label)}.png"
        if _draw_profiles(path, coding, table[coding], results, model):
            yield path


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
    places = np.linspace(0, len(first) - 1, min(SHOWN_SONGS, len(first))).round().astype(int)
    for one in (first[place] for place in places):
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


def _draw_profiles(path: Path, coding: str, choices: list[Choice], results: Results, model: ModelFile) -> bool:
    """Figure 5: for several z, the frequency profiles of excerpts, and their mean beside the originals'.

    False if the model has no profiles at this coding.
    """
    excerpts = next((list(choice.cell) for choice in choices if choice.model == model), [])[:PROFILES]
    panels = []
    for take in range(SHOWN_NOISES):
        keys = [Key(model.sha256, song, excerpt, coding, take) for song, excerpt in excerpts]
        kept = [results.profiles[key]["frequency"] for key in keys if key in results.profiles]
        if kept:
            panels.append((take, np.array(kept)))
    if not panels:
        return False
    known = [Key(ORIGINAL, song, excerpt, coding, 0) for song, excerpt in excerpts]
    originals = np.array([results.profiles[key]["frequency"] for key in known if key in results.profiles])
    bands = originals.shape[1]
    khz = (np.arange(bands) + 0.5) * SAMPLE_RATE / 2000 / bands
    with _figure(path, figsize=(0.6 + 3.4 * len(panels), 3.4)) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (take, shapes) in zip(axes, panels, strict=True):
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
            axis.set_title(f"{_title(coding)}{z}, {len(shapes)} excerpts", fontsize=10)
            axis.set_xlabel("frequency (kHz)", fontsize=9)
            axis.set_xlim(0, SAMPLE_RATE / 2000)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("mean magnitude (dB)", fontsize=9)
        axes[0].set_ylim(-50, 50)
        axes[0].legend(fontsize=8)
    return True


def _db(magnitude: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.maximum(magnitude, 1e-4))
