"""Convolutional networks on the grid of a set convolution. None of them changes the size of the grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic._symbolic_trace import leaf

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class SeparableBlock(nn.Module):
    """x + W relu(depthwise convolution of relu(x)): a residual block of depthwise-separable convolutions."""

    def __init__(self, dim: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = CONV[dim](channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.pointwise = CONV[dim](channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.depthwise(F.relu(x))))


class ResNet(nn.Sequential):
    """(B, C, *shape) -> (B, C, *shape)"""

    stride = 1

    def __init__(self, dim: int, channels: int, num_blocks: int, kernel_size: int) -> None:
        super().__init__(*(SeparableBlock(dim, channels, kernel_size) for _ in range(num_blocks)))


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
        dim = x.dim() - 2
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
