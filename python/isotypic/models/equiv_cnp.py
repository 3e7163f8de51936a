"""The convolutional conditional neural process of a planar group."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic._symbolic_trace import leaf
from isotypic.models.conv_cnp import GridProcess
from isotypic.nn._arguments import resolve_group
from isotypic.nn.fields.conv import GroupConv2d, LiftConv2d
from isotypic.nn.fields.group_pool import GroupPool


@leaf
class GroupResNet(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), scalar fields: lifting, residual blocks of group convolutions, the mean over the group."""

    stride = 1

    def __init__(self, group: str, channels: int, num_blocks: int, kernel_size: int) -> None:
        super().__init__()
        self.lift = LiftConv2d(channels, channels, kernel_size, group, padding="same")
        self.blocks = nn.ModuleList(GroupConv2d(channels, channels, kernel_size, group, padding="same") for _ in range(num_blocks))
        self.pool = GroupPool("mean")

    def forward(self, x: Tensor) -> Tensor:
        fields = self.lift(x)
        for block in self.blocks:
            fields = fields + block(F.relu(fields))
        return self.pool(F.relu(fields))


class EquivCNP(GridProcess):
    """A ConvCNP whose network consists of group convolutions: equivariant under translations of the grid and the elements of `group`.

    Args:
        group: a planar group such as "p4" or "p4m", or a `groups.Group`; it acts on the two coordinates.
        channels: of the field on the grid, and number of regular fields inside.
        dim_x: 2.
        dim_y, points_per_unit, num_blocks, kernel_size, margin, dim_features, lengthscale, min_variance: as for `ConvCNP`, with a ResNet.

    G. Holderrieth, M. Hutchinson, Y. W. Teh, "Equivariant Learning of Stochastic Fields", 2021; M. Kawano et al., "Group Equivariant
    Conditional Neural Processes", 2021.

    >>> import torch
    >>> model = EquivCNP(dim_y=1, channels=4, points_per_unit=8, num_blocks=1, group="p4m")
    >>> model(torch.rand(3, 10, 2), torch.randn(3, 10, 1), torch.rand(3, 5, 2))[0].shape
    torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        dim_x: int = 2,
        dim_y: int | tuple[int, ...] = 1,
        channels: int = 16,
        points_per_unit: float = 32,
        num_blocks: int = 4,
        kernel_size: int = 5,
        *,
        group: str | finite_groups.Group = "p4m",
        margin: float | None = None,
        dim_features: int = 0,
        lengthscale: float | None = None,
        min_variance: float = 1e-4,
    ) -> None:
        if dim_x != 2:
            raise ValueError(f"EquivCNP: dim_x must be 2, the plane that the group acts on, got {dim_x}")
        resolved = resolve_group("EquivCNP", group, 2)
        if not all((element @ element.T == np.eye(2)).all() for element in resolved.elements):
            raise ValueError(f"EquivCNP: group must turn and mirror the square lattice of the grid, such as p4m, got {resolved.name}")
        super().__init__(
            dim_x,
            dim_y,
            channels,
            points_per_unit,
            dim_features,
            min_variance,
            margin=margin,
            lengthscale=lengthscale,
            isotropic=True,
            network=lambda: GroupResNet(resolved.key, channels, num_blocks, kernel_size),
            num_blocks=num_blocks,
            kernel_size=kernel_size,
        )
        self.group = resolved.key
