"""Band-limited functions on the plane and their samples on the taps of a kernel.

The functions are products of a circular harmonic and a Gaussian ring,

    b(y) = cos(m theta) or sin(m theta)   times   exp(-(|y| - radius)^2 / (2 width^2)),        y = |y| (cos theta, sin theta),

for rings at steps of one tap from the centre of the kernel and frequencies m up to a limit that grows with the circumference of the ring.
They are closed under rotations and reflections up to linear combinations: this is what makes filters steerable.

M. Weiler, F. A. Hamprecht and M. Storath, "Learning Steerable Filters for Rotation Equivariant CNNs", 2018; limits and widths as in
M. Weiler and G. Cesa, "General E(2)-Equivariant Steerable CNNs", 2019, and in the code published with it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isotypic.groups.planar import planar_group


class Ring(NamedTuple):
    radius: float
    width: float
    limit: int
    """The highest frequency on the ring."""


def rings(kernel_size: int) -> list[Ring]:
    """The rings of a kernel, from its centre (odd kernels: a single tap; even ones: four taps around it) to the middle of its sides.

    Frequencies go up to 2 r on the ring of radius r (2 r - 1 when r is even), about what the taps near the ring can tell apart, and up to 2
    on the outermost ring, which sees a part of its taps only.

    >>> [(ring.radius, ring.limit) for ring in rings(7)]
    [(0.0, 0), (1.0, 2), (2.0, 3), (3.0, 2)]
    """
    outermost = (kernel_size - 1) / 2
    found = []
    for radius in np.arange(outermost % 1, outermost + 0.5):
        last = radius == outermost
        limit = int(2 * radius) - int(radius > 0 and radius % 2 == 0)
        # The centre is one point: a narrow Gaussian, which no other tap sees.
        width = 0.005 if radius == 0 else 0.4 if last else 0.6
        found.append(Ring(float(radius), width, min(limit, 2) if last else limit))
    return found


def evaluate(points: NDArray[np.float64], kernel_size: int) -> NDArray[np.float64]:
    """The basis functions of a kernel at points (..., 2), counted in taps from its centre: (functions, ...)."""
    z = points[..., 0] + 1j * points[..., 1]
    radius = np.abs(z)
    direction = np.divide(z, radius, out=np.zeros_like(z), where=radius > 1e-9)  # harmonics with m > 0 are 0 at the centre
    values = []
    for ring in rings(kernel_size):
        profile = np.exp(-((radius - ring.radius) ** 2) / (2 * ring.width**2))
        values.append(profile)
        for frequency in range(1, ring.limit + 1):
            harmonic = direction**frequency
            values += [profile * harmonic.real, profile * harmonic.imag]
    return np.stack(values)


@functools.lru_cache(maxsize=64)
def samples(group: str, kernel_size: int) -> NDArray[np.float64]:
    """b_n(R^-j t) for every turn R^j, j < q, that the lattice lacks, every function b_n and every tap t: (q, functions, k, k).

    The functions are scaled to have norm 1 in the mean over j.

    >>> samples("C8", 3).shape
    (2, 6, 3, 3)
    """
    planar = planar_group(group)
    line = np.arange(kernel_size) - (kernel_size - 1) / 2
    taps = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    # R^-j t as a row vector is t^T R^j.
    moved = np.stack([taps @ planar.elements[j] for j in range(planar.index)])
    values = evaluate(moved, kernel_size).swapaxes(0, 1)
    norm = np.sqrt((values**2).sum(axis=(2, 3)).mean(axis=0))
    values = np.ascontiguousarray(values / norm[:, None, None])
    values.setflags(write=False)
    return values
