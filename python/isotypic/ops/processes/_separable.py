"""Set convolutions with long lengthscales, where windows reach over much of the grid: few nodes hold all of what such a field can be.

A Gaussian is a product over the axes, and on an axis of n nodes at g, as a function of g, an entire one: a polynomial through its values at
r Chebyshev points c_a is that function to the rounding of the dtype, with an r that depends on the extent of the axis in lengthscales alone
(22 for four of them in float32, 50 for twelve). With the n x r matrices L_a(g) of these polynomials

    E[c, i, j] = sum_ab L_a(i) L_b(j) sum_n y_nc psi(c_a - t_n) psi(c_b - t_n)
    D[n, c] = sum_ab psi(c_a - t_n) psi(c_b - t_n) sum_ij L_a(i) L_b(j) F[c, i, j]

so that points meet r^d nodes in place of n^d, in products of matrices, which torch has. The same holds for r_k psi and r_k^2 psi. Where an
axis has no more nodes than r, they are taken themselves. What is small beside the rest of a field is right to the rounding of the rest;
where that is not enough all nodes are met. Weights beyond the window are zero, as in the kernels, so that none is denormal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LARGEST = 1 << 22  # numbers in a temporary
_LEAST = 1 << 23  # multiply-adds of windows: a quarter of a millisecond
_ERROR = {torch.float32: 1e-8, torch.float64: 1e-16}


@functools.lru_cache(maxsize=256)
def rank(half: float, error: float) -> int:
    """How many Chebyshev points on [-half, half] give x^2 exp(-(x - t)^2 / 2), |t| <= half, up to `error`.

    For f bounded by M on the ellipse with foci +-1 and axes that sum to rho, interpolation in r points errs by at most
    4 M rho^(1 - r) / (rho - 1); there |x - t| <= half (rho + 1 / rho) / 2 + half, and the imaginary part is at most
    half (rho - 1 / rho) / 2.
    """
    rho = np.geomspace(1.01, 64.0, 256)
    height = half * (rho - 1 / rho) / 2
    reach = np.maximum(half * (rho + 1 / rho) / 2 + half, 1.0)
    bound = np.log(4 * reach**2 / (rho - 1)) + height**2 / 2
    return 1 + max(math.ceil(float(np.min((bound - math.log(error)) / np.log(rho)))), 1)


@functools.lru_cache(maxsize=64)
def _polynomials(nodes: int, points: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Chebyshev points on the axis 0 .. nodes - 1 (float64), and the values at its nodes of the polynomials that are 1 at one of them."""
    degrees = torch.arange(points, dtype=torch.float64)
    angles = (degrees + 0.5) * (math.pi / points)
    at = torch.linspace(-1, 1, nodes, dtype=torch.float64).arccos()
    weights = torch.cos(angles[:, None] * degrees) * (2 / points)
    weights[:, 0] /= 2
    return (angles.cos() + 1) * ((nodes - 1) / 2), (torch.cos(at[:, None] * degrees) @ weights.mT).to(dtype)


def _few(scales: Sequence[float], shape: Sequence[int], dtype: torch.dtype) -> list[int]:
    """Of each axis, how many Chebyshev points there are, or nodes where these are fewer."""
    halves = [(nodes - 1) / (2 * scale) for scale, nodes in zip(scales, shape, strict=True)]
    # Halves are rounded up to a quarter, so that a lengthscale in training doesn't make tables in each step.
    return [min(rank(math.ceil(4 * half) / 4, _ERROR[dtype]), nodes) for half, nodes in zip(halves, shape, strict=True)]


def met(
    t: Tensor, s: Tensor, shape: Sequence[int], channels: int, dtype: torch.dtype, window: float, *, relative: bool
) -> list[int] | None:
    """How many nodes of each axis points are to meet on the CPU, or None where windows are faster.

    Args:
        relative: each number of the result is to be right to its own size, as a density is that something is divided by, and not to the
            size of the largest. Polynomials then serve where no point is further than 3.7 lengthscales from any node.
    """
    scales = [abs(scale) for scale in s.tolist()]
    if t.device.type != "cpu" or not all(0 < scale < math.inf for scale in scales):
        return None
    extents = [(nodes - 1) / scale for scale, nodes in zip(scales, shape, strict=True)]
    windows = [min(2 * window * scale + 1, nodes) for scale, nodes in zip(scales, shape, strict=True)]
    if t.shape[0] * t.shape[1] * channels * math.prod(windows) < _LEAST or max(extents) > 4 * window:
        return None
    if not relative or math.hypot(*extents) < 3.7:
        few = _few(scales, shape, dtype)
        # Measured: a multiply-add takes three times as long here as in a window, an exponential as long as six of them.
        return few if channels * math.prod(windows) > 3 * (channels * math.prod(few) + 6 * sum(few)) else None
    return list(shape) if math.prod(windows) > 0.5 * math.prod(shape) and shape[-1] >= 16 else None


class Separable:
    """Weights of all points: outer (B, N, I) over the axes before the last one, last (B, N, J), and r on each axis."""

    def __init__(self, t: Tensor, s: Tensor, shape: Sequence[int], few: Sequence[int], dtype: torch.dtype, window: float) -> None:
        self.shape = tuple(few)
        self.polynomials: list[Tensor | None] = []
        self.r: list[Tensor] = []
        weights = []
        for axis, (nodes, points) in enumerate(zip(shape, few, strict=True)):
            at, polynomials = _polynomials(nodes, points, dtype) if points < nodes else (torch.arange(nodes, dtype=torch.float64), None)
            self.polynomials.append(polynomials)
            # Divided while they are few: a pass over all pairs costs as much as a third of the product of matrices.
            r = (at / s[axis]).to(dtype) - (t[..., axis, None] / s[axis]).to(dtype)
            weight = torch.addcmul(r.new_zeros(()), r, r, value=-0.5)
            if (nodes - 1) > window * abs(float(s[axis])):  # all positions are on the grid
                weight = torch.threshold_(weight, -0.5 * window * window, -torch.inf)
            self.r.append(r)
            weights.append(weight.exp_())
        self.last = weights[-1]
        outer = weights[0] if len(weights) > 1 else torch.ones(*t.shape[:2], 1, dtype=dtype)
        for weight in weights[1:-1]:
            outer = (outer[..., None] * weight[..., None, :]).flatten(-2)
        self.outer = outer

    def encode(self, y: Tensor) -> Tensor:
        left = (y[..., None] * self.outer[:, :, None]).flatten(2)  # (B, N, C I)
        return self._unfold(torch.bmm(left.mT, self.last).view(y.shape[0], y.shape[2], *self.shape))

    def decode(self, grid: Tensor) -> Tensor:
        rows = self._fold(grid).flatten(1, -2)
        batch, channels = grid.shape[:2]
        step = max(_LARGEST // max(batch * rows.shape[1], 1), 16)
        parts = []
        for first in range(0, self.last.shape[1], step):
            here = slice(first, first + step)
            mixed = torch.bmm(self.last[:, here], rows.mT).view(batch, -1, channels, self.outer.shape[-1])
            parts.append((mixed @ self.outer[:, here, :, None])[..., 0])
        return torch.cat(parts, 1)

    def moments(self, y: Tensor, grid: Tensor, first: bool) -> Tensor:
        rows = self._fold(grid).flatten(1, -2)
        batch, channels = grid.shape[:2]
        columns: list[Tensor] = []
        dim, step = len(self.shape), max(_LARGEST // max(batch * rows.shape[1], 1), 16)
        for start in range(0, self.last.shape[1], step):
            here = slice(start, start + step)
            outer, last, values = self.outer[:, here], self.last[:, here], y[:, here]
            mixed = torch.bmm(last, rows.mT).view(batch, -1, channels, outer.shape[-1])
            by_y = (mixed @ outer[..., None])[..., 0]
            by_outer = (values[:, :, None] @ mixed)[:, :, 0] * outer  # (B, n, I)
            left = (values[..., None] * outer[:, :, None]).flatten(2)
            by_last = torch.bmm(left, rows).mul_(last)
            sums = []
            axes = by_outer.unflatten(-1, tuple(self.shape[:-1]) or (1,))
            for axis in range(dim - 1):
                others = tuple(2 + k for k in range(dim - 1) if k != axis)
                sums.append((axes.sum(others) if others else axes, self.r[axis][:, here]))
            sums.append((by_last, self.r[-1][:, here]))
            firsts = [(weight * r).sum(-1) for weight, r in sums]
            seconds = [(weight * r * r).sum(-1) for weight, r in sums]
            rest = torch.stack(firsts + seconds, -1)
            columns.append(torch.cat([by_y, rest], -1) if first else rest)
        return torch.cat(columns, 1).double()

    def _unfold(self, points: Tensor) -> Tensor:
        """From the values at the points that are met to those at all nodes."""
        for axis, polynomials in enumerate(self.polynomials, 2):
            if polynomials is not None:
                points = torch.tensordot(points, polynomials, ([axis], [1])).movedim(-1, axis)
        return points.contiguous()

    def _fold(self, grid: Tensor) -> Tensor:
        """The adjoint: what a sum over all nodes weights the values at the points with."""
        for axis, polynomials in reversed(list(enumerate(self.polynomials, 2))):
            if polynomials is not None:
                grid = torch.tensordot(grid, polynomials, ([axis], [0])).movedim(-1, axis)
        return grid.contiguous()
