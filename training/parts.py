"""How a global batch is divided over processes and passes, so that the division does not change the result."""

from dataclasses import dataclass

import torch
from torch import Tensor

from restorer.training.config import Config
from restorer.training.distributed import World
from restorer.training.losses import judged_bandwidth, survival
from restorer.training.signal import HOP, WINDOW, analyse


@dataclass
class Part:
    """What goes through the networks at once: all of a global batch, or a part of this process's share of it.

    A loss is the sum over all parts, here and in other processes, of (mean over the part) x (its share). What a
    loss is normalised by is therefore the whole batch's: `all_bandwidths_hz` and `kept_share`.
    """

    share: float  # of the global batch
    again_share: float  # of the excerpts that are restored twice
    coded: Tensor  # (B, 2, T, 1025) frames
    given: Tensor  # (B, 2, T', 1025), the coded frames that come out restored
    target: Tensor  # (B, 2, T', 1025), their original
    kept: Tensor  # (B, 1, T', 1025), where the MP3 still has it
    kept_share: Tensor
    audio: Tensor  # (B, (T' - 3) x 512), the original
    coded_audio: Tensor  # the same of the MP3
    bandwidth_hz: Tensor  # (B,), up to where the losses judge
    all_bandwidths_hz: Tensor
    z: Tensor  # (B, noise_size)
    z_again: Tensor  # for the first of the B once more
    mix: Tensor  # (B, 1, 1, 1), see critic_loss
    output: tuple[Tensor, Tensor] | None = None  # of the generator, if this is the only part
    real_features: list[Tensor] | None = None  # of the critic, likewise

    @property
    def heard(self) -> Tensor:
        """(B, 1, 1, 1025): one where the original has a spectrum that the critic may judge."""
        bins = torch.linspace(0, 22050, self.target.shape[3], device=self.target.device)
        return (bins < self.bandwidth_hz[:, None] - 300).float()[:, None, None]

    def fake(self, restored: Tensor) -> Tensor:
        """What the critic judges: where the signal survived compression, no gradient passes."""
        return (restored * (1 - self.kept) + restored.detach() * self.kept) * self.heard


def part_places(total: int, accumulate: int, world: World) -> list[Tensor]:
    """Places in the global batch of `total` excerpts that each part of this process's share holds.

    The process holds every `world.size`-th excerpt, and a part every `accumulate`-th of those.
    """
    mine = torch.arange(world.rank, total, world.size)
    return [mine[index::accumulate] for index in range(accumulate)]


def split_batch(
    original: Tensor,
    coded: Tensor,
    bandwidth_hz: Tensor,
    config: Config,
    context_frames: int,
    step: int,
    world: World,
) -> list[Part]:
    """Split a process's share of the global batch as `accumulate` says.

    Noise is drawn for the global batch from (seed, step), and each part takes what belongs to its excerpts.

    Parameters
    ----------
    original, coded : (B, samples), every `world.size`-th excerpt of the global batch, from the `world.rank`-th on.
    bandwidth_hz : (B,), the originals' own.
    context_frames : frames by which the generator shortens its input.
    """
    c, accumulate = config, config.schedule.accumulate
    total = len(coded) * world.size
    twice = max(1, total // 4) if c.loss.profile and c.generator.noise_size else 0
    random = torch.Generator().manual_seed(c.schedule.seed * 1_000_003 + step)
    z = torch.randn(total + twice, c.generator.noise_size, generator=random)
    mix = torch.rand(total, 1, 1, 1, generator=random)

    coded_frames, original_frames = analyse(coded), analyse(original)
    end = coded_frames.shape[2] - c.generator.lookahead_frames
    length = coded_frames.shape[2] - context_frames
    target, given = original_frames[:, :, end - length : end], coded_frames[:, :, end - length : end]
    kept = survival(target, given)
    kept_share = world.sum(kept.mean()) / world.size
    bandwidth_hz = judged_bandwidth(kept, bandwidth_hz)
    all_bandwidths = world.gather(bandwidth_hz)
    first = (end - length) * HOP + WINDOW - HOP
    audio, coded_audio = (x[:, first : first + (length - 3) * HOP] for x in (original, coded))

    parts = []
    for index, places in enumerate(part_places(total, accumulate, world)):
        mine = slice(index, None, accumulate)
        again = places[places < twice]  # a part's first ones
        parts.append(
            Part(
                share=len(places) / total,
                again_share=len(again) / max(1, twice),
                coded=coded_frames[mine],
                given=given[mine],
                target=target[mine],
                kept=kept[mine],
                kept_share=kept_share,
                audio=audio[mine],
                coded_audio=coded_audio[mine],
                bandwidth_hz=bandwidth_hz[mine],
                all_bandwidths_hz=all_bandwidths,
                z=z[places].to(world.device),
                z_again=z[total + again].to(world.device),
                mix=mix[places].to(world.device),
            )
        )
    return parts
