"""How a group moves the taps of a kernel box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .group import Group, read_only


@dataclass(frozen=True, eq=False)
class Orbit:
    """The orbit {h t} of a tap t of a kernel box."""

    representative: tuple[int, ...]
    """t in doubled centred coordinates t2; its index in the box is (t2 + k - 1) / 2 on each axis."""
    stabiliser: tuple[int, ...]
    """Indices of the elements h with h t = t; the identity first."""
    taps: NDArray[np.int64]
    """(order, dim): the index in the kernel box of h t, for each element h."""

    @property
    def length(self) -> int:
        """The number of different taps, |G| / |stabiliser|."""
        return len(self.taps) // len(self.stabiliser)


def _sizes(group: Group, kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (kernel_size,) * group.dim if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sizes) != group.dim or any(size < 1 for size in sizes):
        raise ValueError(f"kernel_size must be {group.dim} positive integers for {group.name}, got {kernel_size!r}")
    return sizes


def _moved_taps(group: Group, sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Doubled positions (taps, n) of the whole box, the indices they move to (taps, order, n), which taps stay in the box under all."""
    axes = [np.arange(-size + 1, size, 2) for size in sizes]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, group.dim)
    moved = np.einsum("hij,tj->thi", group.elements, positions)
    doubled = moved + np.array(sizes) - 1
    # An invariant set is a union of orbits, so a tap belongs to the largest one exactly when its own orbit lies in the box.
    inside = ((doubled >= 0) & (doubled <= 2 * np.array(sizes) - 2) & (doubled % 2 == 0)).all(axis=(1, 2))
    if not inside.any():
        raise ValueError(
            f"kernel_size {sizes} holds no tap whose orbit under {group.name} stays in the box; the axes that {group.name} exchanges need "
            "equal sizes, on the hexagonal lattice odd ones"
        )
    return positions, doubled // 2, inside


def support(group: Group, kernel_size: int | Sequence[int]) -> NDArray[np.bool_]:
    """The largest G-invariant set of taps of a kernel box about its centre, as a mask of shape ``kernel_size``.

    Args:
        group: acts on the axes of the box.
        kernel_size: one integer, or one for each axis.

    Raises ValueError when the set is empty, or when ``kernel_size`` is not positive.

    >>> from isotypic import groups
    >>> groups.support(groups.get("p6"), 3).astype(int)
    array([[0, 1, 1],
           [1, 1, 1],
           [1, 1, 0]])
    """
    sizes = _sizes(group, kernel_size)
    return _moved_taps(group, sizes)[2].reshape(sizes)


def orbits(group: Group, kernel_size: int | Sequence[int]) -> tuple[Orbit, ...]:
    """The orbits of the largest G-invariant set of taps of a kernel box, ordered by their first tap in the box.

    Odd and even sizes are both centred: the action is about the middle of the box.

    Args:
        group, kernel_size: as for :func:`support`.

    Raises as :func:`support`.

    >>> from isotypic import groups
    >>> [orbit.length for orbit in groups.orbits(groups.get("p4m"), 3)]
    [4, 4, 1]
    """
    sizes = _sizes(group, kernel_size)
    positions, indices, inside = _moved_taps(group, sizes)
    found = []
    for tap in np.flatnonzero(inside):
        flat = np.ravel_multi_index(tuple(indices[tap].T), sizes)
        if flat.min() == tap:
            stabiliser = tuple(np.flatnonzero(flat == tap).tolist())
            found.append(Orbit(tuple(positions[tap].tolist()), stabiliser, read_only(indices[tap])))
    return tuple(found)
