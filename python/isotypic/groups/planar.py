"""The finite rotation and reflection groups of the plane, C_N and D_N, and how they sit on the square lattice."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .group import Group
from .registry import get


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


LARGEST = 1024
"""The number of rotations up to which a group is made."""


class PlanarGroup:
    """C_N, the rotations of the plane by multiples of 2 pi / N, or D_N, these and N reflections.

    With R the rotation by 2 pi / N that takes the row axis towards the column axis, (row, column) -> (-column, row) for N = 4, and F the
    reflection (row, column) -> (row, -column), element k is R^k and element N + k is R^k F, for k = 0 ... N - 1. So C_4 and D_4 are p4
    and p4m of `isotypic.groups`, in the same order.

    The square lattice keeps a subgroup H only: where 4 divides N it is C_4 or D_4, for other even N C_2 or D_2 (of D_2 itself D_1 is used),
    for odd N C_1 or D_1. The group is the disjoint union of the q cosets H R^j, so that a regular field f of it is q regular fields of H,
    f_j[h] = f[h R^j].

    Args:
        name: "C1", "C2", ..., "C8", "C12", ..., or "D1", ..., "D8", "D12", ...

    Raises ValueError for other names, and for N above 1024, whose table of products would take more than 32 MB.

    >>> group = PlanarGroup("D8")
    >>> group.order, group.lattice, group.index
    (16, 'p4m', 2)
    """

    name: str
    rotations: int
    """N."""
    order: int
    """The number of elements, N or 2 N."""
    elements: NDArray[np.float64]
    """(order, 2, 2) float64: orthogonal matrices acting on (row, column), identity first."""
    multiply: NDArray[np.int64]
    """(order, order): the index of the product of elements a and b is multiply[a, b]."""
    inverse: NDArray[np.int64]
    """(order,)"""
    lattice: str
    """The subgroup H as a name of `isotypic.groups`: "p4" or "p4m", "p2" or "pmm", "p1" or "pm"."""
    index: int
    """q, the number of cosets H R^j: N / 4, N / 2 or N."""
    cosets: NDArray[np.int64]
    """(q, |H|): the index of h R^j at [j, h], with h in the order of `isotypic.groups.get(lattice)`."""
    between: NDArray[np.int64]
    """(q, q |H|): the index of R^-i h R^j at [i, (j, h)], the entry of a weight on G between the fields j and i of H."""

    def __init__(self, name: str) -> None:
        match = re.fullmatch(r"([CD])([1-9]\d*)", name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f'PlanarGroup: name must be "C" or "D" and a number of rotations ("C8", "D8", "C12", ...), got {name!r}')
        mirrored, count = match[1] == "D", int(match[2])
        if count > LARGEST:
            raise ValueError(f"PlanarGroup: name must be that of a group of at most {LARGEST} rotations, got {name!r}")
        self.name, self.rotations, self.order = name, count, count * (1 + mirrored)
        self.lattice = {1: ("p1", "pm"), 2: ("p2", "pmm"), 4: ("p4", "p4m")}[math.gcd(count, 4)][mirrored]
        if name == "D2":
            self.lattice = "pm"  # pmm lists its elements in another order, and a single coset is taken as it is
        self.index = self.order // get(self.lattice).order

        turns, flips = np.arange(self.order) % count, np.arange(self.order) // count
        # R^a F^f R^b F^g = R^(a +- b) F^(f + g), with the sign - when f = 1.
        turn = (turns[:, None] + np.where(flips, -1, 1)[:, None] * turns) % count
        self.multiply = _frozen(turn + count * (flips[:, None] ^ flips))
        self.inverse = _frozen(np.argmin(self.multiply, axis=1))
        angle = 2 * np.pi * turns / count
        cosine, sine = np.cos(angle), np.sin(angle)
        sign = 1 - 2 * flips
        self.elements = _frozen(np.stack([cosine, -sine * sign, sine, cosine * sign], axis=1).reshape(-1, 2, 2))
        inside = self.subgroup_indices(get(self.lattice))
        self.cosets = _frozen(self.multiply[inside, : self.index].T.copy())
        self.between = _frozen(self.multiply[self.inverse[: self.index, None], self.cosets.reshape(1, -1)])

    @property
    def dim(self) -> int:
        """2, the dimension of the plane."""
        return 2

    def subgroup_indices(self, subgroup: Group | PlanarGroup) -> NDArray[np.int64]:
        """The index in this group of every element of ``subgroup``, in the subgroup's order; (subgroup.order,).

        Raises ValueError when ``subgroup`` acts on another dimension or has an element outside this group.

        >>> from isotypic import groups
        >>> PlanarGroup("C8").subgroup_indices(groups.get("p2"))
        array([0, 4])
        """
        if subgroup.dim != 2:
            raise ValueError(f"subgroup of {self.name}: must act on dimension 2, got {subgroup.name} on dimension {subgroup.dim}")
        apart = np.abs(self.elements[:, None] - subgroup.elements).max(axis=(2, 3))
        if apart.min(axis=0).max() > 1e-9:
            raise ValueError(f"subgroup of {self.name}: {subgroup.name} has elements that are not in {self.name}")
        return np.asarray(apart.argmin(axis=0))

    def left_cosets(self, subgroup: Sequence[int]) -> NDArray[np.int64]:
        """The cosets a H of a subgroup given by the indices of its elements, one a row: (order / |H|, |H|), a the smallest index."""
        return self._cosets(self.multiply, subgroup)

    def right_cosets(self, subgroup: Sequence[int]) -> NDArray[np.int64]:
        """The cosets H a of a subgroup given by the indices of its elements, one a row: (order / |H|, |H|), a the smallest index."""
        return self._cosets(self.multiply.T, subgroup)

    def _cosets(self, product: NDArray[np.int64], subgroup: Sequence[int]) -> NDArray[np.int64]:
        cosets = product[:, np.asarray(subgroup, dtype=np.int64)]
        return np.asarray(cosets[cosets.min(axis=1) == np.arange(self.order)])

    def __repr__(self) -> str:
        return f"PlanarGroup({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanarGroup) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


@functools.lru_cache(maxsize=64)
def _named(name: str) -> PlanarGroup:
    return PlanarGroup(name)


def planar_group(group: str | PlanarGroup) -> PlanarGroup:
    """The group itself, or the one of that name."""
    return group if isinstance(group, PlanarGroup) else _named(group)


def planar_or_none(group: object) -> PlanarGroup | None:
    """The group of the plane that is meant; None for what is none, and for "C4" and "D4", which are groups of space by name."""
    if isinstance(group, str) and group not in ("C4", "D4"):
        try:
            return _named(group)
        except ValueError:
            return None
    return group if isinstance(group, PlanarGroup) else None
