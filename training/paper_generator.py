"""The generator of the paper, Table 1 to the letter: 322.5 M parameters, no skip from input to output.

One frame travels like this (maps x bins)::

    frames 2 x 1024 -- Conv1-3 --> 38 x 1024 -- Conv4 --> 4096 x 1 -- Reshape1 --> 128 x 32 -- ReMap, Conv5
        --> 256 x 32 -- noise z --> 320 x 32 -- Conv6-14, self-gating --> 128 x 32 -- Reshape2 --> 4096 x 1
        -- DeConv4 --> 38 x 1024 -- DeConv3-1 --> 2 x 1024

How Table 1 is read where it leaves a choice:

* Tensors here are (batch, maps, frames, bins); Table 1 prints maps x bins x frames, and frequency first in
  kernels and paddings. Frames have 1025 bins: the Nyquist bin, which the table lacks, passes through.
* A deconvolution is printed with the maps of the convolution it inverts (DeConv4: 38, 4096), so it maps the
  second to the first. Dilation and padding are equal in both axes, or 1024 and 32 bins would not stay.
* Every PReLU has one slope per layer (the index l in eq. 2), also the last one.
* Section 3.1.1 forbids zero-padding in time, yet the table pads Conv1-3 and DeConv3-1 (336 -> 336,
  212 -> 212). Both are here with the same weights: `excerpt` computes what the table prints, for training on
  excerpts; `forward` pads nowhere and takes those frames from the signal, for whole songs and streams.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat

import torch
from torch import Tensor, nn
from torch.nn import functional

from restorer.errors import ConfigError
from restorer.training.layers import remember

BINS = 1024  # the Nyquist bin passes through untouched
FRONT_DILATIONS = (1, 2, 4)  # of Conv1-3 and DeConv1-3
SLOPE = 0.25  # that every PReLU starts with (He et al. 2015)


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of Conv1-14, which generator and critic share; the defaults are Table 1's."""

    kind: str = "paper"
    front_maps: tuple[int, ...] = (18, 38, 38)  # Conv1-3
    bands: int = 32  # groups of aggregation filters (Reshape1), the bins of Conv5-14
    stack_maps: int = 256  # ReMap and Conv5-14 before self-gating, which halves them
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)  # Conv5-14

    def __post_init__(self) -> None:
        if len(self.front_maps) != len(FRONT_DILATIONS):
            raise ConfigError(f"front_maps must be 3 numbers (Conv1-3) and not {self.front_maps}")
        if self.stack_maps < 2 or self.stack_maps % 2:
            raise ConfigError(f"stack_maps must be even, self-gating halves it, and not {self.stack_maps}")
        if len(self.dilations) < 2 or min(self.dilations) < 1:
            raise ConfigError(f"dilations must be at least 2 numbers from 1 and not {self.dilations}")

    @property
    def gated_maps(self) -> int:
        return self.stack_maps // 2

    @property
    def filters(self) -> int:
        """Frequency aggregation filters of Conv4: 128 x 32 = 4096."""
        return self.gated_maps * self.bands


@dataclass(frozen=True)
class PaperGeneratorConfig(TrunkConfig):
    """Sizes of the paper's generator; stored in every checkpoint and model."""

    noise_size: int = 64  # 0: deterministic, Conv6 has 256 input maps
    pad_front: bool = True  # `excerpt` zero-pads Conv1-3 and DeConv3-1 in time, as the table prints

    @property
    def lookahead_frames(self) -> int:
        """All convolutions are centred, so half of the context lies in the future."""
        return 2 * sum(FRONT_DILATIONS) + sum(self.dilations)


class PaperConv(nn.Module):
    """One 3x3 row of Table 1, dilated alike in time and frequency, and padded in frequency only.

    Shape: (B, in_maps, T + 2 x dilation, F) -> (B, out_maps, T, F); half the maps when gated (eq. 2: W and
    V are the two halves of one weight matrix). The missing frames come from a memory, or from `pad` zero
    frames on both sides.
    """

    def __init__(self, in_maps: int, out_maps: int, dilation: int, gated: bool = False, transposed: bool = False):
        super().__init__()
        self.dilation, self.gated = dilation, gated
        self.memory_frames = 2 * dilation
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if transposed:  # removes what a deconvolution adds at both ends of time, where it knows only a part
            self.conv = nn.ConvTranspose2d(in_maps, out_maps, 3, dilation=dilation, padding=(2 * dilation, dilation))
        else:
            self.conv = nn.Conv2d(in_maps, out_maps, 3, dilation=dilation, padding=(0, dilation))
        self.rectify = nn.PReLU(init=SLOPE)
        he_initialise(self.conv, 9 * in_maps)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, pad: int = 0, skip: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Compute eq. 2 or a plain convolution; `skip` adds the input where the number of maps allows it.

        That is behind self-gating, or before it where the convolution keeps the maps. It needs `pad` = dilation.
        """
        padded, memory = remember(x, memory, self.memory_frames)
        y = self.conv(functional.pad(padded, (0, 0, pad, pad)) if pad else padded)
        early = skip and y.shape[1] == x.shape[1]
        if early:
            y = y + x
        if self.gated:
            value, gate = y.chunk(2, dim=1)
            y = self.rectify(value) * torch.sigmoid(gate)
        else:
            y = self.rectify(y)
        return (y + x if skip and not early else y), memory


class Aggregation(nn.Module):
    """Conv4, Reshape1 and ReMap: filters over all bins, whose responses become maps x bands (paper 3.1.3)."""

    def __init__(self, in_maps: int, config: TrunkConfig):
        super().__init__()
        self.bands = config.bands
        self.conv = nn.Conv2d(in_maps, config.filters, (1, BINS))
        self.rectify = nn.PReLU(init=SLOPE)
        self.remap = nn.Conv2d(config.gated_maps, config.stack_maps, 1)
        self.rectify_remap = nn.PReLU(init=SLOPE)
        he_initialise(self.conv, in_maps * BINS)
        he_initialise(self.remap, config.gated_maps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectify(self.conv(x))[..., 0]  # (B, filters, T)
        x = x.unflatten(1, (-1, self.bands)).transpose(2, 3)
        return self.rectify_remap(self.remap(x))


class Trunk(nn.Module):
    """Conv1-14, the part that Table 1 shares between generator and critic."""

    def __init__(self, in_maps: int, config: TrunkConfig, noise_size: int = 0):
        super().__init__()
        maps = (in_maps, *config.front_maps)
        self.front = nn.ModuleList(
            PaperConv(*pair, dilation) for pair, dilation in zip(pairwise(maps), FRONT_DILATIONS, strict=True)
        )
        self.aggregate = Aggregation(maps[-1], config)
        first, *gated = config.dilations
        self.conv5 = PaperConv(config.stack_maps, config.stack_maps, first)
        sizes = [config.stack_maps + noise_size] + [config.gated_maps] * (len(gated) - 1)
        self.stack = nn.ModuleList(
            PaperConv(size, config.stack_maps, dilation, gated=True)
            for size, dilation in zip(sizes, gated, strict=True)
        )


class PaperGenerator(nn.Module):
    """Restores frames of one channel, with noise z (B, noise_size) choosing among plausible originals.

    Shape: frames (B, 2, T, 1025), real and imaginary parts, signed square root of an un-normalised STFT.
    Without states the output has T - context_frames frames, the newest of which restores input frame
    T - 1 - lookahead_frames; with states (streaming) it has T frames and the next states follow it.
    """

    def __init__(self, config: PaperGeneratorConfig):
        super().__init__()
        self.config = config
        c = config
        self.trunk = Trunk(2, c, c.noise_size)
        self.deconv4 = nn.ConvTranspose2d(c.filters, c.front_maps[-1], (1, BINS))
        self.rectify4 = nn.PReLU(init=SLOPE)
        he_initialise(self.deconv4, c.filters)
        maps = (2, *c.front_maps)
        self.back = nn.ModuleList(  # DeConv3, 2, 1
            PaperConv(maps[i + 1], maps[i], FRONT_DILATIONS[i], transposed=True) for i in (2, 1, 0)
        )

    @property
    def _remembering(self) -> list[PaperConv]:
        return [*self.trunk.front, self.trunk.conv5, *self.trunk.stack, *self.back]

    @property
    def context_frames(self) -> int:
        """Frames that one output frame needs besides its own (receptive field - 1)."""
        return sum(layer.memory_frames for layer in self._remembering)

    @property
    def memory_frames(self) -> int:
        """Frames before it that an output frame depends on at most; silence among them is as good as nothing."""
        return self.context_frames

    @property
    def excerpt_margin(self) -> int:
        """Frames by which `excerpt` is shorter than its input, on either side: 62 in Table 1."""
        return sum(self.config.dilations) if self.config.pad_front else self.config.lookahead_frames

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """(maps, frames, bins) of each state, in the order of `forward`."""
        wide = {id(layer) for layer in (*self.trunk.front, *self.back)}
        shapes = [
            (layer.conv.in_channels, layer.memory_frames, BINS if id(layer) in wide else self.config.bands)
            for layer in self._remembering
        ]
        return [*shapes, (2, self.config.lookahead_frames, 1)]

    def forward(self, frames: Tensor, z: Tensor | None = None, *states: Tensor) -> tuple[Tensor, ...]:
        delay = self.config.lookahead_frames
        x, next_states = self._restore(frames, z, iter(states) if states else repeat(None), False)
        nyquist = frames[..., BINS:]
        if states:
            nyquist, state = remember(nyquist, states[-1], delay)
            nyquist = nyquist[:, :, : x.shape[2]]
            return torch.cat([x, nyquist], dim=3), *next_states, state
        end = frames.shape[2] - delay
        return (torch.cat([x, nyquist[:, :, end - x.shape[2] : end]], dim=3),)

    def excerpt(self, frames: Tensor, z: Tensor | None = None) -> Tensor:
        """Restore the middle of training excerpts as Table 1 prints it: 336 -> 212 frames.

        Shape: (B, 2, T, 1025) -> (B, 2, T - 2 x excerpt_margin, 1025).
        """
        x, _ = self._restore(frames, z, repeat(None), self.config.pad_front)
        first = self.excerpt_margin
        return torch.cat([x, frames[:, :, first : first + x.shape[2], BINS:]], dim=3)

    def _restore(
        self, frames: Tensor, z: Tensor | None, memories: Iterator[Tensor | None], pad: bool
    ) -> tuple[Tensor, list[Tensor]]:
        states = []

        def through(layer: PaperConv, x: Tensor, padded: bool = False) -> Tensor:
            x, state = layer(x, next(memories), layer.dilation if padded else 0)
            states.append(state)
            return x

        x = frames[..., :BINS]
        for layer in self.trunk.front:
            x = through(layer, x, pad)
        x = through(self.trunk.conv5, self.trunk.aggregate(x))
        if self.config.noise_size:
            x = torch.cat([x, z[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])], dim=1)
        for layer in self.trunk.stack:
            x = through(layer, x)
        x = x.transpose(2, 3).flatten(1, 2)[..., None]  # Reshape2: (B, filters, T, 1)
        x = self.rectify4(self.deconv4(x))
        for layer in self.back:
            x = through(layer, x, pad)
        return x, states


def he_initialise(layer: nn.Conv2d | nn.ConvTranspose2d, inputs: int) -> None:
    """Draw weights as He et al. 2015 for PReLUs, from the number of inputs that one output sums; biases zero.

    PyTorch's own function takes a deconvolution's outputs for its inputs.
    """
    nn.init.normal_(layer.weight, std=(2 / ((1 + SLOPE**2) * inputs)) ** 0.5)
    nn.init.zeros_(layer.bias)
