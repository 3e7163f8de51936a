"""The plan of a group convolution: everything that depends on the group, the type of the input field and the kernel box alone.

In numpy, as plain arrays; ``csrc/ops/group_conv.hpp`` says what a kernel does with them. There are three field types:

- "regular": the input is a regular field; every tap t of the support is an orbit of its own, (h, h t) for all h in G.
- "scalar": the input is a scalar field (the lifting convolution); the orbits are those of G on the taps, with stabilisers H, and the
  columns of a representation rho shrink to its H-fixed vectors, of which Q_H is an orthonormal basis.
- "linear": the input is a regular field without spatial action (the 1x1 convolution of any group); the only tap is a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isotypic import groups

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Orbit:
    """The arrays of one ``TapOrbit``; all row orders are those of the header."""

    source: Integers
    """(length,): group channel of the input."""
    tap: Integers
    """(length, 3): index into the kernel box, on three axes."""
    inner: Integers
    """(irreps,): columns of V that are kept."""
    analysis: Floats
    """(sum of rows * inner, length)."""
    weight_index: Integers
    """(weight_length,): flat index into psi[o, c]."""
    weight_matrix: Floats
    """(sum of dim * inner, weight_length)."""
    adjoint_index: Integers
    """(weight_length,): where psi[o, c, u^-1](-t) lies; empty in a lift."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The arrays of a ``GroupConvPlan``."""

    fourier: str
    order: int
    sources: int
    weight_size: int
    irreps: Integers
    """(irreps, 2): dim and rows."""
    synthesis: Floats
    """(order, order): the Fourier matrix."""
    orbits: tuple[Orbit, ...]


def embed(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    """One to three spatial axes as three: (W) is (1, 1, W), (H, W) is (H, 1, W). Absent axes hold ``fill``."""
    if len(values) == 3:
        return values[0], values[1], values[2]
    if len(values) == 2:
        return values[0], fill, values[1]
    return (fill, fill, values[0]) if values else (fill, fill, fill)


def _three_axes(taps: Integers) -> Integers:
    """Taps (length, n) on the axes of ``embed``: (length, 3)."""
    columns = embed(tuple(range(1, taps.shape[1] + 1)), 0)  # 0 stands for an absent axis
    return np.pad(taps, ((0, 0), (1, 0)))[:, list(columns)]


def _fixed_vectors(matrices: Floats, stabiliser: tuple[int, ...]) -> Floats:
    """Q_H (dim, q): an orthonormal basis of the vectors that rho(h) fixes for all h in H."""
    projector = matrices[list(stabiliser)].mean(axis=0)
    basis: list[Floats] = []
    for column in projector.T:
        rest = column - sum((b * (b @ column) for b in basis), np.zeros_like(column))
        length = np.linalg.norm(rest)
        if length > 1e-8:
            basis.append(rest / length)
    return np.stack(basis, axis=1) if basis else np.zeros((len(projector), 0))


@lru_cache(maxsize=256)
def _blocks(key: str, stabiliser: tuple[int, ...]) -> tuple[Integers, Integers, Floats, Floats]:
    """What the orbits with one stabiliser H share: representatives of G / H, inner, analysis and weight_matrix."""
    group = groups.get(key)
    cosets = group.left_cosets(stabiliser)[:, 0]
    fixed = [_fixed_vectors(i.matrices, stabiliser) for i in group.irreps]
    reduced = [i.matrices[cosets] @ q for i, q in zip(group.irreps, fixed, strict=True)]  # (length, dim, q): rho(h) Q_H
    analysis = [len(stabiliser) * m[:, : i.rows].reshape(len(cosets), -1).T for i, m in zip(group.irreps, reduced, strict=True)]
    weight = [i.dim / group.order * m.reshape(len(cosets), -1).T for i, m in zip(group.irreps, reduced, strict=True)]
    return cosets, np.array([q.shape[1] for q in fixed]), np.concatenate(analysis), np.concatenate(weight)


def _orbit(group: groups.Group, field: str, taps: Integers, stabiliser: tuple[int, ...], kernel: tuple[int, ...]) -> Orbit:
    """The orbit of a tap; ``taps`` (order, n) is where each element moves it. Together with a group channel a tap is moved freely."""
    cosets, inner, analysis, weight = _blocks(group.key, stabiliser if field == "scalar" else (0,))

    def flat(element: Integers, tap: Integers) -> Integers:
        position = np.ravel_multi_index(tuple(tap.T), kernel) if kernel else 0
        return np.asarray(element * int(np.prod(kernel)) + position, dtype=np.int64)

    if field == "scalar":
        source, index, adjoint = np.zeros_like(cosets), flat(np.zeros_like(cosets), taps[cosets]), np.zeros(0, dtype=np.int64)
    else:
        opposite = np.array(kernel, dtype=np.int64) - 1 - taps[:1]
        source, index, adjoint = cosets, flat(cosets, taps), flat(group.inverse, np.broadcast_to(opposite, taps.shape))
    return Orbit(
        source=source,
        tap=_three_axes(taps[cosets]),
        inner=inner,
        analysis=analysis,
        weight_index=index,
        weight_matrix=weight,
        adjoint_index=adjoint,
    )


@lru_cache(maxsize=256)
def build(key: str, field: str, kernel: tuple[int, ...]) -> Plan:
    """The plan of a group (name or key), a field type and a kernel box; ``kernel`` is empty for "linear".

    Raises ValueError for an unknown group and for a box that holds no G-invariant set of taps.
    """
    group = groups.get(key)
    if field == "linear":
        orbits = [_orbit(group, field, np.zeros((group.order, 0), dtype=np.int64), (0,), ())]
    else:
        # In a regular field every tap of a spatial orbit is the representative of an orbit on (group channel, tap).
        orbits = []
        for orbit in groups.orbits(group, kernel):
            starts = [0] if field == "scalar" else group.left_cosets(orbit.stabiliser)[:, 0]
            orbits += [_orbit(group, field, orbit.taps[group.multiply[:, start]], orbit.stabiliser, kernel) for start in starts]
    return Plan(
        fourier=groups.fourier_program(group),
        order=group.order,
        sources=1 if field == "scalar" else group.order,
        weight_size=(1 if field == "scalar" else group.order) * int(np.prod(kernel)),
        irreps=np.array([[i.dim, i.rows] for i in group.irreps]),
        synthesis=np.asarray(group.fourier),
        orbits=tuple(orbits),
    )
