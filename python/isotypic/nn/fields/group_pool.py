"""Pooling over the group: from regular fields to scalar fields, or to fields on the cosets of a subgroup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._constants import Constants
from isotypic._words import GroupPoolMode
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._arguments import check_tensor
from isotypic.nn.fields._group_key import Grouped, any_group, key_of, part_of


class GroupPool(Grouped, Constants):
    """The maximum or the mean of a regular field over the group, which is a scalar field: it turns with the input and nothing else.

    With a subgroup H it pools over each coset s H only, to a quotient field on G / H, where the group acts by (L_g f)[s H] = f[g^-1 s H].

    Args:
        mode: "max" or "mean".
        keepdim: keep an axis of length 1 in place of |G|.
        group: a name, a `groups.Group` or a `PlanarGroup`, with which fields of another order and images are refused. Without it the layer
            takes a third axis of any length for a group; (B, C, H, W), whose third axis may as well be rows, is refused.
        subgroup: a name, a `groups.Group` or a `PlanarGroup` with elements among those of `group`, for a quotient field.

    Input:  (B, C, |G|, *spatial)
    Output: (B, C, *spatial), (B, C, 1, *spatial) with `keepdim`, or (B, C, |G| / |H|, *spatial) with a subgroup
    Raises ValueError for an unknown mode, a subgroup that is none, and inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> import torch
    >>> GroupPool("max")(torch.zeros(2, 3, 8, 5, 5)).shape
    torch.Size([2, 3, 5, 5])
    >>> GroupPool("mean", group="p4m", subgroup="p4")(torch.zeros(2, 3, 8, 5, 5)).shape
    torch.Size([2, 3, 2, 5, 5])
    """

    cosets: Tensor | None

    def __init__(
        self,
        mode: GroupPoolMode = "max",
        keepdim: bool = False,
        group: str | finite_groups.Group | PlanarGroup | None = None,
        subgroup: str | finite_groups.Group | PlanarGroup | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("max", "mean"):
            raise ValueError(f'GroupPool: mode must be "max" or "mean", got {mode!r}')
        self.mode, self.keepdim, self.order, self.dim, self.names, self.group = mode, keepdim, 0, 0, "", ""
        cosets = None
        if group is not None:
            whole = any_group("GroupPool", group)
            self.group, self.order, self.dim, self.names = key_of(whole), whole.order, whole.dim, f", group={whole.name}"
            if subgroup is not None:
                part = any_group("GroupPool", subgroup)
                self.subgroup = key_of(part)
                self.names += f", subgroup={part.name}"
                inside = part_of("GroupPool", whole, part)
                cosets = np.sort(whole.left_cosets(inside))
        elif subgroup is not None:
            raise ValueError("GroupPool: subgroup needs its group")
        if cosets is None:
            self.cosets = None
        else:
            self.add_constant("cosets", cosets)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("GroupPool", "input", x)
        spatial = (0, self.dim) if self.dim else (0, 2, 3)
        if x.dim() - 3 not in spatial or (self.order and x.shape[2] != self.order):
            order = f"|G|={self.order}" if self.order else "|G|"
            hint = "" if self.order or x.dim() != 4 else '; images have no group, and fields on a line need GroupPool(..., group="...")'
            raise ValueError(f"GroupPool: input must have shape (B, C, {order}, *spatial), got {tuple(x.shape)}{hint}")
        axis, keepdim = 2, self.keepdim
        if self.cosets is not None:
            x = x.index_select(2, self.cosets.flatten()).unflatten(2, self.cosets.shape)
            axis, keepdim = 3, False
        # amax, not max: it shares the gradient among equal values, so that the gradient is equivariant too.
        return x.amax(axis, keepdim) if self.mode == "max" else x.mean(axis, keepdim)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.mode}, keepdim={self.keepdim}{self.names}"
