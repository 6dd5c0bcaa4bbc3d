"""The paper's own training (3.2): a Wasserstein GAN from the first step on, and nothing else.

A `[wgan]` table in a config chooses this instead of the loop's default, which reconstructs first. From
`[schedule]` it takes steps, batch, frames, the two learning rates, gradient_clip, seed, workers and bf16;
`[loss]` has no part in it.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from restorer.errors import ConfigError, RestorerError
from restorer.training.config import Config
from restorer.training.pairs import Pairs, Song
from restorer.training.paper_critic import wgan_loss
from restorer.training.paper_generator import PaperGenerator
from restorer.training.signal import HOP, WINDOW, analyse
from restorer.training.train import Trainer
from restorer.training.wgan_config import WganConfig

# Added to eq. 3's denominators, which are of order 1e6 where takes differ by 3 %: no division by zero.
PROFILE_FLOOR = 1.0


def profile_loss(first: Tensor, second: Tensor, z1: Tensor, z2: Tensor, config: WganConfig) -> Tensor:
    """Eq. 3 as printed, L_freq + L_rhyt with theta, mean over the batch.

    Shape: first, second (B, 2, T, F) frames of two outputs for the same input; z1, z2 (B, noise_size).
    """
    first, second = ((frames.pow(4).sum(dim=1) + 1e-12).sqrt() for frames in (first, second))
    difference = first - second
    frequency = difference.sum(dim=1).abs().pow(config.frequency_exponent).sum(dim=1)
    rhythm = difference.sum(dim=2).abs().pow(config.rhythm_exponent).sum(dim=1)
    distance = config.theta * (z1 - z2).norm(dim=1)
    return (distance / (frequency + PROFILE_FLOOR) + distance / (rhythm + PROFILE_FLOOR)).mean()


@dataclass(frozen=True)
class Segment:
    """One piece of a song in one coding."""

    song: Song
    coding: str
    start: int


class Segments(Dataset):
    """All segments of all songs, overlapping, in a repeatable order that is new in every epoch (paper 3.3).

    Item i is (original, coded, bandwidth_hz), both (samples,) float32 as they are in the files; items go on
    for as many epochs as the schedule needs, from item `first` on.
    """

    def __init__(self, pairs: Pairs, config: Config, wgan: WganConfig, first: int):
        s, codings = config.schedule, config.data.codings
        self.pairs, self.first, self.total, self.seed = pairs, first, s.steps * s.batch, s.seed
        self.samples = samples = WINDOW + (s.frames - 1) * HOP
        hop = max(1, round(samples * (1 - wgan.segment_overlap)))
        self.segments = [
            Segment(song, coding, start)
            for song in pairs.songs
            for coding in song.codings
            if not codings or coding in codings
            for start in range(0, max(1, song.samples - samples + 1), hop)
        ]
        if not self.segments:
            raise ConfigError(
                f"codings must name some of what the pairs hold and not {list(codings)}; "
                "make them with restorer prepare"
            )
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.segments))

    def __len__(self) -> int:
        return self.total - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        epoch, place = divmod(self.first + index, len(self.segments))
        s = self.segments[self._order(epoch)[place]]
        original, coded = self.pairs.excerpt(s.song, s.coding, s.start, self.samples)
        return original, coded, np.float32(s.song.bandwidth_hz)


class WganTrainer(Trainer):
    """Generator, critic and Adam for both; trains on a CUDA device where there is one.

    The paper averages no weights: `average`, which validation and export use, is a copy of the generator on
    the CPU, made when one of them needs it.
    """

    def __init__(self, config: Config):
        super().__init__(config)
        if not isinstance(self.generator, PaperGenerator):
            raise ConfigError(f"[wgan] trains generator kind 'paper' and not {config.generator.kind!r}")
        self.wgan = config.wgan or WganConfig()
        s, betas = config.schedule, (self.wgan.beta1, self.wgan.beta2)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.generator.to(self.device)
        self.critic.to(self.device)
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=s.learning_rate, betas=betas)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=s.critic_learning_rate, betas=betas)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.schedule.bf16)

    def excerpts(self, pairs: Pairs) -> Dataset:
        first = self.step_number * self.config.schedule.batch
        return Segments(pairs, self.config, self.wgan, first)

    def step(self, original: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> dict[str, float]:
        """Update the critic, then the generator, on (B, samples) audio; returns the loss terms."""
        s, size = self.config.schedule, self.config.generator.noise_size
        random = torch.Generator().manual_seed(s.seed * 1_000_003 + self.step_number)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random).to(self.device)

        batch, margin = len(coded), self.generator.excerpt_margin
        original, coded = original.to(self.device), coded.to(self.device)
        with self.device:  # where the window of the transform is made
            given, target = analyse(coded), analyse(original)
        end = given.shape[2] - margin
        real, heard = target[:, :, margin:end], given[:, :, margin:end]

        terms: dict[str, Tensor] = {}
        for _ in range(self.wgan.critic_steps):
            with torch.no_grad(), self.autocast():
                fake = self.generator.excerpt(given, draw(batch, size)).float()
            mix = torch.rand(batch, 1, 1, 1, generator=random).to(self.device)
            with self.autocast():
                terms["critic"], terms["wasserstein"] = wgan_loss(
                    self.critic, real, fake, heard, mix, self.wgan.gradient_penalty, self.wgan.drift
                )
            self._update(self.critic, self.critic_optimiser, terms["critic"], terms)

        takes = 2 if size else 1  # outputs for every input; both serve eq. 3 and the adversarial gradient
        z = draw(takes * batch, size)
        with self.autocast():
            fake = self.generator.excerpt(given.repeat(takes, 1, 1, 1), z).float()
            self.critic.requires_grad_(False)
            terms["adversarial"] = -self.critic(fake, heard.repeat(takes, 1, 1, 1))[0].float().mean()
            self.critic.requires_grad_(True)
        loss = terms["adversarial"]
        if size:
            terms["profile"] = profile_loss(fake[:batch], fake[batch:], z[:batch], z[batch:], self.wgan)
            loss = loss + terms["profile"]
        norm = self._update(self.generator, self.optimiser, loss, terms)
        self.step_number += 1
        if self.step_number % self.config.data.valid_every == 0 or self.step_number == s.steps:
            self._copy_average()
        shown = {**terms, "loss": loss}
        return {name: float(term.detach()) for name, term in shown.items()} | {"gradient": norm}

    def _update(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, terms: dict[str, Tensor]
    ) -> float:
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {float(term.detach()):.3g}" for name, term in terms.items())
            raise RestorerError(
                f"training diverged at step {self.step_number}: loss is not finite ({values}); "
                "resume from the last checkpoint with a lower learning_rate"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.schedule.gradient_clip)
        if torch.isfinite(norm):
            optimiser.step()
        return float(norm)

    def _copy_average(self) -> None:
        self.average.load_state_dict(self.generator.state_dict())

    def save(self, path: Path) -> None:
        self._copy_average()
        super().save(path)

    def resume(self, path: Path) -> None:
        super().resume(path)
        for optimiser in (self.optimiser, self.critic_optimiser):
            for parameter, state in optimiser.state.items():
                for name, value in state.items():
                    state[name] = value if name == "step" else value.to(parameter.device)


def build_trainer(config: Config) -> Trainer:
    """The trainer that a config means: the paper's where it has a [wgan] table."""
    return Trainer(config) if config.wgan is None else WganTrainer(config)
