"""The generator `compact`: signed-square-root STFT frames of an MP3 in, of the restored music out.

One frame travels like this (bins x maps, in the sizes of `GeneratorConfig`; those of `compact` are in its config)::

    frames 1024 x 3 -- strided conv --> 128 x 32 -- strided conv --> 32 x 64 -+-- aggregation filters --> 32 x 32
                            |                                               |                              |
                            | delayed                    noise z ----> [ 1x1 conv to 32 x 48 ] <-----------+
                            v                                               |
    1024 x 8 <-- sub-pixel -- 128 x 32 <-- sub-pixel -- 32 x 80 <-- gated dilated 3x3 stack, aggregation

The eight output maps shape what the delayed input offers: a mask for what survived compression; gains for copies
of the spectrum moved up (an excitation that keeps its phase from frame to frame, as spectral band replication
does), whitened so that the gains are the envelope; and an added part for what neither can give. The maps come eight
bins at a time; a last stage (`FineStage`) looks at single bins and fills what coding left empty between partials.
How much of all that is made is decided over seconds (`Restraint`): little where hardly anything is missing. So is how
much the noise counts there: where coding is not heard there is nothing to choose.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from restorer.errors import ConfigError
from restorer.training.layers import (
    SLOPE,
    FrequencyAggregation,
    GatedConv,
    TimeConv,
    he_initialise,
    remember,
    subpixel,
)
from restorer.training.mp3 import LAME_GAIN

BINS = 1024  # the Nyquist bin passes through untouched
SCALE = 0.25  # signed-square-root frames of music are of order 4
SEEN = 256.0  # largest part of a frame that is seen, 40 dB over full scale: beyond, the network knows nothing
POWER_FLOOR = 1e-3  # the constant of the log-spectral distance
LEVEL_SCALE, CONTRAST_SCALE = 0.15, 0.3  # bring log power, and its distance to that around, to order 1
UNCHANGED = LAME_GAIN**-0.5  # a frame times this is what the MP3 has, at its original's level


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the generator; stored in every checkpoint and model."""

    kind: str = "compact"
    noise_size: int = 64
    lookahead_frames: int = 8
    front_maps: int = 32
    band_maps: int = 64
    aggregation_maps: int = 32
    aggregation_rank: int = 0  # of the aggregation filters; 0: as many as there are filters
    stack_maps: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    copy_up_bins: tuple[int, ...] = (256, 512, 768, 64, 128)
    whitening_bins: int = 33
    fine_maps: int = 0  # of a last stage that sees single bins; 0: there is none
    fine_levels: bool = True  # it hears levels too, and not only how far bins lie from those around
    hint_maps: int = 4  # that the last stage is given for each bin
    restraint_frames: int = 0  # over which it is judged how much is missing; 0: it is not
    restraint_maps: int = 16  # that it is judged by
    restrained_noise: bool = False  # it counts less where coding is hardly heard, which a restraint judges


class Generator(nn.Module):
    """Restores frames of one channel, with noise z (B, noise_size) choosing among plausible originals.

    Shape: frames (B, 2, T, 1025), real and imaginary parts, signed square root of an un-normalised STFT.
    Without states (training) the output has T - context_frames frames, the newest of which restores input frame
    T - 1 - lookahead_frames; with states (streaming) it has T frames and the next states follow it.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        c = config
        if any(shift % 4 for shift in c.copy_up_bins):
            raise ConfigError("copy_up_bins must be multiples of 4: a hop is a quarter window, others break the phase")
        if c.lookahead_frames > 2 * sum(c.dilations):
            raise ConfigError(
                f"lookahead_frames must be at most what the dilations span, {2 * sum(c.dilations)}, "
                f"and not {c.lookahead_frames}"
            )
        self.front = TimeConv(3, c.front_maps, (3, 16), stride=8, padding=4)
        self.front_bias = nn.Parameter(torch.zeros(1, c.front_maps, 1, 128))
        self.bands = TimeConv(c.front_maps, c.band_maps, (1, 8), stride=4, padding=2)
        self.aggregate = FrequencyAggregation(c.band_maps, 32, c.aggregation_maps, 32, c.aggregation_rank)
        self.merge = TimeConv(c.band_maps + c.aggregation_maps, c.stack_maps, (1, 1))
        self.noise = nn.Linear(c.noise_size, c.stack_maps * 32, bias=False) if c.noise_size else None
        self.place = nn.Parameter(torch.zeros(1, c.stack_maps, 1, 32))
        self.stack = nn.ModuleList(GatedConv(c.stack_maps, (3, 3), dilation) for dilation in c.dilations)
        self.spread = FrequencyAggregation(c.stack_maps, 32, c.aggregation_maps, 32, c.aggregation_rank)
        self.rise = TimeConv(c.stack_maps + c.aggregation_maps, 4 * c.front_maps, (1, 3))
        self.refine = GatedConv(c.front_maps, (1, 3))
        self.output_maps = 3 + len(c.copy_up_bins)
        self.out = TimeConv(c.front_maps, 8 * self.output_maps, (1, 3), gain=0.002)
        self.out_bias = nn.Parameter(torch.zeros(1, self.output_maps, 1, BINS))
        self.fine = FineStage(c) if c.fine_maps else None
        latitude = c.restrained_noise and c.noise_size > 0
        self.restraint = Restraint(c.restraint_frames, c.restraint_maps, latitude) if c.restraint_frames else None
        if self.noise is not None:
            he_initialise(self.noise, 0.3)

    @property
    def context_frames(self) -> int:
        """Frames that one output frame needs besides its own (receptive field - 1)."""
        return self.front.memory_frames + sum(layer.memory_frames for layer in self.stack)

    @property
    def memory_frames(self) -> int:
        """Frames before it that an output frame depends on at most; silence among them is as good as nothing."""
        if self.restraint is None:
            return self.context_frames
        if self.restraint.latitude is None:
            return max(self.context_frames, self.restraint.memory_frames)
        return self.context_frames + self.restraint.memory_frames  # what it says of the noise enters the stack

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """(maps, frames, bins) of each state, in the order of `forward`."""
        c = self.config
        shapes = [(3, self.front.memory_frames, BINS)]
        shapes += [(c.stack_maps, layer.memory_frames, 32) for layer in self.stack]
        if c.lookahead_frames:
            shapes += [(2, c.lookahead_frames, BINS + 1), (c.front_maps, c.lookahead_frames, 128)]
        if self.fine is not None:
            shapes += [(1 + c.fine_levels, self.fine.memory_frames, BINS)]
        if self.restraint is not None:
            shapes += [self.restraint.state_shape]
        return shapes

    def forward(self, frames: Tensor, z: Tensor | None = None, *states: Tensor) -> tuple[Tensor, ...]:
        c = self.config
        streaming = bool(states)
        memory = list(states) if streaming else [None] * len(self.state_shapes)
        next_states = []

        x, newest_power = bound(frames)
        verdict, restraint_state = None, None
        if self.restraint is not None:
            verdict, restraint_state = self.restraint(newest_power, memory[-1])
        # Real and imaginary parts and log power, of order 1.
        features = torch.cat([x * SCALE, (newest_power + POWER_FLOOR).log() * LEVEL_SCALE], dim=1)
        y, state = self.front(features, memory[0])
        next_states.append(state)
        local = functional.leaky_relu(y + self.front_bias, SLOPE)
        y = functional.leaky_relu(self.bands(local)[0], SLOPE)
        y = torch.cat([y, self.aggregate(y)], dim=1)
        y = self.merge(y)[0] + self.place
        if self.noise is not None:
            noise = self.noise(z).unflatten(1, (c.stack_maps, 1, 32))
            if verdict is not None and c.restrained_noise:
                noise = noise * verdict[:, 1:, verdict.shape[2] - y.shape[2] :]
            y = y + noise
        for index, layer in enumerate(self.stack):
            y, state = layer(y, memory[1 + index])
            next_states.append(state)

        y = torch.cat([y, self.spread(y)], dim=1)
        length = y.shape[2]
        earlier = self.fine.memory_frames if self.fine is not None and not streaming else 0
        if c.lookahead_frames and streaming:
            frames, state = remember(frames, memory[1 + len(self.stack)], c.lookahead_frames)
            next_states.append(state)
            local, state = remember(local, memory[2 + len(self.stack)], c.lookahead_frames)
            next_states.append(state)
            frames, local = frames[:, :, :length], local[:, :, :length]
        else:  # the newest `length` frames, `lookahead` frames ago
            frames = _cut(frames, c.lookahead_frames, length + earlier)
            local = _cut(local, c.lookahead_frames, length)

        y = functional.leaky_relu(subpixel(self.rise(y)[0], 4), SLOPE) + local
        y, _ = self.refine(y)
        maps = subpixel(self.out(y)[0], 8) + self.out_bias
        x = frames[..., :BINS]
        power = x.pow(4).sum(dim=1, keepdim=True)
        around = surroundings(power, c.whitening_bins) + POWER_FLOOR
        fills = None
        if self.fine is not None:
            fills, state = self.fine(power + POWER_FLOOR, around, y, memory[len(next_states)])
            next_states.append(state)
        frames, around = frames[:, :, earlier:], around[:, :, earlier:]
        restored = self.compose(frames, around, maps, fills)
        if verdict is not None:
            next_states.append(restraint_state)
            given = frames[..., :BINS] * UNCHANGED
            held = given + verdict[:, :1, verdict.shape[2] - length :] * (restored[..., :BINS] - given)
            restored = torch.cat([held, restored[..., BINS:]], dim=3)
        return (restored, *next_states) if streaming else (restored,)

    def compose(self, frames: Tensor, around: Tensor, maps: Tensor, fills: Tensor | None) -> Tensor:
        """Build output frames (B, 2, T, 1025).

        From input frames, the power around each bin (B, 1, T, 1024), the network's maps (B, 3 + copies, T, 1024), and
        the last stage's (B, 1 + copies, T, 1024), in which gains are relative to the power around.
        """
        c = self.config
        x = frames[..., :BINS]
        mask, added, gains = maps.split([1, 2, len(c.copy_up_bins)], dim=1)
        level = around.pow(0.25)
        if fills is not None:
            mask = mask + fills[:, :1]
            gains = gains + SCALE * level * fills[:, 1:]
        y = x * SCALE * (1 + torch.tanh(mask)) + added
        y = self.add_copies(y, x / level, gains)
        return torch.cat([y / SCALE, frames[..., BINS:]], dim=3)

    def add_copies(self, y: Tensor, white: Tensor, gains: Tensor) -> Tensor:
        """Add the whitened spectrum moved up by each of `copy_up_bins`, times its gain."""
        for shift, gain in zip(self.config.copy_up_bins, gains.split(1, dim=1), strict=True):
            y = y + functional.pad(white, (shift, -shift)) * gain
        return y


class FineStage(nn.Module):
    """Fills what coding left empty between the partials of the surviving band, bin by bin.

    The sub-pixel layer draws eight bins at once, in the scale of the frames. This stage sees how far each bin lies
    above or below those around it, now and in the two frames before, and answers in proportion to their level, which
    it sees with `fine_levels`; otherwise the bands tell it.

    Shape: power and the power around each bin, floor included, (B, 1, T [+ 2], 1024), bands (B, front_maps, T, 128)
    -> (B, 1 + copies, T, 1024), next memory (B, 1 or 2, 2, 1024).
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        c = config
        self.look = TimeConv(1 + c.fine_levels, c.fine_maps, (3, 5))
        self.hint = TimeConv(c.front_maps, 8 * c.hint_maps, (1, 3))
        self.merge = TimeConv(c.hint_maps, c.fine_maps, (1, 1))
        self.fill = TimeConv(c.fine_maps, 1 + len(c.copy_up_bins), (1, 5), gain=0.0)
        self.memory_frames = self.look.memory_frames

    def forward(
        self, power: Tensor, around: Tensor, bands: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        levels = around.log()
        seen = (power.log() - levels) * CONTRAST_SCALE
        if self.look.conv.in_channels == 2:
            seen = torch.cat([levels * LEVEL_SCALE, seen], dim=1)
        seen, memory = self.look(seen, memory)
        hints = subpixel(self.hint(bands)[0], 8)
        hidden = functional.leaky_relu(seen + self.merge(hints)[0], SLOPE)
        return self.fill(hidden)[0], memory


class Restraint(nn.Module):
    """The share of all changes that is made, judged from the last seconds heard: little where little is missing.

    Coding leaves holes: bins far below their band's mean, and bands with nothing at all. How far bins lie below some
    distances from that mean tells coding from music once it is averaged over `frames` frames, each weighted by its
    loudness, so that silence says nothing. `restorer restrain` makes it learn that. With `latitude` it also gives the
    share of the noise that counts: little where coding is hardly heard, for there a take could only be farther off.

    Shape: power (B, 1, T, 1024) -> (B, 1 or 2, T, 1) in 0..1, next memory (B, maps + 1, frames - 1, 1). Without a
    memory what came before counts as silence.
    """

    BANDS, BINS_EACH = 64, BINS // 64
    FLOOR = 1e-6  # of power: low-passes and holes are seen 30 dB further down than by all else
    DEPTHS = (0.0, 2.0, 4.0, 6.0, 9.0)  # of log power below that of its band's mean
    STATISTICS = 1 + len(DEPTHS)  # of each band
    SILENCE = 1e-3  # of loudness, added to what the means are divided by
    ROUNDING = 1e-4  # of loudness: silence has none at all, however long it lasts

    def __init__(self, frames: int, maps: int = 16, latitude: bool = False):
        super().__init__()
        self.frames, self.memory_frames, self.maps = frames, frames - 1, maps
        self.tell = nn.Linear(self.STATISTICS * self.BANDS, self.maps)
        self.judge = nn.Linear(self.maps, 1)
        self.latitude = nn.Linear(self.maps, 1) if latitude else None
        self.register_buffer("depths", torch.tensor(self.DEPTHS).view(-1, 1, 1), persistent=False)
        he_initialise(self.tell)
        he_initialise(self.judge)
        if self.latitude is not None:
            he_initialise(self.latitude)

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(maps, frames, bins) of the memory."""
        return self.maps + 1, self.memory_frames, 1

    def statistics(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Of each frame and band, (B, STATISTICS, T, BANDS), and loudness, (B, 1, T, 1), from power (B, 1, T, 1024)."""
        level = (self._means(power) + self.FLOOR).log()
        below = level.unsqueeze(4) - (power + self.FLOOR).log().unflatten(3, (self.BANDS, self.BINS_EACH))
        beyond = self._means(functional.relu(below.flatten(3) - self.depths))
        loudness = functional.relu(level.mean(dim=3, keepdim=True) - (math.log(self.FLOOR) + self.ROUNDING))
        return torch.cat([level, beyond], dim=1), loudness

    def _means(self, x: Tensor) -> Tensor:
        """Over the bins of each band."""
        return functional.avg_pool2d(x, (1, self.BINS_EACH))

    def forward(self, power: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        seen, loudness = self.statistics(power)
        loudness = loudness[:, 0]
        told = torch.cat([self.summarise(seen) * loudness, loudness], dim=2).mT.unsqueeze(3)
        if memory is None:
            told = functional.pad(told, (0, 0, self.memory_frames, 0))
        told, memory = remember(told, memory, self.memory_frames)
        windows = functional.avg_pool1d(told.squeeze(3), self.frames, stride=1)
        means, weight = windows.mT.split([self.maps, 1], dim=2)
        return self.decide(means / (weight + self.SILENCE)), memory

    def summarise(self, seen: Tensor) -> Tensor:
        """Of each frame, (B, T, maps), from its statistics."""
        return self.tell(seen.transpose(1, 2).flatten(2))

    def decide(self, means: Tensor) -> Tensor:
        """The shares, (B, 1 or 2, T, 1), from means of what `summarise` gives, (B, T, maps)."""
        means = functional.leaky_relu(means, SLOPE)
        heads = [self.judge] if self.latitude is None else [self.judge, self.latitude]
        return torch.sigmoid(torch.stack([head(means) for head in heads], dim=1))


def leave_out(weights: dict[str, Tensor], config: GeneratorConfig) -> dict[str, Tensor]:
    """The weights of the same generator without the parts that a config lacks.

    Without noise it is as if z were always 0, its mean; without a restraint all changes are made.
    """
    parts = {"noise.": config.noise_size, "restraint.": config.restraint_frames}
    parts["restraint.latitude."] = config.noise_size and config.restrained_noise
    lacking = [part for part, there in parts.items() if not there]
    return {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(lacking))}


def without(generator: Generator, *sizes: str) -> Generator:
    """The same generator without the parts whose sizes in the config are named, as `leave_out` has it."""
    lesser = Generator(replace(generator.config, **dict.fromkeys(sizes, 0)))
    lesser.load_state_dict(leave_out(generator.state_dict(), lesser.config))
    return lesser.eval()


def surroundings(power: Tensor, bins: int) -> Tensor:
    """Mean over so many bins around each."""
    return functional.avg_pool2d(power, (1, bins), stride=1, padding=(0, bins // 2), count_include_pad=False)


def bound(frames: Tensor) -> tuple[Tensor, Tensor]:
    """What the network sees: bounded parts (B, 2, T, 1024) and their power (B, 1, T, 1024)."""
    x = frames[..., :BINS].clamp(-SEEN, SEEN)
    return x, x.pow(4).sum(dim=1, keepdim=True)


def _cut(x: Tensor, delay: int, length: int) -> Tensor:
    end = x.shape[2] - delay
    return x[:, :, end - length : end]
