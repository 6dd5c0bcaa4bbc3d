"""The generator `compact` as ONNX Runtime likes it best: the same function with other weights and fewer passes.

Constant factors move into the weights before or behind them. The last stage works on pairs of bins: the kernels compute
16 maps at once and pad what is left over, so its 6 outputs cost as much as 16; 12 for pairs of bins, at half the
places, waste less. Earlier frames and hints enter the first convolution as further input maps. As taps in time the
hints would be multiplied by zeros for all frames but the newest; as a sum of two convolutions everything would be
stored three times.
"""

import copy
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from restorer.export.arrange_restraint import ArrangedRestraint
from restorer.training.generator import (
    BINS,
    CONTRAST_SCALE,
    LEVEL_SCALE,
    POWER_FLOOR,
    SCALE,
    UNCHANGED,
    FineStage,
    Generator,
    bound,
)
from restorer.training.growth import lower_rank
from restorer.training.layers import SLOPE, FrequencyAggregation, subpixel

BALANCE = 0.3  # the power; with that of compact 0.5, 0.3 and 0.5 differ little, and 1 rounds worse
LEVEL = 0.3  # that of maps; 0.5 is no better for 0.10, and worse for single excerpts
_PEAK, _HEARD_EVERY = 0.9995, 7  # a map's size: so many of its values are smaller; of so many one is looked at


def balance(generator: Generator, excerpts: Iterable[NDArray[np.float32]]) -> None:
    """Rearrange what lies between the two products of aggregation filters of a lower rank for 8 bits.

    The function stays the same.

    The sums become those of the singular value decomposition, which depend least on each other. Each is divided by a
    power of its size on `excerpts`, coded music as frames (1, 2, T, 1025), and the weights behind it multiplied, so
    that weights and sums share what is rounded (after SmoothQuant, Xiao et al. 2023).
    """
    layers = (generator.aggregate, generator.spread)
    powers: dict[nn.Module, Tensor] = {layer.narrow: torch.tensor(1e-9) for layer in layers}

    def listen(narrow: nn.Module, _: object, sums: Tensor) -> None:
        powers[narrow] = powers[narrow] + sums.square().sum(dim=(0, 1))

    hooks = [layer.narrow.register_forward_hook(listen) for layer in layers]
    with torch.no_grad():
        for layer in layers:
            narrow, dense = lower_rank(layer.dense.weight @ layer.narrow.weight, len(layer.narrow.weight))
            layer.narrow.weight.copy_(narrow)
            layer.dense.weight.copy_(dense)
        for frames in excerpts:
            generator(torch.from_numpy(frames), torch.zeros(1, generator.config.noise_size))
        for layer in layers:
            scale = (powers[layer.narrow] / powers[layer.narrow].amax()).sqrt().pow(BALANCE)
            layer.narrow.weight /= scale[:, None]
            layer.dense.weight *= scale
    for hook in hooks:
        hook.remove()


def level(generator: Generator, excerpts: Iterable[NDArray[np.float32]]) -> None:
    """Bring the maps of the front, and those joined with them behind the stack, closer in size for 8 bits.

    The function stays the same: a positive factor passes a rectifier. Each map is multiplied by a power of what it is
    short of the largest, in the two layers behind the stack that read them all, on `excerpts`, coded music as frames
    (1, 2, T, 1025); weights behind it are divided by the factor (EXPERIMENTS.md, 49).
    """
    g, maps = generator, generator.config.front_maps
    heard: dict[nn.Module, list[Tensor]] = {g.refine: [], g.out: []}

    def listen(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        heard[layer].append(given[0].abs().movedim(1, 0).flatten(1)[:, ::_HEARD_EVERY])

    hooks = [layer.register_forward_pre_hook(listen) for layer in heard]
    with torch.no_grad():
        for frames in excerpts:
            g(torch.from_numpy(frames), torch.zeros(1, g.config.noise_size))
        peaks = [torch.cat(parts, dim=1).quantile(_PEAK, dim=1) + 1e-6 for parts in heard.values()]
        factors = torch.stack([(of_layer.amax() / of_layer).pow(LEVEL / 2) for of_layer in peaks]).prod(dim=0)
        values = torch.cat([factors, torch.ones(maps)])  # the gates stay
        for layer, own in ((g.front, factors), (g.rise, factors.repeat_interleave(4)), (g.refine.layer, values)):
            layer.conv.weight *= own[:, None, None, None]
            layer.conv.bias *= own
        g.front_bias *= factors[:, None, None]
        readers = [g.bands, g.refine.layer, g.out, *([g.fine.hint] if g.fine is not None else [])]
        for reader in readers:
            reader.conv.weight /= factors[:, None, None]
    for hook in hooks:
        hook.remove()


class ArrangedGenerator(nn.Module):
    """A `Generator` to export: frames in and out are the same, states are laid out in another way.

    Around the stack maps come last, as ONNX Runtime has them in 8 bits: nothing is moved before or behind a convolution
    there, nor what aggregation filters read and write, nor bins drawn as maps. So they do all the way from the front
    to what is drawn if those small convolutions are to be in 8 bits; in floats it would cost a twentieth of the time.

    Shape: that of `Generator` with states.
    """

    def __init__(self, generator: Generator, small_in_8_bits: bool = False):
        super().__init__()
        self.maps_last = small_in_8_bits
        generator = copy.deepcopy(generator)
        c = self.config = generator.config
        self.context_frames, self.output_maps = generator.context_frames, generator.output_maps
        self.add_copies = generator.add_copies
        self.front, self.front_bias, self.bands = generator.front.conv, generator.front_bias, generator.bands.conv
        self.value, self.gate = _halves(generator.refine.layer.conv)
        self.stack = nn.ModuleList(layer.layer.conv for layer in generator.stack)
        self.memories = [layer.memory_frames for layer in generator.stack]
        self.aggregate = _maps_last(generator.aggregate, c.band_maps)
        self.spread = _maps_last(generator.spread, c.stack_maps)
        self.merge = nn.Linear(c.band_maps + c.aggregation_maps, c.stack_maps, bias=False)
        self.rise = generator.rise.conv
        self.out = generator.out.conv
        self.hint = None if generator.fine is None else generator.fine.hint.conv
        self.around = Surroundings(c.whitening_bins)
        self.fine = PairedFineStage(generator.fine) if generator.fine is not None else None
        self.restraint = None if generator.restraint is None else ArrangedRestraint(generator.restraint)
        with torch.no_grad():
            self.front.weight[:, :2] *= SCALE
            self.front.weight[:, 2] *= LEVEL_SCALE
            self.merge.weight.copy_(generator.merge.conv.weight[:, :, 0, 0])
            place = generator.place.permute(0, 2, 3, 1) + generator.merge.conv.bias
            self.place = nn.Parameter(place.reshape(1, -1))
            if generator.noise is not None:
                self.noise = nn.Parameter(_swap(generator.noise.weight, c.stack_maps).T.contiguous())
            self.rise.weight.copy_(_swap(self.rise.weight, c.front_maps))
            self.rise.bias.copy_(_swap(self.rise.bias, c.front_maps))
            factors = torch.tensor([1.0] + [1 / SCALE] * (self.output_maps - 1))  # the mask has none
            self.out.weight *= factors.repeat_interleave(8)[:, None, None, None]
            bias = self.out.bias.view(self.output_maps, 8).repeat(1, 128) + generator.out_bias[0, :, 0]
            self.out_bias = nn.Parameter((factors[:, None] * bias)[:, None])
            self.out.bias = None

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """Of each state without the batch, in the order of `forward`."""
        c = self.config
        shapes = [(3, self.front.kernel_size[0] - 1, BINS)]
        shapes += [(frames, 32, c.stack_maps) for frames in self.memories]
        if c.lookahead_frames:
            shapes += [(2, c.lookahead_frames, BINS + 1)]
            bands = (c.front_maps, c.lookahead_frames, 128)
            shapes += [(*bands[1:], bands[0]) if self.maps_last else bands]
        if self.fine is not None:
            shapes += [(1 + c.fine_levels, self.fine.memory_frames, BINS)]
        if self.restraint is not None:
            shapes += [self.restraint.state_shape]
        return shapes

    def forward(self, frames: Tensor, z: Tensor | None, *states: Tensor) -> tuple[Tensor, ...]:
        c = self.config
        memory, next_states = iter(states), []
        time = 1 if self.maps_last else 2  # the axis, of bands
        convolve = _convolve if self.maps_last else _apply
        draw = _draw if self.maps_last else subpixel

        def recall(x: Tensor, axis: int) -> Tensor:
            """Put the next memory before x."""
            state = next(memory)
            x = torch.cat([state, x], dim=axis)
            next_states.append(_cut(x, slice(-state.shape[axis], None), axis))
            return x

        x, newest_power = bound(frames)
        share, latitude, told = None, None, None
        if self.restraint is not None:
            share, latitude, told = self.restraint(newest_power, states[-1])
        y = self.front(recall(torch.cat([x, (newest_power + POWER_FLOOR).log()], dim=1), 2))
        local = functional.leaky_relu(y + self.front_bias, SLOPE)
        local = local.permute(0, 2, 3, 1) if self.maps_last else local
        y = functional.leaky_relu(convolve(self.bands, local), SLOPE)
        y = y if self.maps_last else y.permute(0, 2, 3, 1)
        y = self.merge(torch.cat([y, self.aggregate(y)], dim=3))
        place = self.place
        if z is not None:
            noise = z.unsqueeze(1) @ self.noise  # a Gemm would stay in floats
            place = place + (noise if latitude is None else noise * latitude.squeeze(1))
        y = y + place.unflatten(-1, (32, c.stack_maps))
        for conv in self.stack:
            y = y + _gate(conv, recall(y, 1))
        y = torch.cat([y, self.spread(y)], dim=3)
        if c.lookahead_frames:
            frames = recall(frames, 2)[:, :, : -c.lookahead_frames]
            local = _cut(recall(local, time), slice(-c.lookahead_frames), time)
        y = _convolve(self.rise, y).reshape(*y.shape[:2], 128, c.front_maps)
        y = y if self.maps_last else y.permute(0, 3, 1, 2)
        y = functional.leaky_relu(y, SLOPE) + local
        y = y + functional.leaky_relu(convolve(self.value, y), SLOPE) * torch.sigmoid(convolve(self.gate, y))
        maps = draw(convolve(self.out, y), 8) + self.out_bias

        x = frames[..., :BINS]
        power = x.pow(4).sum(dim=1, keepdim=True)
        around = self.around(power) + POWER_FLOOR
        level, copies = around.pow(0.25), len(c.copy_up_bins)
        mask, added, gains = maps.split([1, 2, copies], dim=1)
        if self.fine is not None:
            power = power + POWER_FLOOR
            heard = torch.cat([around, power], dim=1) if c.fine_levels else power / around
            more, fills = self.fine(recall(heard.log(), 2), draw(convolve(self.hint, y), 8)).split([1, copies], dim=1)
            mask, gains = mask + more, gains + level * fills
        y = self.add_copies(x * torch.tanh(mask) + added, x / level, gains)
        if share is None:
            y = x + y
        else:
            next_states.append(told)
            y = share * y + ((1 - UNCHANGED) * share + UNCHANGED) * x
        return (torch.cat([y, frames[..., BINS:]], dim=3), *next_states)


def _swap(rows: Tensor, outer: int) -> Tensor:
    """Rows (outer x inner, ...) in the order inner x outer."""
    return rows.unflatten(0, (outer, -1)).transpose(0, 1).flatten(0, 1)


def _cut(x: Tensor, frames: slice, axis: int) -> Tensor:
    return x[:, frames] if axis == 1 else x[:, :, frames]


def _apply(conv: nn.Conv2d, x: Tensor) -> Tensor:
    result: Tensor = conv(x)
    return result


def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of what has its maps last."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _draw(x: Tensor, factor: int) -> Tensor:
    """`subpixel` of what has its maps last; its result has them first."""
    return x.unflatten(3, (-1, factor)).permute(0, 3, 1, 2, 4).flatten(3)


def _halves(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Values and gates from convolutions of their own: ONNX Runtime computes their functions along with them."""
    halves = tuple(
        nn.Conv2d(conv.in_channels, conv.out_channels // 2, conv.kernel_size, padding=conv.padding) for _ in "vg"
    )
    with torch.no_grad():
        for half, weight, bias in zip(halves, conv.weight.chunk(2), conv.bias.chunk(2), strict=True):
            half.weight.copy_(weight)
            half.bias.copy_(bias)
    return halves


class Surroundings(nn.Module):
    """`surroundings` as a convolution that draws 16 bins as maps, for which processors have fast kernels."""

    def __init__(self, width: int):
        super().__init__()
        step, half = 16, width // 2
        self.sums = nn.Conv2d(1, step, (1, step + 2 * half), stride=(1, step), padding=(0, half), bias=False)
        count = functional.avg_pool2d(torch.ones(1, 1, 1, BINS), (1, width), stride=1, padding=(0, half))
        with torch.no_grad():
            self.sums.weight.zero_()
            for place in range(step):
                self.sums.weight[place, 0, 0, place : place + width] = 1 / width
        self.count = nn.Parameter(1 / count)

    def forward(self, power: Tensor) -> Tensor:
        return self.sums(power).permute(0, 2, 3, 1).reshape(power.shape) * self.count


def _gate(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`GatedConv` without its residual."""
    value, gate = _convolve(conv, x).chunk(2, dim=3)
    return functional.leaky_relu(value, SLOPE) * torch.sigmoid(gate)


class _Aggregation(nn.Module):
    """`FrequencyAggregation` of (B, T, bins, maps)."""

    def __init__(self, narrow: nn.Linear | None, dense: nn.Linear, out_bins: int):
        super().__init__()
        self.narrow, self.dense, self.out_bins = narrow, dense, out_bins

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        if self.narrow is not None:
            x = self.narrow(x)
        return functional.leaky_relu(self.dense(x), SLOPE).unflatten(2, (self.out_bins, -1))


def _maps_last(layer: FrequencyAggregation, maps: int) -> _Aggregation:
    first = layer.dense if layer.narrow is None else layer.narrow
    with torch.no_grad():
        first.weight.copy_(_swap(first.weight.T, maps).T)
        layer.dense.weight.copy_(_swap(layer.dense.weight, layer.out_maps))
        layer.dense.bias.copy_(_swap(layer.dense.bias, layer.out_maps))
    return _Aggregation(layer.narrow, layer.dense, layer.out_bins)


class PairedFineStage(nn.Module):
    """A `FineStage` with its weights laid out for pairs of bins; what goes in and comes out is the same.

    Hidden map m of bin 2p + k is map k x maps + m of pair p.
    """

    def __init__(self, stage: FineStage):
        super().__init__()
        self.memory_frames = stage.memory_frames
        look, merge, fill = (layer.conv for layer in (stage.look, stage.merge, stage.fill))
        maps, kinds, frames, reach = look.weight.shape
        outputs, hints, width = fill.out_channels, merge.in_channels, fill.kernel_size[1]
        with torch.no_grad():
            seen = CONTRAST_SCALE * look.weight[:, -1:]
            if kinds == 2:  # levels too, and power in place of contrast
                seen = torch.cat([LEVEL_SCALE * look.weight[:, :1] - seen, seen], dim=1)
            self.look = _empty_conv(kinds * frames + hints, 2 * maps, (1, reach + 1), stride=2, padding=reach // 2)
            self.fill = _empty_conv(2 * maps, 2 * outputs, (1, 3), padding=1)
            for side in range(2):  # of the pair
                rows = slice(side * maps, (side + 1) * maps)
                for tap in range(frames):
                    columns = slice(kinds * tap, kinds * (tap + 1))
                    self.look.weight[rows, columns, 0, side : side + reach] = seen[:, :, tap]
                self.look.weight[rows, kinds * frames :, 0, side + reach // 2] = merge.weight[:, :, 0, 0]
                self.look.bias[rows] = look.bias + merge.bias
                for tap in range(width):
                    pair, other = divmod(side + tap - width // 2, 2)
                    columns = slice(other * maps, (other + 1) * maps)
                    self.fill.weight[side::2, columns, 0, pair + 1] = fill.weight[:, :, 0, tap]
            self.fill.bias.copy_(fill.bias.repeat_interleave(2))

    def forward(self, seen: Tensor, hints: Tensor) -> Tensor:
        taps = [seen[:, :, start : start - self.memory_frames or None] for start in range(self.memory_frames + 1)]
        hidden = functional.leaky_relu(self.look(torch.cat([*taps, hints], dim=1)), SLOPE)
        return subpixel(self.fill(hidden), 2)


def _empty_conv(in_maps: int, out_maps: int, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> nn.Conv2d:
    conv = nn.Conv2d(in_maps, out_maps, kernel, stride=(1, stride), padding=(0, padding))
    conv.weight.zero_()
    return conv
