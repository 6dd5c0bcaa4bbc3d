"""Training excerpts from worker processes: sharded over ranks, fetched ahead, repeatable from any step."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from restorer.errors import RestorerError
from restorer.training.config import Config
from restorer.training.distributed import World
from restorer.training.pairs import Pairs
from restorer.training.pool import Pool
from restorer.training.signal import HOP, WINDOW

AHEAD = 4  # batches that every worker prepares ahead
_FROM_WORKER = f"{RestorerError.__module__}.{RestorerError.__qualname__}: "
FAREWELL_SECONDS = 60  # how long a worker goes on after SIGTERM, so that the trainer can finish its step


class Excerpts(Dataset):
    """Excerpt `index` of an endless sequence, (original, coded, bandwidth_hz); repeatable unless it is a pool's."""

    def __init__(self, pairs: Pairs | Pool, config: Config, first: int):
        self.pairs, self.config, self.first = pairs, config, first
        self.samples = WINDOW + (config.schedule.frames - 1) * HOP

    def __len__(self) -> int:
        return self.config.schedule.steps * self.config.schedule.batch - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        c = self.config
        original, coded, bandwidth = self.pairs.draw(self.first + index, self.samples, c.schedule.seed, c.data.codings)
        return original, coded, np.float32(bandwidth)


def shards(items: int, batch: int, rank: int, size: int) -> Iterator[list[int]]:
    """Indices of every whole global batch that are this rank's: every size-th, from its own number on."""
    for start in range(0, items - batch + 1, batch):
        yield list(range(start + rank, start + batch, size))


def load(excerpts: Dataset, batch: int, workers: int, world: World) -> Iterator[list[Tensor]]:
    """Yield this rank's share of each global batch on its device: (batch / size, samples) x 2, (batch / size,).

    Workers decode up to four batches ahead each, while the device computes. To a CUDA device, batches are copied from
    pinned memory, so that the process queues the step's first kernels and does not wait for the copy. Closing the
    iterator ends the workers.

    Raises
    ------
    RestorerError
        A file of the pairs is gone or damaged.
    """
    cuda = world.device.type == "cuda"
    loader = DataLoader(
        excerpts,
        batch_sampler=shards(len(excerpts), batch, world.rank, world.size),  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=quiet_worker,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=cuda,
    )
    try:
        for tensors in loader:
            yield [tensor.to(world.device, non_blocking=True) for tensor in tensors]
    except RestorerError as error:  # from a worker it comes with a traceback, whose last line is the message
        raise RestorerError(str(error).strip().splitlines()[-1].removeprefix(_FROM_WORKER)) from error


def quiet_worker(_: int) -> None:
    """Silence the MP3 decoder's complaints about cut bit reservoirs, and leave cores and signals to training."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(FAREWELL_SECONDS))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
