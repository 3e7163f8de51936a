"""Lower bounds of polynomials in two variables by branch and bound: boxes that cannot hold the minimum are left out, the others halved.

On a box of centre c and half-widths w, f(c + w s) for s in [-1, 1]^2 lies above the least of its Bernstein coefficients. They come from the
Taylor expansion at c, B = T S(c_x, w_x) P S(c_y, w_y)^T T^T with S_(jk) = C(k, j) c^(k - j) w^j, so that rounding is that of the terms in
the box and not in the whole domain; a bound of it is taken off.

J. Garloff, "Convergent bounds for the range of multivariate polynomials", 1985.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np
import torch
from torch import Tensor

ROUNDS, MOST_BOXES, CHUNK = 160, 4096, 1 << 22
TOLERANCE, EPS = 1e-8, 2.0**-52
"""What the bound may lie below the value, beside the size of the value."""


@lru_cache(maxsize=64)
def _bernstein(degree: int) -> np.ndarray:
    """(D + 1, D + 1): from the coefficients of s^j to the Bernstein coefficients on [-1, 1]."""
    # s = 2 t - 1; t^k has the Bernstein coefficients C(i, k) / C(D, k).
    to_unit = np.array([[comb(j, k) * 2.0**k * (-1.0) ** (j - k) if k <= j else 0.0 for j in range(degree + 1)] for k in range(degree + 1)])
    of_unit = np.array([[comb(i, k) / comb(degree, k) for k in range(degree + 1)] for i in range(degree + 1)])
    return of_unit @ to_unit


def _shift(centre: Tensor, width: Tensor, degree: int) -> Tensor:
    """(N, D + 1, D + 1): S."""
    device = centre.device
    j, k = torch.meshgrid(torch.arange(degree + 1, device=device), torch.arange(degree + 1, device=device), indexing="ij")
    binomial = torch.tensor([[comb(b, a) if a <= b else 0 for b in range(degree + 1)] for a in range(degree + 1)], dtype=centre.dtype)
    powers = centre[:, None] ** torch.arange(degree + 1, device=device)
    return binomial.to(device) * powers[:, (k - j).clamp_min(0)] * (width[:, None] ** torch.arange(degree + 1, device=device))[:, :, None]


def lower_bounds(matrix: Tensor, radius: Tensor, upper: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of f = sum of matrix[i, j] x^i y^j on the squares |x|, |y| <= radius.

    Args:
        matrix: (B, D + 1, D + 1) float64.
        radius: (B,), finite and positive; rows with others are left at -inf.
        upper: (B,), values of f.
        anchor: (B, 2), points on the squares that may be minimisers: near one f is convex, which bounds it at once.

    Returns: lower (B,) <= f on the square; the least value found (B,), at most upper, and its point (B, 2), NaN where upper is the least.
    """
    batch, degree = matrix.shape[0], matrix.shape[1] - 1
    lower, best = torch.full_like(upper, -torch.inf), upper.clone()
    point = upper.new_full((batch, 2), torch.nan)
    size = max(1, CHUNK // ((degree + 1) ** 2 * MOST_BOXES // 16))
    rows = (radius.isfinite() & (radius > 0) & upper.isfinite()).nonzero()[:, 0]
    for chosen in rows.split(size):
        low, value, where = _branch(matrix[chosen], radius[chosen], upper[chosen], anchor[chosen], degree)
        lower[chosen], best[chosen], point[chosen] = low, value, where
    return lower, best, point


def _convex(matrix: Tensor, radius: Tensor, point: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """A half-width (B,) of squares around the points on which f is convex, 0 where there is none, and a lower bound of f there.

    With f(point + r s) = t_00 + t_10 s_x + t_01 s_y + ..., H the least that its Hessian is for s in [-1, 1]^2, entry by entry, and m > 0
    the lesser eigenvalue of H: f >= t_00 - (t_10^2 + t_01^2) / (2 m). Boxes cannot show that next to a minimum, as they look there the
    same at every size; and where the minimum is 0 at the origin there is no rounding below which it would not matter.
    """
    batch, tries = len(matrix), 64
    widths = (radius[:, None] * 0.5 ** torch.arange(tries, device=matrix.device)).flatten()
    sx, sy = (_shift(point[:, i].repeat_interleave(tries), widths, degree) for i in range(2))
    every = matrix.repeat_interleave(tries, 0)
    taylor, size = sx @ every @ sy.mT, sx.abs() @ every.abs() @ sy.abs().mT
    rounding = 4 * (degree + 2) * EPS * size
    j = torch.arange(degree + 1, dtype=matrix.dtype, device=matrix.device)
    second, cross = j * (j - 1), j[:, None] * j
    most = taylor.abs() + rounding

    def spread(weight: Tensor, i: int, k: int) -> Tensor:
        """How far a second derivative goes from that at the point."""
        return (weight * most).sum((1, 2)) - weight[i, k] * taylor[:, i, k].abs()

    a = 2 * taylor[:, 2, 0] - spread(second[:, None].expand_as(cross), 2, 0)
    c = 2 * taylor[:, 0, 2] - spread(second.expand_as(cross), 0, 2)
    b = taylor[:, 1, 1].abs() + spread(cross, 1, 1)
    determinant = a * c - b * b * (1 + 8 * EPS)
    least = torch.where((a > 0) & (c > 0), determinant / (a + c), 0.0)  # at most the lesser eigenvalue
    slope = most[:, 1, 0].square() + most[:, 0, 1].square()
    bound = torch.where(least > 0, taylor[:, 0, 0] - rounding[:, 0, 0] - slope / least, -torch.inf).view(batch, tries)
    widest = (bound > -torch.inf).to(torch.int8).argmax(1, keepdim=True)
    bound = bound.gather(1, widest)[:, 0]
    return torch.where(bound > -torch.inf, widths.view(batch, tries).gather(1, widest)[:, 0], 0.0), bound


def _branch(matrix: Tensor, radius: Tensor, best: Tensor, anchor: Tensor, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    transform = torch.from_numpy(_bernstein(degree)).to(matrix)
    batch = len(matrix)
    best, point = best.clone(), best.new_full((batch, 2), torch.nan)
    lower = torch.full_like(best, torch.inf)
    row = torch.arange(batch, device=matrix.device)
    convex, floor_there = _convex(matrix, radius, anchor, degree)
    centre, width = torch.zeros_like(point), radius[:, None].expand(-1, 2).clone()
    for _ in range(ROUNDS):
        sx, sy = (_shift(centre[:, i], width[:, i], degree) for i in range(2))
        taylor = sx @ matrix[row] @ sy.mT
        size = sx.abs() @ matrix[row].abs() @ sy.abs().mT
        rounding, floor = (4 * (degree + 2) * EPS * s for s in (size.sum((1, 2)), size[:, 0, 0]))
        bound = (transform @ taylor @ transform.mT).amin((1, 2)) - rounding
        inside = ((centre - anchor[row]).abs() + width).amax(1) <= convex[row]
        bound = torch.where(inside, torch.maximum(bound, floor_there[row]), bound)
        here = taylor[:, 0, 0]
        least = torch.full_like(best, torch.inf).scatter_reduce_(0, row, here, "amin")
        improved = least < best
        best = torch.minimum(best, least)
        winner = improved[row] & (here == best[row])
        point[row[winner]] = centre[winner]
        enough = best - TOLERANCE * best.abs()
        # What rounding at the centre alone cannot tell from the minimum is as good as it.
        done = bound >= enough[row] - 4 * floor
        lower = lower.scatter_reduce_(0, row[done], torch.minimum(bound[done], best[row[done]]), "amin")
        open_ = ~done
        counts = torch.zeros(batch, dtype=torch.int64, device=row.device).scatter_add_(0, row[open_], torch.ones_like(row[open_]))
        given_up = counts > MOST_BOXES
        stop = open_ & given_up[row]
        lower = lower.scatter_reduce_(0, row[stop], bound[stop], "amin")
        open_ &= ~stop
        if not bool(open_.any()):
            return lower, best, point
        row, centre, width, taylor = row[open_], centre[open_], width[open_], taylor[open_]
        # Halve the side along which f varies more.
        along = torch.stack([taylor[:, 1:, :].abs().sum((1, 2)), taylor[:, :, 1:].abs().sum((1, 2))], 1).argmax(1)
        step = torch.zeros_like(width).scatter_(1, along[:, None], width.gather(1, along[:, None]) / 2)
        row, width = torch.cat([row, row]), torch.cat([width - step, width - step])
        centre = torch.cat([centre - step, centre + step])
    return lower.scatter_reduce_(0, row, torch.full_like(centre[:, 0], -torch.inf), "amin"), best, point
