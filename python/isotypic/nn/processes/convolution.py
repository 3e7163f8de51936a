"""Convolutional networks on the grid of a set convolution. None of them changes the size of the grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic._symbolic_trace import leaf

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def channels_last(x: Tensor) -> Tensor:
    """x with the channels of a node beside each other in memory, where a gradient in float32 will be taken on a CPU.

    torch's gradient of a depthwise convolution takes two to three times as long otherwise; without a gradient nothing is gained, and in
    other dtypes there is a loss.
    """
    if x.is_cpu and x.dtype == torch.float32 and x.requires_grad and x.dim() > 3:
        return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    return x


class SeparableBlock(nn.Module):
    """x + W relu(depthwise convolution of relu(x)): a residual block of depthwise-separable convolutions."""

    def __init__(self, dim: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = CONV[dim](channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.pointwise = CONV[dim](channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.depthwise(F.relu(x))))


@leaf
class ResNet(nn.Sequential):
    """(B, C, *shape) -> (B, C, *shape)"""

    stride = 1

    def __init__(self, dim: int, channels: int, num_blocks: int, kernel_size: int) -> None:
        super().__init__(*(SeparableBlock(dim, channels, kernel_size) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(channels_last(x))


@leaf
class UNet(nn.Module):
    """(B, C, *shape) -> (B, C, *shape), the shape divisible by `stride`: a level for each block, half the resolution below the next."""

    def __init__(self, dim: int, channels: int, num_blocks: int, kernel_size: int) -> None:
        super().__init__()
        self.stride = 2 ** (num_blocks - 1)
        self.down = nn.ModuleList(SeparableBlock(dim, channels, kernel_size) for _ in range(num_blocks))
        self.up = nn.ModuleList(SeparableBlock(dim, channels, kernel_size) for _ in range(num_blocks - 1))
        self.join = nn.ModuleList(CONV[dim](2 * channels, channels, 1) for _ in range(num_blocks - 1))

    def forward(self, x: Tensor) -> Tensor:
        x, dim = channels_last(x), x.dim() - 2
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dim - 1]
        skips = []
        for level, block in enumerate(self.down):
            x = block(pool(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block, join in zip(reversed(self.up), reversed(self.join), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(join(torch.cat([skips.pop(), x], 1)))
        return x
