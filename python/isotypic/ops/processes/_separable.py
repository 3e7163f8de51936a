"""Set convolutions with long lengthscales, where windows reach over most of the grid: products of matrices of weights, axis by axis.

A Gaussian is a product over the axes, so that with the weights u of all axes but the last and w of the last

    E[c, i, j] = sum_n (y_nc u_ni) w_nj        D[n, c] = sum_i u_ni sum_j F[c, i, j] w_nj

are products of matrices, which torch has. Weights beyond the window are zero, as in the kernels, so that none is denormal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST = 1 << 22  # numbers in a temporary


def pays(t: Tensor, s: Tensor, shape: Sequence[int], window: float) -> bool:
    """Whether most of the grid lies in the window of a point, on the CPU: a product of matrices then does less than twice the work."""
    if t.device.type != "cpu" or t.shape[1] < 64:
        return False
    shares = [min(1.0, (2 * window * abs(scale) + 1) / nodes) for scale, nodes in zip(s.tolist(), shape, strict=True)]
    return all(math.isfinite(share) for share in shares) and math.prod(shares) > 0.5 and min(shape) > 1 and shape[-1] >= 16


def _axis(t: Tensor, s: Tensor, nodes: int, dtype: torch.dtype, window: float) -> tuple[Tensor, Tensor]:
    """r and weights, (..., nodes) for t (..., 1)."""
    # Divided while they are few: a pass over all pairs costs as much as a third of the product of matrices.
    r = (torch.arange(nodes, dtype=torch.float64) / s).to(dtype) - (t / s).to(dtype)
    weight = torch.addcmul(r.new_zeros(()), r, r, value=-0.5)
    if (nodes - 1) > window * abs(float(s)):  # all positions are on the grid
        weight = torch.threshold_(weight, -0.5 * window * window, -torch.inf)
    return r, weight.exp_()


class Separable:
    """Weights of all points: outer (B, N, I) over the axes before the last one, last (B, N, J), and r on each axis."""

    def __init__(self, t: Tensor, s: Tensor, shape: Sequence[int], dtype: torch.dtype, window: float) -> None:
        r, weights = zip(*(_axis(t[..., k, None], s[k], n, dtype, window) for k, n in enumerate(shape)), strict=True)
        self.r, self.last, self.shape = r, weights[-1], shape
        outer = weights[0] if len(weights) > 1 else torch.ones(*t.shape[:2], 1, dtype=dtype)
        for weight in weights[1:-1]:
            outer = (outer[..., None] * weight[..., None, :]).flatten(-2)
        self.outer = outer

    def encode(self, y: Tensor) -> Tensor:
        left = (y[..., None] * self.outer[:, :, None]).flatten(2)  # (B, N, C I)
        return torch.bmm(left.mT, self.last).view(y.shape[0], y.shape[2], *self.shape)

    def decode(self, grid: Tensor) -> Tensor:
        batch, channels = grid.shape[:2]
        rows = grid.reshape(batch, -1, self.shape[-1])
        step = max(_LARGEST // max(batch * rows.shape[1], 1), 16)
        parts = []
        for first in range(0, self.last.shape[1], step):
            here = slice(first, first + step)
            mixed = torch.bmm(self.last[:, here], rows.mT).view(batch, -1, channels, self.outer.shape[-1])
            parts.append((mixed @ self.outer[:, here, :, None])[..., 0])
        return torch.cat(parts, 1)

    def moments(self, y: Tensor, grid: Tensor, first: bool) -> Tensor:
        batch, channels = grid.shape[:2]
        rows = grid.reshape(batch, -1, self.shape[-1])
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
