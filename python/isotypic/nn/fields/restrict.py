"""Restriction of a regular field to a subgroup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._constants import Constants
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._arguments import check_tensor
from isotypic.nn.fields._group_key import Grouped, any_group, key_of, part_of


class Restrict(Grouped, Constants):
    """A regular field of G seen as [G:H] regular fields of a subgroup H: a permutation of its entries, with nothing lost.

    With G the disjoint union of the cosets H t_j,        out[(c, j), h] = f[c, h t_j].

    Layers after it need to be equivariant under H only, such as in the deeper layers of a network whose data is symmetric only locally.

    Args:
        group, subgroup: names, `groups.Group`s or `PlanarGroup`s with the elements of `subgroup` among those of `group`.

    Input:  (B, C, |G|, *spatial)
    Output: (B, C |G| / |H|, |H|, *spatial)
    Raises ValueError for a subgroup that is none, and for inputs of another shape.

    M. Weiler and G. Cesa, "General E(2)-Equivariant Steerable CNNs", 2019.

    >>> import torch
    >>> Restrict("p4m", "p4")(torch.zeros(2, 3, 8, 5, 5)).shape
    torch.Size([2, 6, 4, 5, 5])
    """

    entries: Tensor

    def __init__(self, group: str | finite_groups.Group | PlanarGroup, subgroup: str | finite_groups.Group | PlanarGroup) -> None:
        super().__init__()
        whole, part = any_group("Restrict", group), any_group("Restrict", subgroup)
        inside = part_of("Restrict", whole, part)
        self.group, self.subgroup, self.order, self.suborder = key_of(whole), key_of(part), whole.order, part.order
        self.names = f"{whole.name}, {part.name}"
        self.add_constant("entries", np.array(whole.right_cosets(inside)).flatten())

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("Restrict", "input", x)
        if x.dim() < 3 or x.shape[2] != self.order:
            raise ValueError(f"Restrict: input must have shape (B, C, |G|={self.order}, *spatial), got {tuple(x.shape)}")
        return x.index_select(2, self.entries).unflatten(2, (-1, self.suborder)).flatten(1, 2)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return self.names
