"""The paper's own training (3.2): a Wasserstein GAN from the first step on, and nothing else.

A `[wgan]` table in a config chooses this instead of the loop's default, which reconstructs first. From
`[schedule]` it takes steps, batch, frames, the two learning rates, gradient_clip, seed, workers, bf16, accumulate
and compile; `[loss]` has no part in it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from restorer.errors import ConfigError
from restorer.training.config import Config
from restorer.training.pairs import Pairs, Song
from restorer.training.paper_critic import wgan_loss
from restorer.training.paper_generator import PaperGeneratorConfig
from restorer.training.parts import part_places
from restorer.training.signal import HOP, WINDOW, analyse
from restorer.training.train import Diverged, Trainer
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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}  # a process shuffles for itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
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


@dataclass(frozen=True)
class WganPart:
    """What goes through the networks at once: a part of this process's share of the global batch."""

    places: Tensor  # (B,) in the global batch
    share: float  # of the global batch
    given: Tensor  # (B, 2, T, 1025) frames of the MP3
    heard: Tensor  # (B, 2, T', 1025), those of them that come out restored
    real: Tensor  # (B, 2, T', 1025), their original


class WganTrainer(Trainer):
    """Generator, critic and Adam for both.

    The paper averages no weights: `average`, which validation and export use, is a copy of the generator, made
    when one of them needs it.
    """

    def __init__(self, config: Config):
        if not isinstance(config.generator, PaperGeneratorConfig):
            raise ConfigError(f"[wgan] trains generator kind 'paper' and not {config.generator.kind!r}")
        super().__init__(config)
        self.wgan = config.wgan or WganConfig()
        s, betas = config.schedule, (self.wgan.beta1, self.wgan.beta2)
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=s.learning_rate, betas=betas)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=s.critic_learning_rate, betas=betas)

    def compile(self) -> None:
        """Compile the generator; the critic's gradient is penalised, and torch.compile has no second derivatives."""
        self.generator.excerpt = torch.compile(self.generator.excerpt, dynamic=False)

    def excerpts(self, pairs: Pairs) -> Dataset:
        first = self.step_number * self.config.schedule.batch
        return Segments(pairs, self.config, self.wgan, first)

    def step(self, original: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> dict[str, float]:
        """Update the critic, then the generator, on this process's (B, samples) audio.

        Noise is drawn for the global batch from (seed, step). Returns the global batch's loss terms.
        """
        s, size = self.config.schedule, self.config.generator.noise_size
        random = torch.Generator().manual_seed(s.seed * 1_000_003 + self.step_number)
        total = len(coded) * self.world.size
        parts = self._split(original, coded)
        losses: dict[str, float] = {}
        for _ in range(self.wgan.critic_steps):
            z = torch.randn(total, size, generator=random)
            mix = torch.rand(total, 1, 1, 1, generator=random)
            terms = (self._critic_terms(part, z, mix) for part in parts)
            losses |= self._update(self.critic, self.critic_optimiser, "critic", terms)
        takes = 2 if size else 1  # outputs for every input; both serve eq. 3 and the adversarial gradient
        z = torch.randn(takes * total, size, generator=random).view(takes, total, size)
        terms = (self._generator_terms(part, z) for part in parts)
        losses |= self._update(self.generator, self.optimiser, "loss", terms)
        self.step_number += 1
        if self.step_number % self.config.data.valid_every == 0 or self.step_number == s.steps:
            self._copy_average()
        return losses

    def _split(self, original: Tensor, coded: Tensor) -> list[WganPart]:
        accumulate, margin = self.config.schedule.accumulate, self.generator.excerpt_margin
        total = len(coded) * self.world.size
        parts = []
        for index, places in enumerate(part_places(total, accumulate, self.world)):
            given, target = (analyse(audio[index::accumulate].to(self.device)) for audio in (coded, original))
            middle = slice(margin, given.shape[2] - margin)
            parts.append(WganPart(places, len(places) / total, given, given[:, :, middle], target[:, :, middle]))
        return parts

    def _critic_terms(self, part: WganPart, z: Tensor, mix: Tensor) -> dict[str, Tensor]:
        """Share of the critic's loss, and of the Wasserstein distance that it sees.

        Shape: z (total, noise_size), mix (total, 1, 1, 1), of the global batch.
        """
        z, mix = z[part.places].to(self.device), mix[part.places].to(self.device)
        with torch.no_grad(), self.autocast():
            fake = self.generator.excerpt(part.given, z).float()
        with self.autocast():
            loss, distance = wgan_loss(
                self.critic, part.real, fake, part.heard, mix, self.wgan.gradient_penalty, self.wgan.drift
            )
        return {"critic": loss * part.share, "wasserstein": distance * part.share}

    def _generator_terms(self, part: WganPart, z: Tensor) -> dict[str, Tensor]:
        """Share of the generator's loss, eq. 1 and, with noise, eq. 3: z (takes, total, noise_size)."""
        z = z[:, part.places].to(self.device)
        takes = len(z)
        with self.autocast():
            fake = self.generator.excerpt(part.given.repeat(takes, 1, 1, 1), z.flatten(0, 1)).float()
            self.critic.requires_grad_(False)
            scores, _ = self.critic(fake, part.heard.repeat(takes, 1, 1, 1))
            self.critic.requires_grad_(True)
        terms = {"adversarial": -scores.float().mean() * part.share}
        if takes > 1:
            terms["profile"] = profile_loss(*fake.chunk(2), *z, self.wgan) * part.share
        return {**terms, "loss": torch.stack([*terms.values()]).sum()}

    def _update(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, minimised: str, parts: Iterable[dict[str, Tensor]]
    ) -> dict[str, float]:
        """Lower one of the loss terms, whose shares `parts` computes one after the other; returns all terms."""
        optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for terms in parts:
            terms[minimised].backward()
            for name, term in terms.items():
                sums[name] = sums[name] + term.detach() if name in sums else term.detach()
        values = self.world.sum(torch.stack([*sums.values()]))
        self.world.sum_gradients(network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.schedule.gradient_clip)
        *numbers, gradient = torch.cat([values, norm.detach()[None]]).tolist()
        losses = dict(zip(sums, numbers, strict=True))
        if not math.isfinite(losses[minimised]):
            raise Diverged(self.step_number, losses)
        if math.isfinite(gradient):
            optimiser.step()
        return losses | {"gradient": gradient}

    def _copy_average(self) -> None:
        self.average.load_state_dict(self.generator.state_dict())

    def save(self, path: Path) -> None:
        self._copy_average()
        super().save(path)


def build_trainer(config: Config) -> Trainer:
    """The trainer that a config means: the paper's where it has a [wgan] table."""
    return Trainer(config) if config.wgan is None else WganTrainer(config)
