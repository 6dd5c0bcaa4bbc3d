"""How fast training excerpts come from a folder of pairs, by number of worker processes.

Run: pytest benchmarks/test_loader.py -s

A training step needs `batch` excerpts, so excerpts per second over batch is the number of steps per second that the
workers can feed.
"""

import os
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import Dataset

from restorer.synthesis import synthesize
from restorer.training.config import Config, DataConfig, ScheduleConfig
from restorer.training.distributed import World
from restorer.training.loader import Excerpts, load
from restorer.training.mp3 import Coding, encode_mp3
from restorer.training.pairs import Pairs, Song
from restorer.training.wgan import Segments
from restorer.training.wgan_config import WganConfig

_SECONDS = 60
_CODINGS = ("16m", "32m", "64m", "64j", "128j")
_BATCHES = 16


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Two songs of a minute, coded five ways, as `restorer prepare` lays them out."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in (0, 1):
        audio = np.tile(synthesize(_SECONDS / 6, 44100, seed, 2), 6)
        song = folder / f"song{seed}"
        song.mkdir()
        soundfile.write(song / "original.flac", audio.T, 44100)
        for name in _CODINGS:
            (song / f"{name}.mp3").write_bytes(encode_mp3(audio, Coding.parse(name)))
        Song(song.name, "train", "synthesised", 2, audio.shape[1], 20000.0, _CODINGS).write(song)
    return Pairs(folder, "train", quick=True)


def drawn(pairs: Pairs, workers: int) -> tuple[ScheduleConfig, Dataset]:
    """Excerpts of 3 s, as the loop's own training draws them."""
    schedule = ScheduleConfig(steps=1_000_000, batch=8, frames=256, workers=workers)
    return schedule, Excerpts(pairs, Config(schedule=schedule, data=DataConfig(codings=_CODINGS)), 0)


def segments(pairs: Pairs, workers: int) -> tuple[ScheduleConfig, Dataset]:
    """The paper's segments: 4 s, half overlapping, its three codings."""
    schedule = ScheduleConfig(steps=1_000_000, batch=12, frames=336, workers=workers)
    config = Config(schedule=schedule, data=DataConfig(codings=("16m", "32m", "64m")), wgan=WganConfig())
    return schedule, Segments(pairs, config, WganConfig(), 0)


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("kind", [drawn, segments])
def test_loader(benchmark, pairs: Pairs, kind: Callable[..., Any], workers: int) -> None:  # type: ignore[no-untyped-def]
    """Whole batches, from the first one that waits to the last; starting workers is not counted."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        pytest.skip(f"{workers} workers on {cores} cores say nothing")
    schedule, excerpts = kind(pairs, workers)
    batches = load(excerpts, schedule.batch, workers, World(0, 1, torch.device("cpu")))
    next(batches)

    def draw() -> None:
        for _ in islice(batches, _BATCHES):
            pass

    benchmark.pedantic(draw, rounds=3, iterations=1, warmup_rounds=1)
    batches.close()
    rate = _BATCHES * schedule.batch / benchmark.stats.stats.median
    seconds = (2048 + (schedule.frames - 1) * 512) / 44100
    benchmark.extra_info.update(excerpts_per_second=round(rate, 1), workers=workers, cores=cores)
    print(
        f"\n{workers} workers on {cores} cores: {rate:.0f} excerpts of {seconds:.1f} s per second, "
        f"{rate * seconds:.0f} times real time, {rate / schedule.batch:.1f} batches of {schedule.batch}"
    )
    assert rate * seconds > 10  # the default configuration trains at about 12 times real time on two CPU cores
