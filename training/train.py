"""The training loop, top to bottom: reconstruction first, then the critic joins."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from restorer.errors import ConfigError, ModelError, RestorerError
from restorer.training import checkpoint
from restorer.training.config import Config, ScheduleConfig
from restorer.training.critic import critic_loss
from restorer.training.distributed import Stop, World
from restorer.training.generator import Generator, GeneratorConfig, leave_out
from restorer.training.growth import grow
from restorer.training.loader import Excerpts, load
from restorer.training.losses import profile_loss, reconstruction, survived_loss
from restorer.training.models import build_critic, build_generator
from restorer.training.pairs import Pairs
from restorer.training.parts import Part, split_batch
from restorer.training.pool import Pool
from restorer.training.signal import HOP, WINDOW, synthesise

LAST = "last.safetensors"  # the averaged weights as they were when a run last saved
OVERLAPPED = WINDOW // HOP - 1  # frames at either end of an excerpt that others do not fully overlap


def learning_rate(step: int, s: ScheduleConfig, seconds: float = 0.0) -> float:
    """Warm up, hold, and fall by a cosine over the last 60 % of all steps; lower while the critic is there.

    Where the schedule has a limit of time, `seconds` of training count like steps, whichever of them is further.
    """
    rate = s.adversarial_learning_rate if step >= s.adversarial_from else s.learning_rate
    falling = max(0.0, (progress(step, s, seconds) - 0.4) / 0.6)
    fall = s.final_learning_rate + (1 - s.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * falling))
    return rate * min(1.0, (step + 1) / s.warmup_steps) * fall


def progress(step: int, s: ScheduleConfig, seconds: float) -> float:
    """How much of a run is done, 1 at its end."""
    by_time = seconds / (60 * s.minutes) if s.minutes else 0.0
    return min(1.0, max(step / s.steps, by_time))


class Diverged(RestorerError):
    """Training has left what numbers can hold; raised in all processes at once."""

    def __init__(self, step: int, losses: dict[str, float]):
        shown = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        super().__init__(
            f"training diverged at step {step}: loss is not finite ({shown}); "
            "resume from the last checkpoint with a lower learning_rate"
        )


class Trainer:
    """Generator, critic and optimisers of one run, with one `step` for a batch and exact save and resume.

    The process computes on its share of each batch, on its CUDA device where there is one. All randomness is
    drawn for the global batch from (seed, step), so neither the number of processes nor `accumulate` changes
    what is computed.
    """

    def __init__(self, config: Config):
        self.config = config
        self.world = World.current()
        self.device = self.world.device
        s, processes = config.schedule, self.world.size
        if s.accumulate < 1 or s.batch % (processes * s.accumulate):
            raise ConfigError(
                f"batch must be a multiple of processes x accumulate = {processes} x {s.accumulate} and not {s.batch}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(s.seed)
            self.generator = build_generator(config.generator)
            self.critic = build_critic(config.critic)
        self.generator.to(self.device, memory_format=torch.channels_last)
        self.critic.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        if s.compile:
            self.compile()
        self.learning = self._choose_learning()
        self.optimiser = torch.optim.AdamW(
            self.learning, lr=s.learning_rate, betas=(0.9, 0.99), weight_decay=s.weight_decay
        )
        self.critic_optimiser = torch.optim.AdamW(
            self.critic.parameters(), lr=s.critic_learning_rate, betas=(0.5, 0.9), weight_decay=0.0
        )
        self.step_number = 0
        self.validated = 0  # the last step whose weights were validated
        self.seconds = 0.0

    def compile(self) -> None:
        """Compile the networks, but no critic whose gradient is penalised: torch.compile has no second derivatives."""
        self.generator.compile()
        if self.config.schedule.adversarial_kind == "hinge":
            self.critic.compile()

    def _choose_learning(self) -> list[nn.Parameter]:
        """Those parameters of the generator that the schedule lets learn; no gradient is computed for the others."""
        parts, only = {name.split(".")[0] for name, _ in self.generator.named_parameters()}, self.config.schedule.only
        unknown = sorted(set(only) - parts)
        if unknown:
            raise ConfigError(f"only must name parts of the generator, {', '.join(sorted(parts))}, not '{unknown[0]}'")
        for name, parameter in self.generator.named_parameters():
            parameter.requires_grad_(not only or name.split(".")[0] in only)
        return [parameter for parameter in self.generator.parameters() if parameter.requires_grad]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.schedule.bf16)

    @property
    def finished(self) -> bool:
        """Whether the schedule's last step is done, or its time is up."""
        return progress(self.step_number, self.config.schedule, self.seconds) >= 1

    def excerpts(self, pairs: Pairs | Pool) -> Dataset:
        """Training excerpts from the next step on, of all processes."""
        return Excerpts(pairs, self.config, self.step_number * self.config.schedule.batch)

    def step(self, original: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> dict[str, float]:
        """Update once on this process's (B, samples) audio; returns the global batch's loss terms, unweighted."""
        s = self.config.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step_number, s, self.seconds)
        batch = (tensor.to(self.device) for tensor in (original, coded, bandwidth_hz))
        parts = split_batch(*batch, self.config, self.generator.context_frames, self.step_number, self.world)
        if len(parts) == 1:  # its graph serves the critic and the generator
            parts[0].output = self.restore(parts[0])
        adversarial = self.step_number >= s.adversarial_from
        terms: dict[str, Tensor] = {}
        if adversarial:
            terms["critic"] = self.update_critic(parts)
            scales = self.feature_scales(parts)
        weights = {**self.config.loss.__dict__}
        if self.step_number < s.adversarial_from + s.critic_warmup:
            weights["adversarial"] = weights["feature_matching"] = 0.0

        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for part in parts:
            restored, again = self.restore(part)
            found = self.reconstruction_terms(part, restored, again)
            if adversarial:
                found |= self.adversarial_terms(part, restored, scales)
            loss = sum((weights[name] * term for name, term in found.items() if weights[name]), torch.zeros_like(total))
            loss.backward()
            total += loss.detach()
            for name, term in found.items():
                terms[name] = terms[name] + term.detach() if name in terms else term.detach()
        values = self.world.sum(torch.stack([*terms.values(), total]))
        self.world.sum_gradients(self.learning)
        norm = torch.nn.utils.clip_grad_norm_(self.learning, s.gradient_clip)

        *numbers, loss_value, gradient = torch.cat([values, norm.detach()[None]]).tolist()
        losses = dict(zip(terms, numbers, strict=True))
        if not math.isfinite(loss_value + losses.get("critic", 0.0)):
            raise Diverged(self.step_number, losses)
        if math.isfinite(gradient):
            self.optimiser.step()
        decay = min(s.average, (self.step_number + 1) / (self.step_number + 20))
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        self.step_number += 1
        return losses | {"loss": loss_value, "gradient": gradient}

    def restore(self, part: Part) -> tuple[Tensor, Tensor]:
        """Restored frames of the part, and those of its first excerpts with another noise."""
        if part.output is not None:
            return part.output
        twice = len(part.z_again)
        with self.autocast():
            (output,) = self.generator(torch.cat([part.coded, part.coded[:twice]]), torch.cat([part.z, part.z_again]))
        restored, again = output.float().split([len(part.z), twice])
        return restored, again

    def reconstruction_terms(self, part: Part, restored: Tensor, again: Tensor) -> dict[str, Tensor]:
        w, twice = self.config.loss, len(again)
        audio = synthesise(restored)
        terms = reconstruction(audio, part.audio, part.coded_audio, part.bandwidth_hz, w, part.all_bandwidths_hz)
        terms["survived"] = survived_loss(restored, part.target, part.kept, part.kept_share)
        terms = {name: term * part.share for name, term in terms.items()}
        if w.profile and self.config.generator.noise_size:
            terms["profile"] = restored.new_zeros(())
            if twice:
                kept = part.kept[:twice, :, OVERLAPPED:-OVERLAPPED]
                loss = profile_loss(
                    audio[:twice], synthesise(again), part.z[:twice], part.z_again, part.audio[:twice], kept
                )
                terms["profile"] = loss * part.again_share
        return terms

    def update_critic(self, parts: list[Part]) -> Tensor:
        """Update the critic once; returns this process's share of its loss."""
        s = self.config.schedule
        total = torch.zeros((), device=self.device)
        self.critic_optimiser.zero_grad(set_to_none=True)
        for part in parts:
            with torch.no_grad():
                restored, _ = self.restore(part)
            real, fake = part.target * part.heard, part.fake(restored).detach()
            with self.autocast():
                loss = critic_loss(
                    self.critic, real, fake, part.given, part.mix, s.adversarial_kind, s.gradient_penalty, s.drift
                )
            (loss * part.share).backward()
            total += loss.detach() * part.share
        self.world.sum_gradients(self.critic.parameters())
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), 10.0)
        self.critic_optimiser.step()
        return total

    @torch.no_grad()
    def feature_scales(self, parts: list[Part]) -> Tensor:
        """Mean size of each of the critic's activations for originals of the global batch: (activations,)."""
        scales = []
        for part in parts:
            features = self.real_features(part)
            if len(parts) == 1:
                part.real_features = features
            scales.append(torch.stack([feature.float().abs().mean() for feature in features]) * part.share)
        return self.world.sum(torch.stack(scales).sum(0))

    @torch.no_grad()
    def real_features(self, part: Part) -> list[Tensor]:
        if part.real_features is not None:
            return part.real_features
        with self.autocast():
            return self.critic(part.target * part.heard, part.given)[1]

    def adversarial_terms(self, part: Part, restored: Tensor, scales: Tensor) -> dict[str, Tensor]:
        """Score what was restored, for the generator."""
        fake = part.fake(restored)
        self.critic.requires_grad_(False)
        with self.autocast():
            scores, features = self.critic(fake, part.given)
        self.critic.requires_grad_(True)
        matching = [
            (a.float() - b.float()).abs().mean() / scale
            for a, b, scale in zip(features, self.real_features(part), scales, strict=True)
        ]
        return {
            "adversarial": -scores.float().mean() * part.share,
            "feature_matching": torch.stack(matching).mean() * part.share,
        }

    def save(self, path: Path) -> None:
        tensors = checkpoint.prefixed("generator", self.generator.state_dict())
        tensors |= checkpoint.prefixed("average", self.average.state_dict())
        tensors |= checkpoint.prefixed("critic", self.critic.state_dict())
        tensors |= checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(self.generator, self.optimiser))
        tensors |= checkpoint.prefixed(
            "critic_optimiser", checkpoint.optimiser_tensors(self.critic, self.critic_optimiser)
        )
        extra = {"step": self.step_number, "validated": self.validated, "seconds": self.seconds}
        checkpoint.save(path, tensors, self.config, extra)

    def save_generator(self, path: Path, extra: dict[str, Any]) -> None:
        """Write the averaged generator alone: small, and all that an export needs."""
        tensors = checkpoint.prefixed("average", self.average.state_dict())
        checkpoint.save(path, tensors, self.config, {"step": self.step_number, "seconds": self.seconds, **extra})

    def start_from(self, path: Path) -> list[str]:
        """Begin with the averaged weights of a checkpoint; returns the parameters that it lacks, which stay new.

        A larger generator begins by computing what the checkpoint does, see growth.py. One without noise leaves out
        what the checkpoint does with noise, as if z were always 0, its mean; one without a restraint makes all changes.

        Raises
        ------
        ModelError
            It is no checkpoint, or its parameters have other sizes than the config's.
        ConfigError
            Its generator is larger than the config's.
        """
        tensors, started, _ = checkpoint.load(path)
        weights = checkpoint.unprefixed("average", tensors) or checkpoint.unprefixed("generator", tensors)
        small = started.generator
        try:
            if isinstance(self.generator, Generator) and isinstance(small, GeneratorConfig):
                weights = leave_out(weights, self.generator.config)
                weights = grow(weights, small, self.generator)
            new, foreign = self.generator.load_state_dict(weights, strict=False)
        except (IndexError, RuntimeError) as error:
            detail = str(error).splitlines()[-1].strip()
            raise ModelError(f"'{path}' does not fit the config's generator: {detail}") from None
        if foreign:
            raise ModelError(f"'{path}' does not fit the config's generator, which has no '{foreign[0]}'")
        self.average.load_state_dict(self.generator.state_dict())
        return list(new)

    def resume(self, path: Path) -> None:
        """Go on where `save` was; the config may have changed since, but for the networks.

        Raises
        ------
        ModelError
            It is no checkpoint of a run, or one of other networks than the config's.
        """
        tensors, _, extra = checkpoint.load(path)
        try:
            for name in ("generator", "average", "critic"):
                getattr(self, name).load_state_dict(checkpoint.unprefixed(name, tensors))
        except RuntimeError as error:
            detail = str(error).splitlines()[-1].strip()
            raise ModelError(f"'{path}' is no run of the config's networks: {detail}") from None
        checkpoint.restore_optimiser(self.generator, self.optimiser, checkpoint.unprefixed("optimiser", tensors))
        checkpoint.restore_optimiser(
            self.critic, self.critic_optimiser, checkpoint.unprefixed("critic_optimiser", tensors)
        )
        for optimiser in (self.optimiser, self.critic_optimiser):
            for state in optimiser.state.values():  # the step count stays on the CPU, as Adam has it
                state.update({name: value.to(self.device) for name, value in state.items() if name != "step"})
        self.step_number, self.seconds = extra["step"], extra["seconds"]
        self.validated = extra.get("validated", self.step_number)


def train(
    trainer: Trainer,
    pairs: Pairs | Pool,
    run: Path,
    validate: Callable[[Trainer], None],
    report: Callable[[int, dict[str, float]], None],
) -> bool:
    """Train to the last step; a checkpoint every few minutes, before every validation, on a signal and at the end.

    `report` sees every step's losses, `validate` is called every `valid_every` steps and at the end; only the
    first of several processes saves and calls them. SIGINT and SIGTERM end training after the step in progress, in
    whichever process they arrive.

    Returns
    -------
    Whether the last step was reached; False: a signal came, and the run can be resumed.
    """
    c, world = trainer.config, trainer.world
    state = run / "state.safetensors"
    saved = started = time.monotonic()
    trained_before = trainer.seconds

    def save() -> None:
        trainer.save(state)
        trainer.save_generator(run / LAST, {})

    def check() -> None:
        if trainer.validated < trainer.step_number and (
            trainer.step_number % c.data.valid_every == 0 or trainer.finished
        ):
            save()
            validate(trainer)
            trainer.validated = trainer.step_number
            trainer.save(state)

    with Stop() as stop:
        if world.first:
            check()  # a run may have been killed while it validated
        if trainer.finished:
            return True
        for batch in load(trainer.excerpts(pairs), c.schedule.batch, c.schedule.workers, world):
            losses = trainer.step(*batch)
            # Clocks differ, and all processes must make the same update.
            trainer.seconds = world.of_first(trained_before + time.monotonic() - started)
            if world.first:
                report(trainer.step_number, losses)
            if world.any(stop.wanted) and not trainer.finished:
                if world.first:
                    save()
                return False
            if world.first and time.monotonic() - saved > 60 * c.data.checkpoint_minutes:
                save()
                saved = time.monotonic()
            if world.first:
                check()
            if trainer.finished:
                break
    return True
