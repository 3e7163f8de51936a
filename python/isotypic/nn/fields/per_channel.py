"""A module of plain torch that treats every channel alike and by itself, on regular fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._arguments import check_tensor
from isotypic.nn.fields._group_key import Grouped, field_group


class PerChannel(Grouped):
    """A module that computes every channel alike and by itself, applied to every entry of a regular field: upsampling, padding, pooling.

    out[:, (c, s)] = module(f[:, (c, s)])

    It is equivariant when the module commutes with the motions of the grid: `nn.Upsample` and `nn.AdaptiveAvgPool2d` do under quarter turns
    and reflections, padding does where it is the same on all sides.

    Args:
        module: a module on (B, channels, *spatial) that gives as many channels and mixes none.
        group: a name, a `groups.Group` or a `PlanarGroup`.

    Input:  (B, C, |G|, *spatial)
    Output: (B, C, |G|, *other)
    Raises ValueError for inputs of another shape, TypeError for a module that is none.

    >>> import torch
    >>> PerChannel(nn.Upsample(scale_factor=2, mode="bilinear"), "p4")(torch.zeros(1, 3, 4, 5, 5)).shape
    torch.Size([1, 3, 4, 10, 10])
    """

    def __init__(self, module: nn.Module, group: str | finite_groups.Group | PlanarGroup = "p4") -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"PerChannel: module must be an nn.Module, got {type(module).__name__}")
        whole, self.group, self.group_name, self.order = field_group("PerChannel", group, None)
        self.dim, self.module = whole.dim, module

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("PerChannel", "input", x)
        if x.dim() != 3 + self.dim or x.shape[2] != self.order:
            raise ValueError(
                f"PerChannel: input must have shape (B, C, |G|={self.order}, *spatial) with {self.dim} spatial axes, got {tuple(x.shape)}"
            )
        return self.module(x.flatten(1, 2)).unflatten(1, (x.shape[1], self.order))

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"group={self.group_name}"
