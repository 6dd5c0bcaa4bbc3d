"""Layers that are convolutional in time, with their memory as explicit input and output.

Every tensor is (batch, maps, frames, bins). No layer pads in time: without a memory a layer's output is shorter
than its input (training, on excerpts); with one, the memory supplies what came before, the output is as long as
the input, and the new memory is returned (streaming). Both compute the same numbers. Outputs are aligned with
the NEWEST input frame, so lookahead is a delay line and nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of the leaky rectifier; a single-slope PReLU exports as this, and ONNX Runtime fuses it


def remember(x: Tensor, memory: Tensor | None, frames: int) -> tuple[Tensor, Tensor | None]:
    """Put the memory before x and cut the next memory, the newest `frames` frames, from the result."""
    if memory is None or frames == 0:
        return x, memory
    x = torch.cat([memory, x], dim=2)
    return x, x[:, :, x.shape[2] - frames :]


class TimeConv(nn.Module):
    """2-D convolution without padding in time.

    Shape: (B, in_maps, T + memory_frames, F) -> (B, out_maps, T, F'), where memory_frames = (kernel - 1) x dilation
    of the time axis and comes either from the input itself or from a memory.
    """

    def __init__(
        self,
        in_maps: int,
        out_maps: int,
        kernel: tuple[int, int],
        dilation: int = 1,
        stride: int = 1,
        padding: int | None = None,
        gain: float = 1.0,
    ):
        super().__init__()
        self.memory_frames = (kernel[0] - 1) * dilation
        self.conv = nn.Conv2d(
            in_maps,
            out_maps,
            kernel,
            stride=(1, stride),
            dilation=(dilation, 1),
            padding=(0, (kernel[1] - 1) // 2 if padding is None else padding),
        )
        he_initialise(self.conv, gain)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        x, memory = remember(x, memory, self.memory_frames)
        return self.conv(x), memory


class GatedConv(nn.Module):
    """Self-gating convolution, eq. 2: leaky-rectified maps times sigmoid gates, from two weight matrices in one.

    With `residual` the newest input frames are added to the output.
    """

    def __init__(self, maps: int, kernel: tuple[int, int], dilation: int = 1, residual: bool = True):
        super().__init__()
        self.layer = TimeConv(maps, 2 * maps, kernel, dilation, gain=0.7 if residual else 1.0)
        self.residual = residual
        self.memory_frames = self.layer.memory_frames

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        y, memory_out = self.layer(x, memory)
        value, gate = y.chunk(2, dim=1)
        y = functional.leaky_relu(value, SLOPE) * torch.sigmoid(gate)
        if self.residual:
            y = y + x[:, :, x.shape[2] - y.shape[2] :]
        return y, memory_out


class FrequencyAggregation(nn.Module):
    """Frequency aggregation filters (paper 3.1.3): each filter spans all maps and bins of one frame.

    With a `rank` all filters are sums of so many, which are computed first: a fraction of the weights.

    Shape: (B, in_maps, T, in_bins) -> (B, out_maps, T, out_bins); out_maps x out_bins filters.
    """

    def __init__(self, in_maps: int, in_bins: int, out_maps: int, out_bins: int, rank: int = 0):
        super().__init__()
        self.out_maps, self.out_bins = out_maps, out_bins
        self.narrow = nn.Linear(in_maps * in_bins, rank, bias=False) if rank else None
        self.dense = nn.Linear(rank or in_maps * in_bins, out_maps * out_bins)
        he_initialise(self.dense)
        if self.narrow is not None:
            nn.init.kaiming_normal_(self.narrow.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 1, 3).flatten(2)
        if self.narrow is not None:
            x = self.narrow(x)
        x = functional.leaky_relu(self.dense(x), SLOPE)
        return x.unflatten(2, (self.out_maps, self.out_bins)).permute(0, 2, 1, 3)


def subpixel(x: Tensor, factor: int) -> Tensor:
    """Turn groups of maps into neighbouring bins: (B, M x factor, T, F) -> (B, M, T, F x factor)."""
    x = x.unflatten(1, (x.shape[1] // factor, factor))
    return x.permute(0, 1, 3, 4, 2).flatten(3)


def he_initialise(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Draw weights as He et al. 2015 for leaky rectifiers, times `gain`; biases zero."""
    nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
    with torch.no_grad():
        layer.weight.mul_(gain)
        if layer.bias is not None:
            layer.bias.zero_()
