"""Zeros outside the positions that a group leaves in the grid, between padded layers on the hexagonal lattice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._constants import Constants
from isotypic.nn._arguments import check_tensor, per_axis, resolve_group
from isotypic.nn.fields._group_key import Grouped


class FieldMask(Grouped, Constants):
    """Sets a field to zero outside the largest set of positions, about the centre of the grid, that the group maps to itself.

    In axial coordinates that is the hexagon inside the array. Layers with padding write into the two corners outside it, which elements of
    the group move out of the array; a mask after each such layer keeps a network exactly equivariant. On square grids nothing is outside.

    Args:
        size: spatial size of the field, one integer or one for each axis; odd for hexagonal groups.
        group: a name or a `groups.Group`.

    Input and output: (B, C, |G|, *spatial) or (B, C, *spatial)
    Raises ValueError for a size at whose centre the group has no position, and for inputs of another size.

    >>> import torch
    >>> FieldMask(3, "p6")(torch.ones(1, 1, 6, 3, 3))[0, 0, 0]
    tensor([[0., 1., 1.],
            [1., 1., 1.],
            [1., 1., 0.]])
    """

    mask: Tensor

    def __init__(self, size: int | Sequence[int], group: str | finite_groups.Group) -> None:
        super().__init__()
        resolved = resolve_group("FieldMask", group)
        self.size = per_axis("FieldMask", "size", size, resolved.dim, 1)
        self.group, self.group_name = resolved.key, resolved.name
        try:
            mask = finite_groups.support(resolved, self.size)
        except ValueError as error:
            raise ValueError(f"FieldMask: size {self.size} has no position at its centre for {resolved.name}; use odd sizes") from error
        self.add_constant("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("FieldMask", "input", x)
        if tuple(x.shape[-len(self.size) :]) != self.size:
            raise ValueError(f"FieldMask: input must have spatial size {self.size}, got shape {tuple(x.shape)}")
        return x.where(self.mask, x.new_zeros(()))

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.size}, group={self.group_name}"
