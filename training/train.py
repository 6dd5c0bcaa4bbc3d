"""The training loop, top to bottom: reconstruction first, then the critic joins."""

import copy
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from restorer.errors import RestorerError
from restorer.training import checkpoint
from restorer.training.config import Config, ScheduleConfig
from restorer.training.critic import critic_loss
from restorer.training.losses import profile_loss, reconstruction, survival, survived_loss
from restorer.training.models import build_critic, build_generator
from restorer.training.pairs import Pairs
from restorer.training.signal import HOP, WINDOW, analyse, synthesise


class Excerpts(Dataset):
    """Excerpt `index` of an endless, repeatable sequence: (original, coded, bandwidth_hz)."""

    def __init__(self, pairs: Pairs, config: Config, first: int):
        self.pairs, self.config, self.first = pairs, config, first
        self.samples = WINDOW + (config.schedule.frames - 1) * HOP

    def __len__(self) -> int:
        return self.config.schedule.steps * self.config.schedule.batch - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        c = self.config
        original, coded, bandwidth = self.pairs.draw(self.first + index, self.samples, c.schedule.seed, c.data.codings)
        return original, coded, np.float32(bandwidth)


def quiet_worker(_: int) -> None:
    """Silence the MP3 decoder's complaints about cut bit reservoirs, and leave cores and Ctrl-C to training."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)


def learning_rate(step: int, s: ScheduleConfig) -> float:
    """Warm up, hold, and fall by a cosine over the last 60 % of all steps; lower while the critic is there."""
    rate = s.adversarial_learning_rate if step >= s.adversarial_from else s.learning_rate
    progress = max(0.0, (step / s.steps - 0.4) / 0.6)
    fall = s.final_learning_rate + (1 - s.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    return rate * min(1.0, (step + 1) / s.warmup_steps) * fall


class Trainer:
    """Generator, critic and optimisers of one run, with one `step` for a batch and exact save and resume."""

    def __init__(self, config: Config):
        self.config = config
        s = config.schedule
        torch.manual_seed(s.seed)
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.generator = build_generator(config.generator)
            self.critic = build_critic(config.critic)
        self.generator.to(memory_format=torch.channels_last)
        self.critic.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.generator.parameters(), lr=s.learning_rate, betas=(0.9, 0.99), weight_decay=s.weight_decay
        )
        self.critic_optimiser = torch.optim.AdamW(
            self.critic.parameters(), lr=s.critic_learning_rate, betas=(0.5, 0.9), weight_decay=0.0
        )
        self.step_number = 0
        self.seconds = 0.0

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.config.schedule.bf16)

    def excerpts(self, pairs: Pairs) -> Dataset:
        """Training excerpts from the next step on."""
        return Excerpts(pairs, self.config, self.step_number * self.config.schedule.batch)

    def step(self, original: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> dict[str, float]:
        """Update once on (B, samples) audio; returns the loss terms, unweighted."""
        c, s, w = self.config, self.config.schedule, self.config.loss
        noise = torch.Generator().manual_seed(s.seed * 1_000_003 + self.step_number)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step_number, s)

        coded_frames, original_frames = analyse(coded), analyse(original)
        batch = len(coded)
        twice = max(1, batch // 4) if w.profile and c.generator.noise_size else 0
        z = torch.randn(batch + twice, c.generator.noise_size, generator=noise)
        with self.autocast():
            (output,) = self.generator(torch.cat([coded_frames, coded_frames[:twice]]), z)
        restored, again = output.float().split([batch, twice])
        length = output.shape[2]
        end = coded_frames.shape[2] - c.generator.lookahead_frames
        target = original_frames[:, :, end - length : end]
        given = coded_frames[:, :, end - length : end]
        kept = survival(target, given)
        first = (end - length) * HOP + WINDOW - HOP
        audio = synthesise(restored)
        target_audio = original[:, first : first + audio.shape[1]]

        terms = reconstruction(audio, target_audio, bandwidth_hz, w)
        terms["survived"] = survived_loss(restored, target, kept)
        if twice:
            terms["profile"] = profile_loss(restored[:twice], again, z[:twice], z[batch:], target[:twice], kept[:twice])
        adversarial = self.step_number >= s.adversarial_from
        if adversarial:  # the critic judges what was lost; the surviving band passes no gradient
            fake = restored * (1 - kept) + restored.detach() * kept
            terms |= self.adversarial_terms(target, fake, given, bandwidth_hz)
        weights = {**w.__dict__, "critic": 0.0}
        if self.step_number < s.adversarial_from + s.critic_warmup:
            weights["adversarial"] = weights["feature_matching"] = 0.0
        loss = sum((weights[name] * term for name, term in terms.items() if weights[name]), torch.zeros(()))
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {float(term):.3g}" for name, term in terms.items())
            raise RestorerError(
                f"training diverged at step {self.step_number}: loss is not finite ({values}); "
                "resume from the last checkpoint with a lower learning_rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), s.gradient_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(s.average, (self.step_number + 1) / (self.step_number + 20))
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        self.step_number += 1
        return {name: float(term.detach()) for name, term in terms.items()} | {
            "loss": float(loss.detach()),
            "gradient": float(norm),
        }

    def adversarial_terms(self, real: Tensor, fake: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> dict[str, Tensor]:
        """Update the critic once, then score the fake for the generator."""
        s = self.config.schedule
        heard = (torch.linspace(0, 22050, real.shape[3]) < bandwidth_hz[:, None] - 300).float()[:, None, None]
        real, fake = real * heard, fake * heard
        with self.autocast():
            loss = critic_loss(self.critic, real, fake.detach(), coded, s.adversarial_kind, s.gradient_penalty, s.drift)
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), 10.0)
        self.critic_optimiser.step()
        self.critic.requires_grad_(False)
        with self.autocast():
            scores, features = self.critic(fake, coded)
            with torch.no_grad():
                _, real_features = self.critic(real, coded)
        self.critic.requires_grad_(True)
        matching = [
            (a.float() - b.float()).abs().mean() / b.float().abs().mean()
            for a, b in zip(features, real_features, strict=True)
        ]
        return {
            "critic": loss.detach(),
            "adversarial": -scores.float().mean(),
            "feature_matching": torch.stack(matching).mean(),
        }

    def save(self, path: Path) -> None:
        tensors = checkpoint.prefixed("generator", self.generator.state_dict())
        tensors |= checkpoint.prefixed("average", self.average.state_dict())
        tensors |= checkpoint.prefixed("critic", self.critic.state_dict())
        tensors |= checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(self.generator, self.optimiser))
        tensors |= checkpoint.prefixed(
            "critic_optimiser", checkpoint.optimiser_tensors(self.critic, self.critic_optimiser)
        )
        checkpoint.save(path, tensors, self.config, {"step": self.step_number, "seconds": self.seconds})

    def save_generator(self, path: Path, extra: dict[str, Any]) -> None:
        """Write the averaged generator alone: small, and all that an export needs."""
        tensors = checkpoint.prefixed("average", self.average.state_dict())
        checkpoint.save(path, tensors, self.config, {"step": self.step_number, "seconds": self.seconds, **extra})

    def resume(self, path: Path) -> None:
        tensors, _, extra = checkpoint.load(path)
        self.generator.load_state_dict(checkpoint.unprefixed("generator", tensors))
        self.average.load_state_dict(checkpoint.unprefixed("average", tensors))
        self.critic.load_state_dict(checkpoint.unprefixed("critic", tensors))
        checkpoint.restore_optimiser(self.generator, self.optimiser, checkpoint.unprefixed("optimiser", tensors))
        checkpoint.restore_optimiser(
            self.critic, self.critic_optimiser, checkpoint.unprefixed("critic_optimiser", tensors)
        )
        self.step_number, self.seconds = extra["step"], extra["seconds"]


def train(
    trainer: Trainer,
    pairs: Pairs,
    run: Path,
    validate: Callable[[Trainer], None],
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Train to the last step; a checkpoint every few minutes, on Ctrl-C and at the end.

    `report` sees every step's losses, `validate` is called every `valid_every` steps and at the end.
    """
    c = trainer.config
    state = run / "state.safetensors"
    loader = DataLoader(
        trainer.excerpts(pairs),
        batch_size=c.schedule.batch,
        num_workers=c.schedule.workers,
        worker_init_fn=quiet_worker,
        prefetch_factor=4 if c.schedule.workers else None,
    )
    batches: Iterator[list[Tensor]] = iter(loader)
    saved = started = time.monotonic()
    trained_before = trainer.seconds
    try:
        for original, coded, bandwidth_hz in batches:
            losses = trainer.step(original, coded, bandwidth_hz)
            trainer.seconds = trained_before + time.monotonic() - started
            report(trainer.step_number, losses)
            last = trainer.step_number == c.schedule.steps
            if time.monotonic() - saved > 60 * c.data.checkpoint_minutes or last:
                trainer.save(state)
                saved = time.monotonic()
            if trainer.step_number % c.data.valid_every == 0 or last:
                validate(trainer)
    except KeyboardInterrupt:
        trainer.save(state)
        raise
