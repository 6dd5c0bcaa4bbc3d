"""How fast training excerpts come from a folder of pairs, by number of worker processes.

Run: pytest benchmarks/test_loader.py -s

A training step needs `batch` excerpts, so excerpts per second over batch is the number of steps per second that the
workers can feed.
"""

import os
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from restorer.synthesis import synthesize
from restorer.training.config import Config, DataConfig, ScheduleConfig
from restorer.training.distributed import World
from restorer.training.loader import Excerpts, load
from restorer.training.mp3 import Coding, encode_mp3
from restorer.training.pairs import Pairs, Song

_SECONDS = 60
_CODINGS = ("16m", "32m", "64m", "64j", "128j")
_BATCH, _FRAMES, _BATCHES = 8, 256, 16


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


@pytest.mark.parametrize("workers", [0, 1, 2, 4, 8])
def test_loader(benchmark, pairs: Pairs, workers: int) -> None:  # type: ignore[no-untyped-def]
    """Whole batches of 3 s excerpts, from the first one that waits to the last; starting workers is not counted."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        pytest.skip(f"{workers} workers on {cores} cores say nothing")
    schedule = ScheduleConfig(steps=1_000_000, batch=_BATCH, frames=_FRAMES, workers=workers)
    config = Config(schedule=schedule, data=DataConfig(codings=_CODINGS))
    batches = load(Excerpts(pairs, config, 0), _BATCH, workers, World(0, 1, torch.device("cpu")))
    next(batches)

    def draw() -> None:
        for _ in islice(batches, _BATCHES):
            pass

    benchmark.pedantic(draw, rounds=3, iterations=1, warmup_rounds=1)
    batches.close()
    rate = _BATCHES * _BATCH / benchmark.stats.stats.median
    seconds = (2048 + (_FRAMES - 1) * 512) / 44100
    benchmark.extra_info.update(excerpts_per_second=round(rate, 1), workers=workers, cores=cores)
    print(
        f"\n{workers} workers on {cores} cores: {rate:.0f} excerpts of {seconds:.1f} s per second, "
        f"{rate * seconds:.0f} times real time, {rate / _BATCH:.1f} batches of {_BATCH}"
    )
    assert rate * seconds > 10  # the default configuration trains at about 12 times real time on two CPU cores
