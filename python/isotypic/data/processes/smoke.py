"""Smoke that rises in a closed box around an obstacle, from a small solver: stable fluids, many simulations at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Smoke(NamedTuple):
    """density (B, size, size), rows from the top to the bottom of the box; obstacle (size, size) bool; source (B,), columns."""

    density: Tensor
    obstacle: Tensor
    source: Tensor


def _advect(fields: Tensor, velocity: Tensor, step: float) -> Tensor:
    """Semi-Lagrangian: (B, C, n, n) at where it came from, velocity (B, 2, n, n) in cells (row, column) to a unit of time."""
    size = fields.shape[-1]
    index = torch.arange(size, dtype=fields.dtype)
    row, column = index[:, None] - step * velocity[:, 0], index - step * velocity[:, 1]
    # grid_sample takes (column, row) in [-1, 1]; "border": nothing comes in through the walls.
    grid = torch.stack([column, row], -1) * (2 / (size - 1)) - 1
    return F.grid_sample(fields, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _project(velocity: Tensor, free: Tensor) -> Tensor:
    """The nearest velocity without divergence, by the even continuation of the box: no flow through the walls."""
    size = velocity.shape[-1]
    row, column = velocity[:, 0] * free, velocity[:, 1] * free
    # A velocity is odd across the walls that it is normal to, and even across the others.
    row = torch.cat([row, row.flip(1).neg()], 1)
    row = torch.cat([row, row.flip(2)], 2)
    column = torch.cat([column, column.flip(1)], 1)
    column = torch.cat([column, column.flip(2).neg()], 2)
    k_row = 2 * math.pi * torch.fft.fftfreq(2 * size, dtype=velocity.dtype)[:, None]
    k_column = 2 * math.pi * torch.fft.rfftfreq(2 * size, dtype=velocity.dtype)
    square = (k_row.square() + k_column.square()).clamp(min=1e-12)
    a, b = torch.fft.rfft2(row), torch.fft.rfft2(column)
    along = (k_row * a + k_column * b) / square
    parts = [torch.fft.irfft2(part, s=(2 * size, 2 * size))[:, :size, :size] for part in (a - k_row * along, b - k_column * along)]
    return torch.stack(parts, 1) * free


def smoke_fields(
    count: int, size: int = 128, steps: int = 60, *, obstacle: tuple[float, float, float] | None = None, seed: int = 0
) -> Smoke:
    """Densities of smoke after `steps` steps: it enters at the bottom at one of three places, with a random strength, and rises.

    On its way is a disc. The disc and the walls are what breaks the symmetry under translations: they are always at the same place.

    Args:
        count: number of simulations, B. size: cells on a side.
        obstacle: row, column and radius of the disc in cells; by default (0.45, 0.5, 0.14) of the size.
        seed: of the places, strengths and a little turbulence.

    Returns: `Smoke`, float32, the same for the same arguments on one machine.
    Raises ValueError for a size under 16 and counts that are not positive.

    J. Stam, "Stable Fluids", 1999.

    >>> smoke = smoke_fields(2, size=32, steps=5)
    >>> smoke.density.shape, bool((smoke.density[:, smoke.obstacle] == 0).all())
    (torch.Size([2, 32, 32]), True)
    """
    if size < 16 or count < 1 or steps < 1:
        raise ValueError(f"smoke_fields: size must be at least 16, count and steps positive, got {size}, {count}, {steps}")
    generator = torch.Generator().manual_seed(seed)
    centre_row, centre_column, radius = obstacle or (0.45 * size, 0.5 * size, 0.14 * size)
    index = torch.arange(size, dtype=torch.float32)
    solid = (index[:, None] - centre_row).square() + (index - centre_column).square() < radius**2
    free = (~solid).float()
    place = torch.randint(3, (count,), generator=generator)
    column = size * (0.25 + 0.25 * place) + 0.03 * size * torch.randn(count, generator=generator)
    strength = 0.75 + 0.5 * torch.rand(count, 1, 1, generator=generator)
    distance = (index[:, None] - 0.9 * size).square() + (index - column[:, None, None]).square()
    inflow = strength * (-distance / (2 * (0.05 * size) ** 2)).exp() * free
    # Turbulence at the start: smooth noise.
    noise = torch.randn(count, 2, 8, 8, generator=generator)
    velocity = 0.15 * F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)
    density = torch.zeros(count, 1, size, size)
    step, rise = 1.0, 0.1 * size / 128
    for _ in range(steps):
        density = (density + 0.2 * inflow[:, None]) * free
        velocity[:, 0] -= step * rise * density[:, 0]  # rows count downwards
        velocity = _project(velocity, free)
        both = _advect(torch.cat([density, velocity], 1), velocity, step)
        density, velocity = both[:, :1], both[:, 1:]
    return Smoke((density * free)[:, 0], solid, column)
