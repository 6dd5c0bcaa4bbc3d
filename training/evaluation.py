"""Measure models on many excerpts: in parallel, and so that an interrupted evaluation goes on.

Every number is one row of OUT/results.jsonl, keyed by (system, song, excerpt, coding, take). A system is
"mp3", "mp3/0.95" (LAME scales its input by about 0.95; undoing that is the least a model must do) or a model
by its SHA-256. A joint-stereo coding gives two rows: "64j" with the metrics of both channels, "64j-mix" with
those of the mean of both.
"""

import hashlib
import json
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from restorer import Restorer
from restorer.bundled import find_model
from restorer.errors import ConfigError, RestorerError
from restorer.metrics import measure
from restorer.profiles import measure_profiles
from restorer.training.evaluation_data import Excerpt, Float32, Piece, read_excerpt
from restorer.training.json_lines import append_lines, load_lines
from restorer.training.mp3 import LAME_GAIN, SAMPLE_RATE, Coding
from restorer.training.prepare_command import KILLED
from restorer.whole_file import whole_file

MP3, MP3_SCALED, ORIGINAL = "mp3", "mp3/0.95", "original"
DECIBEL_LIMIT = 150.0  # finer than float32; keeps the ratios of equal signals finite
TAKES_AT_ONCE = 4  # keeps memory low


class Key(NamedTuple):
    """What one row of results is about."""

    system: str
    song: str
    excerpt: int
    coding: str
    take: int


Measured = tuple[Key, dict[str, float], dict[str, list[float]]]  # metrics, profiles


@dataclass(frozen=True)
class ModelFile:
    """One model of an evaluation; `path` None is the bundled one."""

    path: Path | None
    sha256: str
    label: str
    noise_size: int
    description: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What decides the numbers besides songs, codings, models and takes."""

    data: str
    split: str
    seconds: float
    excerpts_per_song: int
    normalise: bool
    coded_rate_hz: int | None = None  # None: LAME's own for each bitrate


@dataclass(frozen=True)
class Work:
    """One excerpt in one coding, and what is to be measured of it."""

    piece: Piece
    excerpt: int
    excerpts: int
    coding: str
    wanted: dict[Key, tuple[str, ...]]  # metrics by row
    settings: Settings
    models: tuple[ModelFile, ...]
    device: str
    threads: int


def open_models(paths: Sequence[Path | None], device: str) -> tuple[ModelFile, ...]:
    """Load each model once, to check it and to read its name; names are made unique.

    Raises
    ------
    ModelError, DeviceError, ConfigError
        A model cannot be used, is given twice, or has another sample rate than 44.1 kHz.
    """
    models: list[ModelFile] = []
    for path in paths:
        info = Restorer(path, device=device, threads=1).model_info
        if info.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"model {path} works at {info.sample_rate} Hz; only {SAMPLE_RATE} Hz can be evaluated")
        file = find_model(path)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if sha256 in (model.sha256 for model in models):
            raise ConfigError(f"model {path or 'compact.onnx'} is given twice; name each model once")
        label = info.name or sha256[:8]
        if label in (model.label for model in models):
            label = f"{label} {file.stem}"
        if label in (model.label for model in models):
            label = f"{label} {sha256[:8]}"
        description = {
            "name": info.name, "version": info.version, "sha256": sha256, "noise_size": info.noise_size,
            "file": path.name if path else "bundled", "trained_kbps": list(info.trained_kbps),
        }  # fmt: skip
        models.append(ModelFile(path, sha256, label, info.noise_size, description))
    return tuple(models)


def views(coding: str) -> tuple[str, ...]:
    """Names under which a coding's results are kept."""
    return (coding, f"{coding}-mix") if Coding.parse(coding).stereo else (coding,)


def plan_work(
    pieces: Iterable[Piece],
    settings: Settings,
    models: tuple[ModelFile, ...],
    takes: int,
    metrics: tuple[str, ...],
    device: str,
    threads: int,
) -> list[Work]:
    """List everything an evaluation consists of; a model without noise has one take."""
    systems = [(MP3, 1), (MP3_SCALED, 1)] + [(m.sha256, takes if m.noise_size else 1) for m in models]
    work = []
    for piece in pieces:
        count = piece.excerpts(settings.excerpts_per_song, settings.seconds)
        for excerpt in range(count):
            for coding in piece.codings:
                wanted = {
                    Key(system, piece.id, excerpt, view, take): metrics
                    for view in views(coding)
                    for system, number in systems
                    for take in range(number)
                }
                work.append(Work(piece, excerpt, count, coding, wanted, settings, models, device, threads))
    return work


def do_work(work: Work) -> list[Measured]:
    """Measure one excerpt: (key, metrics, profiles) per row, and the profiles of the original."""
    start, samples = work.piece.bounds(work.excerpt, work.excerpts, work.settings.seconds)
    excerpt = read_excerpt(work.piece, work.coding, start, samples, work.settings.normalise)
    results: list[Measured] = []
    for view in views(work.coding):
        original = _seen(excerpt.original, view)
        key = Key(ORIGINAL, work.piece.id, work.excerpt, view, 0)
        results.append((key, {}, profiles(original)))
    for system, take, audio in _renditions(work, excerpt):
        for view in views(work.coding):
            key = Key(system, work.piece.id, work.excerpt, view, take)
            if key in work.wanted:
                one, other = _seen(excerpt.original, view), _seen(audio, view)
                values = measure(one, other, SAMPLE_RATE, work.wanted[key])
                results.append((key, {name: _finite(v) for name, v in values.items()}, profiles(other)))
    return results


def _renditions(work: Work, excerpt: Excerpt) -> Iterator[tuple[str, int, Float32]]:
    """(system, take, audio) of everything that some wanted row is about."""
    yield MP3, 0, excerpt.coded
    yield MP3_SCALED, 0, excerpt.coded / np.float32(LAME_GAIN)
    for model in work.models:
        takes = sorted({key.take for key in work.wanted if key.system == model.sha256})
        while takes:
            first = takes[0]
            count = min(TAKES_AT_ONCE, takes[-1] - first + 1)
            restorer = open_restorer(model.path, work.device, work.threads)
            for offset, audio in enumerate(restorer.candidates(excerpt.heard, SAMPLE_RATE, n=count, seed=first)):
                yield model.sha256, first + offset, excerpt.inside(audio)
            takes = [take for take in takes if take >= first + count]


@lru_cache(maxsize=4)
def open_restorer(path: Path | None, device: str, threads: int) -> Restorer:
    """One model, loaded once per process."""
    return Restorer(path, device=device, threads=threads)


def _seen(audio: Float32, view: str) -> Float32:
    return audio.mean(axis=0, keepdims=True) if view.endswith("-mix") else audio


def _finite(value: float) -> float:
    return float(np.clip(value, -DECIBEL_LIMIT, DECIBEL_LIMIT)) if math.isinf(value) else value


def profiles(audio: Float32) -> dict[str, list[float]]:
    """The paper's profiles (4.1.1) of the mean of all channels.

    `frequency` is the magnitude spectrogram's mean over time, 256 bands of four bins (86 Hz); `rhythm` its
    mean over frequency, one value per four frames (46 ms). Four significant digits.
    """
    measured = measure_profiles(audio)
    return {name: [float(f"{value:.4g}") for value in getattr(measured, name)] for name in ("frequency", "rhythm")}


class Results:
    """The rows of an evaluation in its folder: results.jsonl, profiles.jsonl, settings.json.

    Raises
    ------
    ConfigError
        The folder holds results of other settings.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.folder = folder
        self.rows: dict[Key, dict[str, float]] = {}
        self.profiles: dict[Key, dict[str, list[float]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "settings.json"
        if path.exists():
            known = json.loads(path.read_text())
            for name, value in asdict(settings).items():
                if known.get(name) != value:
                    raise ConfigError(
                        f"'{folder}' holds results with {name} {known.get(name)!r} and not {value!r}; "
                        "give the same value or choose another --out"
                    )
        else:
            with whole_file(path) as partial:
                partial.write_text(json.dumps(asdict(settings), indent=1))
        for row in load_lines(folder / "results.jsonl"):
            self.rows.setdefault(_key(row), {}).update(row["metrics"])
        for row in load_lines(folder / "profiles.jsonl"):
            self.profiles[_key(row)] = {name: row[name] for name in ("frequency", "rhythm")}

    def missing(self, work: Work) -> Work | None:
        """The part of `work` that no earlier run has finished; None if there is nothing left."""
        left = {
            key: tuple(name for name in names if name not in self.rows.get(key, {}))
            for key, names in work.wanted.items()
        }
        left = {key: names for key, names in left.items() if names}
        return Work(**{**vars(work), "wanted": left}) if left else None

    def add(self, results: list[Measured]) -> None:
        """Append rows; profiles first, because a row counts as finished."""
        fresh = [(key, shape) for key, _, shape in results if key not in self.profiles]
        append_lines(self.folder / "profiles.jsonl", [{**key._asdict(), **shape} for key, shape in fresh])
        measured = [(key, metrics) for key, metrics, _ in results if metrics]
        rows = [{**key._asdict(), "metrics": metrics} for key, metrics in measured]
        append_lines(self.folder / "results.jsonl", rows)
        self.profiles.update(fresh)
        for key, metrics in measured:
            self.rows.setdefault(key, {}).update(metrics)


def _key(row: dict[str, Any]) -> Key:
    return Key(*(row[name] for name in Key._fields))


def run(work: Sequence[Work], results: Results, jobs: int) -> Iterator[str | None]:
    """Do the work and keep the results; yields once per finished piece of work, its problem or None.

    Raises
    ------
    RestorerError
        Results cannot be written, or a process was killed; what was kept before stays.
    """

    def keep(one: Work, measure_it: Callable[[], list[Measured]]) -> str | None:
        try:
            found = measure_it()
        except RestorerError as error:
            return f"{one.piece.path.name}, {one.coding}: {error}"
        results.add(found)
        return None

    if jobs == 1:
        for one in work:
            yield keep(one, lambda one=one: do_work(one))
        return
    # Ctrl-C reaches the whole group; only the parent answers, and lets the workers finish what they do.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=signal.signal, initargs=ignore)
    try:
        futures = {pool.submit(do_work, one): one for one in work}
        for future in as_completed(futures):
            yield keep(futures[future], future.result)
    except BrokenProcessPool as error:
        raise RestorerError(KILLED) from error
    finally:
        pool.shutdown(cancel_futures=True)
