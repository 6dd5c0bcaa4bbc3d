"""How fast a config trains and in how much memory, on noise in place of music."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from restorer.training.config import Config
from restorer.training.signal import HOP, WINDOW
from restorer.training.wgan import build_trainer


@dataclass(frozen=True)
class TrainingSpeed:
    """Steps of one process on one device; `peak_bytes` is what a CUDA device held at most, None on a CPU."""

    steps_per_second: float
    peak_bytes: int | None

    def days(self, steps: int) -> float:
        """How long so many steps last, if decoding keeps up."""
        return steps / self.steps_per_second / 86400


def measure_training(config: Config, steps: int, warmup_steps: int = 3) -> TrainingSpeed:
    """Time whole steps of the config's trainer, after a few that choose kernels and fill Adam's moments.

    Raises
    ------
    torch.OutOfMemoryError
        The device has too little memory.
    """
    trainer = build_trainer(config)
    s, cuda = config.schedule, trainer.device.type == "cuda"
    random = torch.Generator().manual_seed(s.seed)
    original = 0.1 * torch.randn(s.batch, WINDOW + (s.frames - 1) * HOP, generator=random)
    coded = 0.5 * (original + original.roll(1, dims=1))
    batch = [tensor.to(trainer.device) for tensor in (original, coded, torch.full((s.batch,), 20000.0))]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(warmup_steps):
        trainer.step(*batch)  # it waits for its own losses, so no more work is queued when it returns
    started = time.monotonic()
    for _ in range(steps):
        trainer.step(*batch)
    seconds = time.monotonic() - started
    return TrainingSpeed(steps / seconds, torch.cuda.max_memory_allocated() if cuda else None)


def fits_device(config: Config) -> bool:
    """Whether a step finds enough memory."""
    try:
        measure_training(config, steps=1, warmup_steps=1)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def largest_batch(config: Config, fits: Callable[[Config], bool] = fits_device) -> int:
    """The largest batch that fits, doubled until one does not and then halved in between; 0: not one excerpt."""

    def fit(batch: int) -> bool:
        return fits(replace(config, schedule=replace(config.schedule, batch=batch, accumulate=1)))

    low, high = 0, 1
    while fit(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit(middle) else (low, middle)
    return low
