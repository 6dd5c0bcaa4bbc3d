"""The generator `compact` as ONNX Runtime likes it best: the same function with other weights and fewer passes.

Constant factors move into the weights before or behind them. The last stage works on pairs of bins: the kernels compute
16 maps at once and pad what is left over, so its 24 hidden maps cost as much as 32 and 6 outputs as much as 16; 48 and
12 for pairs of bins, at half the places, waste less. Earlier frames and hints enter the first convolution as further
input maps. As taps in time the hints would be multiplied by zeros for all frames but the newest; as a sum of two
convolutions everything would be stored three times.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from restorer.training.generator import (
    BINS,
    CONTRAST_SCALE,
    LEVEL_SCALE,
    SCALE,
    FineStage,
    Generator,
    bound,
)
from restorer.training.growth import lower_rank
from restorer.training.layers import SLOPE, remember, subpixel

BALANCE = 0.3  # the power; with that of compact 0.5, 0.3 and 0.5 differ little, and 1 rounds worse


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


class ArrangedGenerator(Generator):
    """A `Generator` to export: frames in and out are the same, states differ by constant factors."""

    def __init__(self, generator: Generator):
        super().__init__(generator.config)
        self.load_state_dict(generator.state_dict())
        with torch.no_grad():
            self.front.conv.weight[:, :2] *= SCALE
            self.front.conv.weight[:, 2] *= LEVEL_SCALE
            factors = torch.tensor([1.0] + [1 / SCALE] * (self.output_maps - 1))  # the mask has none
            self.out.conv.weight *= factors.repeat_interleave(8)[:, None, None, None]
            self.out.conv.bias *= factors.repeat_interleave(8)
            self.out_bias *= factors[:, None, None]
        if isinstance(self.fine, FineStage):
            self.fine = PairedFineStage(self.fine)

    def see(self, frames: Tensor) -> Tensor:
        x, power = bound(frames)
        return torch.cat([x, power.log()], dim=1)

    def compose(self, frames: Tensor, around: Tensor, maps: Tensor, fills: Tensor | None) -> Tensor:
        c = self.config
        x = frames[..., :BINS]
        mask, added, gains = maps.split([1, 2, len(c.copy_up_bins)], dim=1)
        level = around.pow(0.25)
        if fills is not None:
            mask = mask + fills[:, :1]
            gains = gains + level * fills[:, 1:]
        y = x * (1 + torch.tanh(mask)) + added
        y = self.add_copies(y, x / level, gains)
        return torch.cat([y, frames[..., BINS:]], dim=3)


class PairedFineStage(nn.Module):
    """A `FineStage` with its weights laid out for pairs of bins; what goes in and comes out is the same.

    Hidden map m of bin 2p + k is map k x maps + m of pair p. The memory holds logarithms as they are.
    """

    def __init__(self, stage: FineStage):
        super().__init__()
        self.memory_frames = stage.memory_frames
        self.hint = stage.hint
        look, merge, fill = (layer.conv for layer in (stage.look, stage.merge, stage.fill))
        maps, _, frames, reach = look.weight.shape
        outputs, hints, width = fill.out_channels, merge.in_channels, fill.kernel_size[1]
        with torch.no_grad():
            of_contrast = CONTRAST_SCALE * look.weight[:, 1]
            seen = torch.stack([LEVEL_SCALE * look.weight[:, 0] - of_contrast, of_contrast], dim=1)
            self.look = _empty_conv(2 * frames + hints, 2 * maps, (1, reach + 1), stride=2, padding=reach // 2)
            self.fill = _empty_conv(2 * maps, 2 * outputs, (1, 3), padding=1)
            for side in range(2):  # of the pair
                rows = slice(side * maps, (side + 1) * maps)
                for tap in range(frames):
                    self.look.weight[rows, 2 * tap : 2 * tap + 2, 0, side : side + reach] = seen[:, :, tap]
                self.look.weight[rows, 2 * frames :, 0, side + reach // 2] = merge.weight[:, :, 0, 0]
                self.look.bias[rows] = look.bias + merge.bias
                for tap in range(width):
                    pair, other = divmod(side + tap - width // 2, 2)
                    columns = slice(other * maps, (other + 1) * maps)
                    self.fill.weight[side::2, columns, 0, pair + 1] = fill.weight[:, :, 0, tap]
            self.fill.bias.copy_(fill.bias.repeat_interleave(2))

    def forward(
        self, power: Tensor, around: Tensor, bands: Tensor, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        seen, memory = remember(torch.cat([around, power], dim=1).log(), memory, self.memory_frames)
        length = seen.shape[2] - self.memory_frames
        taps = [seen[:, :, start : start + length] for start in range(self.memory_frames + 1)]
        hints = subpixel(self.hint(bands)[0], 8)
        hidden = functional.leaky_relu(self.look(torch.cat([*taps, hints], dim=1)), SLOPE)
        return subpixel(self.fill(hidden), 2), memory


def _empty_conv(in_maps: int, out_maps: int, kernel: tuple[int, int], stride: int = 1, padding: int = 0) -> nn.Conv2d:
    conv = nn.Conv2d(in_maps, out_maps, kernel, stride=(1, stride), padding=(0, padding))
    conv.weight.zero_()
    return conv
