"""From rows to tables: means, confidence intervals and the share made worse, as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from restorer.training.evaluation import MP3, MP3_SCALED, ORIGINAL, Key, ModelFile, Results, Work
from restorer.training.evaluation_data import coding_order
from restorer.training.mp3 import Coding, describe_rounding
from restorer.whole_file import whole_file

WORSE_ODG = 0.1
RESAMPLES = 2000
LABELS = {
    "odg": "ODG", "di": "DI", "lsd": "LSD (dB)", "mse": "MSE", "snr": "SNR (dB)", "si_snr": "SI-SNR (dB)",
    "visqol": "ViSQOL",
}  # fmt: skip
LOWER_IS_BETTER = ("lsd", "mse")
Cell = dict[tuple[str, int], list[dict[str, float]]]  # takes' metrics by (song, excerpt)


@dataclass(frozen=True)
class Estimate:
    """A mean over excerpts and its 95 % bootstrap interval; `gain` is the mean difference from the MP3."""

    mean: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Line:
    """One system at one coding."""

    coding: str
    system: str
    excerpts: int
    songs: int
    metrics: dict[str, Estimate]
    worse: float | None  # share of excerpts (of takes, for a mean of several) worse than the MP3
    spread: dict[str, float] | None


def describe_coding(name: str) -> str:
    """Spell out 32m as "32 mono", 64j as "64 joint stereo", 64j-mix as "64 joint stereo, mixed"."""
    coding = Coding.parse(name.removesuffix("-mix"))
    mode = "joint stereo" if coding.stereo else "mono"
    return f"{coding.kbps} {mode}" + (", mixed" if name.endswith("-mix") else "")


@dataclass(frozen=True)
class Choice:
    """What one line shows: a system's takes of every excerpt, and how one value is made of them."""

    label: str
    cell: Cell
    choose: Callable[[list[float], str], float]
    model: ModelFile | None = None

    def values(self, name: str) -> np.ndarray:
        """One value of a metric per excerpt."""
        return np.array([self.choose([row[name] for row in takes], name) for takes in self.cell.values()])


def collect(work: list[Work], results: Results, models: tuple[ModelFile, ...]) -> dict[str, list[Choice]]:
    """The choices of each coding, MP3 first, of all rows that the work asks for and that were measured."""
    cells: dict[tuple[str, str], Cell] = {}
    for one in work:
        for key, names in one.wanted.items():
            if all(name in results.rows.get(key, {}) for name in names):
                cell = cells.setdefault((key.coding, key.system), {})
                cell.setdefault((key.song, key.excerpt), []).append(results.rows[key])
    table = {}
    for coding in sorted({coding for coding, _ in cells}, key=coding_order):
        choices = [Choice("MP3", cells[coding, MP3], _mean)]
        if (coding, MP3_SCALED) in cells:
            choices.append(Choice("MP3 / 0.95", cells[coding, MP3_SCALED], _mean))
        for model in models:
            cell = cells.get((coding, model.sha256), {})
            count = max((len(takes) for takes in cell.values()), default=0)
            if count > 1:
                choices.append(Choice(f"{model.label}, mean of {count} takes", cell, _mean, model))
                choices.append(Choice(f"{model.label}, best of {count}", cell, _best))
            elif count:
                kind = "one take" if model.noise_size else "deterministic"
                choices.append(Choice(f"{model.label}, {kind}", cell, _mean, model))
        table[coding] = choices
    return table


def summarise(table: dict[str, list[Choice]], results: Results, metrics: tuple[str, ...]) -> list[Line]:
    """One line per coding and system.

    The intervals come from resampling songs, not excerpts: excerpts of one song are alike.
    """
    lines = []
    for coding, choices in table.items():
        for choice in choices:
            takes = max(map(len, choice.cell.values()))
            spread = None
            if choice.model is not None and takes > 1 and "-mix" not in coding:
                spread = _spread(coding, choice.model, results, list(choice.cell), takes)
            lines.append(_line(coding, choice, choices[0], metrics, spread))
    return lines


def _mean(values: list[float], name: str) -> float:
    return float(np.mean(values))


def _best(values: list[float], name: str) -> float:
    """The paper's choice: for each metric by itself the take that comes closest to the original."""
    return min(values) if name in LOWER_IS_BETTER else max(values)


def _line(coding: str, choice: Choice, mp3: Choice, metrics: tuple[str, ...], spread: dict[str, float] | None) -> Line:
    songs = [song for song, _ in choice.cell]
    baseline = Choice("", {excerpt: mp3.cell[excerpt] for excerpt in choice.cell}, _mean)
    estimates = {}
    for name in metrics:
        values = choice.values(name)
        gain = estimate(values - baseline.values(name), songs)
        estimates[name] = Estimate(*estimate(values, songs), *gain)
    worse = None
    if "odg" in metrics and choice is not mp3:
        shares = []
        for excerpt, takes in choice.cell.items():
            grades = [row["odg"] for row in takes]
            grades = [max(grades)] if choice.choose is _best else grades
            limit = mp3.cell[excerpt][0]["odg"] - WORSE_ODG
            shares.append(np.mean([grade < limit for grade in grades]))
        worse = float(np.mean(shares))
    return Line(coding, choice.label, len(songs), len(set(songs)), estimates, worse, spread)


def estimate(values: np.ndarray, songs: list[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean of the values and its 95 % percentile-bootstrap interval over songs: (mean, low, high)."""
    names = sorted(set(songs))
    index = np.array([names.index(song) for song in songs])
    totals = np.bincount(index, weights=values)
    counts = np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def _spread(
    coding: str, model: ModelFile, results: Results, excerpts: list[tuple[str, int]], takes: int
) -> dict[str, float] | None:
    """How far the profiles of two takes lie apart: mean L1 difference relative to the original's profile.

    Beside it that of MP3 and original, and of restored and original.
    """
    found: dict[str, list[float]] = {}
    for song, excerpt in excerpts:
        keys = [Key(model.sha256, song, excerpt, coding, take) for take in range(takes)]
        ends = [Key(name, song, excerpt, coding, 0) for name in (ORIGINAL, MP3)]
        if any(key not in results.profiles for key in keys + ends):
            continue
        for kind in ("frequency", "rhythm"):
            shapes = np.array([results.profiles[key][kind] for key in keys])
            original, mp3 = (np.array(results.profiles[key][kind]) for key in ends)
            size = max(float(original.sum()), 1e-12)
            apart = [float(np.abs(a - b).sum()) for a, b in combinations(shapes, 2)]
            found.setdefault(f"{kind}_between_takes", []).append(float(np.mean(apart)) / size)
            found.setdefault(f"{kind}_mp3_to_original", []).append(float(np.abs(mp3 - original).sum()) / size)
            to_original = np.abs(shapes - original).sum(axis=1).mean() / size
            found.setdefault(f"{kind}_take_to_original", []).append(float(to_original))
    return {name: float(np.mean(values)) for name, values in found.items()} or None


def write_summary(folder: Path, lines: list[Line], metrics: tuple[str, ...], facts: dict[str, Any]) -> str:
    """Write summary.md, summary.csv and summary.json into the folder; returns the Markdown."""
    markdown = _markdown(lines, metrics, facts)
    _replace(folder / "summary.md", markdown)
    _replace(folder / "summary.csv", _csv(lines, metrics))
    _replace(folder / "summary.json", json.dumps({**facts, "table": [asdict(line) for line in lines]}, indent=1))
    return markdown


def _replace(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text)


def _markdown(lines: list[Line], metrics: tuple[str, ...], facts: dict[str, Any]) -> str:
    models = ", ".join(f"{m['name']} version {m['version']} ({m['sha256'][:8]})" for m in facts["models"])
    kind = "peak at full scale" if facts["normalise"] else "level as in the file"
    rate_hz, rounded = facts["coded_rate_hz"], facts["rounded_kbps"]
    if rate_hz is not None:
        kind += f", MP3s coded at {rate_hz} Hz" + (f" ({describe_rounding(rounded, rate_hz)})" if rounded else "")
    text = [
        f"Model {models}; data '{facts['data']}', split {facts['split']}, {facts['songs']} songs; "
        f"excerpts of {facts['seconds']:g} s, {kind}; {facts['hardware']}.",
        "",
        "Mean over excerpts, ± half the 95 % bootstrap interval over songs. Worse: share of excerpts whose "
        f"ODG is more than {WORSE_ODG} below the MP3's. LSD and MSE at 44.1 kHz; ODG, DI, ViSQOL at 48 kHz.",
        "",
        "| kbit/s | system | " + " | ".join(LABELS[name] for name in metrics) + " | worse | n |",
        "|---|---|" + "---:|" * (len(metrics) + 2),
    ]
    for line in lines:
        cells = [_cell(line.metrics[name], name) for name in metrics]
        worse = "" if line.worse is None else f"{100 * line.worse:.0f} %"
        cells = [describe_coding(line.coding), line.system, *cells, worse, str(line.excerpts)]
        text.append(f"| {' | '.join(cells)} |")
    spreads = [line for line in lines if line.spread]
    if spreads:
        text += [
            "",
            "Profiles: mean L1 difference of the magnitude spectrogram's mean over time (frequency) or over "
            "frequency (rhythm), relative to the original's profile.",
            "",
            "| kbit/s | model | frequency: two takes | take, original | MP3, original | rhythm: two takes "
            "| take, original | MP3, original |",
            "|---|---|" + "---:|" * 6,
        ]
        for line in spreads:
            spread = line.spread or {}
            cells = [
                f"{100 * spread[f'{kind}_{which}']:.1f} %"
                for kind in ("frequency", "rhythm")
                for which in ("between_takes", "take_to_original", "mp3_to_original")
            ]
            text.append(f"| {describe_coding(line.coding)} | {line.system} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _cell(value: Estimate, name: str) -> str:
    digits = 3 if name == "mse" else 1 if name in ("snr", "si_snr") else 2
    return f"{value.mean:.{digits}f} ± {(value.high - value.low) / 2:.{digits}f}"


def _csv(lines: list[Line], metrics: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    columns = list(Estimate.__dataclass_fields__)
    spreads = sorted({name for line in lines for name in line.spread or {}})
    writer.writerow(
        ["coding", "kbps", "mode", "system", "excerpts", "songs", "worse"]
        + [f"{name}_{column}" if column != "mean" else name for name in metrics for column in columns]
        + spreads
    )
    for line in lines:
        kbps, mode = describe_coding(line.coding).split(" ", 1)
        numbers = [asdict(line.metrics[name])[column] for name in metrics for column in columns]
        extra = [(line.spread or {}).get(name) for name in spreads]
        writer.writerow(
            [line.coding, kbps, mode, line.system, line.excerpts, line.songs, _digits(line.worse)]
            + [_digits(value) for value in numbers + extra]
        )
    return buffer.getvalue()


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
