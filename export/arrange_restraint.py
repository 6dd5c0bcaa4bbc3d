"""The `Restraint` of a generator as ONNX Runtime likes it best: its layers as convolutions.

Whatever has 16 maps, or a multiple, stays in the layout of the processor's kernels from one convolution to the next. A
product of matrices with one row would be added up in another order than one with many; these kernels go through the
same sums for each frame, however many there are in a call.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from restorer.training.generator import Restraint
from restorer.training.layers import SLOPE, remember

BLOCK = 16  # maps that kernels compute at once


class ArrangedRestraint(nn.Module):
    """Shape: that of `Restraint` with a memory, but for the maps of the memory; latitude, if there is any, comes apart.

    Map `maps` of what is told is the loudness itself; those behind it are zeros.
    """

    def __init__(self, restraint: Restraint):
        super().__init__()
        r = restraint
        self.restraint = r
        self.maps = -(-(r.maps + 1) // BLOCK) * BLOCK
        self.tell = nn.Conv2d(r.STATISTICS, self.maps, (1, r.BANDS))
        self.windows = nn.Conv2d(self.maps, self.maps, (r.frames, 1), groups=self.maps, bias=False)
        self.judge = nn.Conv2d(self.maps, BLOCK, 1)
        with torch.no_grad():
            for layer in (self.tell, self.judge):
                layer.weight.zero_()
                layer.bias.zero_()
            self.tell.weight[: r.maps] = r.tell.weight.view(r.maps, r.STATISTICS, 1, r.BANDS)
            self.tell.bias[: r.maps] = r.tell.bias
            self.tell.bias[r.maps] = 1
            self.windows.weight.fill_(1 / r.frames)
            self.judge.weight[0, : r.maps, 0, 0] = r.judge.weight[0]
            self.judge.weight[1, r.maps] = 1
            self.judge.bias[1] = r.SILENCE
            if r.latitude is not None:
                self.judge.weight[2, : r.maps, 0, 0] = r.latitude.weight[0]

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """(maps, frames, bins) of the memory."""
        return self.maps, self.restraint.memory_frames, 1

    def forward(self, power: Tensor, memory: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        r = self.restraint
        seen, loudness = r.statistics(power)
        told, memory = remember(self.tell(seen) * loudness, memory, r.memory_frames)
        weighed = self.judge(functional.leaky_relu(self.windows(told), SLOPE))
        total, weight, other, _ = weighed.split([1, 1, 1, BLOCK - 3], dim=1)
        latitude = None if r.latitude is None else torch.sigmoid(other / weight + r.latitude.bias)
        return torch.sigmoid(total / weight + r.judge.bias), latitude, memory
