"""The global minimum of a polynomial in two variables, for many polynomials at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic.ops import _circle
from isotypic.ops.gram import check_form

RADII, ANGLES, STEPS = 64, 96, 60
LOCAL, LOWEST = 16, 32
"""Starts of Newton's method: local minima of the grid, and its lowest points, which may lie in basins too narrow for the grid."""


class Minimum(NamedTuple):
    """What :func:`minimize` finds."""

    value: Tensor
    """(...): the least value found, -inf where status is 1. Its gradient in the parts is that of the polynomial at the point."""
    point: Tensor
    """(..., 2): where it is taken; where status is 1, a direction in which the polynomial falls without end."""
    status: Tensor
    """(...), int64: 0 bounded below, since the part of highest degree is positive on the circle; 1 not bounded below; 2 neither is
    known."""


def minimize(parts: Sequence[Tensor]) -> Minimum:
    """The global minimum of polynomials f(x, y) = f_0 + f_1(x, y) + ... + f_D(x, y), given by their homogeneous parts.

    All minimisers lie in a disc that the sizes of the parts on the circle bound (Cauchy's bound). The lowest points of a polar grid of
    6,144 points of it, and its local minima, start Newton's method with the Hessian made positive, and the least value is taken. That is
    exact up to rounding whenever the basin of the global minimiser holds one of these points; it is no proof.

    Args:
        parts: D + 1 tensors, part k of shape (..., k + 1), the coefficients of x^i y^(k-i); float32 or float64, D even and at least 2.

    Returns: a :class:`Minimum`, (value, point, status).
    Raises TypeError for other dtypes, ValueError for wrong shapes and odd D.

    >>> f = minimize([torch.tensor([5.0]), torch.tensor([-4.0, -2.0]), torch.tensor([1.0, 0.0, 1.0])])  # (x - 1)^2 + (y - 2)^2
    >>> f.value.abs().round(decimals=4), f.point.round(decimals=4)
    (tensor(0.), tensor([1., 2.]))
    """
    degree = len(parts) - 1
    if degree < 2 or degree % 2:
        raise ValueError(f"minimize: parts must be the homogeneous parts of degree 0 to D, D even and at least 2, got {len(parts)} of them")
    for k, part in enumerate(parts):
        if check_form("minimize", f"parts[{k}]", part, even=False) != k or part.dtype != parts[0].dtype:
            raise ValueError(
                f"minimize: parts[{k}] must have shape (..., {k + 1}) and the dtype of parts[0], {parts[0].dtype}, got "
                f"{tuple(part.shape)}, {part.dtype}"
            )
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    flat = [part.expand(*lead, k + 1).reshape(-1, k + 1) for k, part in enumerate(parts)]
    if not all(bool(part.isfinite().all()) for part in flat):
        raise ValueError("minimize: parts must be finite")
    point, status = _search([part.detach().double() for part in flat])
    point = point.to(flat[0].dtype)
    powers_x, powers_y = (_powers(point[:, i], degree)[0] for i in range(2))
    terms = [(part * powers_x[:, : k + 1] * powers_y[:, : k + 1].flip(-1)).sum(-1) for k, part in enumerate(flat)]
    value = torch.stack(terms).sum(0)
    value = torch.where(status == 1, value.new_tensor(-torch.inf), value)
    return Minimum(value.reshape(lead), point.reshape(*lead, 2), status.reshape(lead))


def _powers(t: Tensor, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """t^k for k up to the degree, with first and second derivatives."""
    k = torch.arange(degree + 1, dtype=t.dtype, device=t.device)
    power = torch.cat([torch.ones_like(t)[..., None], t[..., None].expand(*t.shape, degree).cumprod(-1)], -1)
    first = torch.cat([torch.zeros_like(power[..., :1]), power[..., :-1]], -1) * k
    second = torch.cat([torch.zeros_like(power[..., :1]), first[..., :-1]], -1) * k
    return power, first, second


def _search(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    degree, batch = len(parts) - 1, parts[0].shape[0]
    device = parts[0].device
    angles = np.pi * (2 * np.arange(ANGLES) + 1) / ANGLES
    # on_circle[k]: part k at the angles; f = sum_k r^k f_k(theta).
    on_circle = torch.stack([part @ torch.from_numpy(_circle.monomials(k, angles)).to(device).T for k, part in enumerate(parts)], -1)
    least, where = _least_on_circle(parts[-1])
    status = torch.where(least > 0, 0, torch.where(least < 0, 1, 2))
    sizes = on_circle.abs().amax(1)
    top = torch.where(least > 0, least, sizes[:, -1]).clamp_min(1e-300)
    # f(z) > f(0) outside the one positive root of m r^D = sum over 0 < k < D of M_k r^k (Cauchy), which lies below Fujiwara's bound.
    orders = torch.arange(degree, 0, -1, device=device, dtype=torch.float64)  # D - k for k = 0 .. D - 1
    ratios = (sizes[:, :-1] / top[:, None])[:, 1:]
    high = 2 * (ratios ** (1 / orders[1:])).amax(1)
    low = torch.zeros_like(high)
    for _ in range(40):
        middle = (low + high) / 2
        outside = (ratios * middle[:, None] ** -orders[1:]).sum(1) < 1
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    radius = torch.where(high > 0, high, torch.ones_like(high))

    # The grid: finer towards the centre, because the bound is generous.
    fractions = (torch.arange(1, RADII + 1, device=device, dtype=torch.float64) / RADII) ** 2
    radii = radius[:, None] * fractions
    scale = torch.stack([radii**k for k in range(degree + 1)], -1)  # (batch, radii, k)
    grid = torch.einsum("brk,bak->bra", scale, on_circle)
    inner = torch.cat([parts[0][:, :1, None].expand(-1, 1, ANGLES), grid[:, :-1]], 1)
    outer = torch.cat([grid[:, 1:], grid.new_full((batch, 1, ANGLES), torch.inf)], 1)
    is_minimum = (grid <= inner) & (grid <= outer) & (grid <= grid.roll(1, 2)) & (grid <= grid.roll(-1, 2))
    ranked = torch.where(is_minimum, grid, torch.inf).flatten(1)
    best = torch.cat([ranked.topk(LOCAL, largest=False).indices, grid.flatten(1).topk(LOWEST, largest=False).indices], 1)
    r, a = radii.gather(1, best // ANGLES), torch.from_numpy(angles).to(device)[best % ANGLES]
    starts = torch.cat([torch.stack([r * a.cos(), r * a.sin()], -1), torch.zeros(batch, 1, 2, dtype=torch.float64, device=device)], 1)

    found, values = _newton(_matrix(parts), starts, radius[:, None], degree)
    chosen = values.argmin(1)
    point = found[torch.arange(batch, device=device), chosen]
    direction = torch.stack([where.cos(), where.sin()], -1)
    return torch.where((status == 1)[:, None], direction, point), status


def _least_on_circle(form: Tensor) -> tuple[Tensor, Tensor]:
    """The least value of each form on fine samples of the circle, and the angle."""
    angles = np.pi * np.arange(16 * form.shape[-1]) / (16 * form.shape[-1])
    values = form @ torch.from_numpy(_circle.monomials(form.shape[-1] - 1, angles)).to(form.device).T
    least = values.min(1)
    return least.values, torch.from_numpy(angles).to(form.device)[least.indices]


def _matrix(parts: list[Tensor]) -> Tensor:
    """(batch, D + 1, D + 1): the coefficient of x^i y^j at [i, j]."""
    degree = len(parts) - 1
    matrix = parts[0].new_zeros(parts[0].shape[0], degree + 1, degree + 1)
    for k, part in enumerate(parts):
        index = torch.arange(k + 1, device=part.device)
        matrix[:, index, k - index] = part
    return matrix


def _newton(matrix: Tensor, point: Tensor, radius: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Descent by the Hessian with its eigenvalues made positive; a step that does not lower f is taken back and shortened."""

    def value(point: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        x, y = (_powers(point[..., i], degree) for i in range(2))
        return ((x[0] @ matrix) * y[0]).sum(-1), x, y

    current, x, y = value(point)
    damping = torch.ones_like(current)
    for _ in range(STEPS):
        by_x = [power @ matrix for power in x]
        gx, gy = (by_x[1] * y[0]).sum(-1), (by_x[0] * y[1]).sum(-1)
        a, b, c = (by_x[2] * y[0]).sum(-1), (by_x[1] * y[1]).sum(-1), (by_x[0] * y[2]).sum(-1)
        # |H|^-1 of [[a, b], [b, c]] with eigenvalues mean +- spread.
        mean, difference = (a + c) / 2, (a - c) / 2
        spread = torch.hypot(difference, b)
        floor = 1e-14 * (mean.abs() + spread) + 1e-300
        low, high = (mean - spread).abs().clamp_min(floor), (mean + spread).abs().clamp_min(floor)
        cosine = torch.where(spread > 0, difference / spread.clamp_min(1e-300), torch.ones_like(spread))
        sine = torch.where(spread > 0, b / spread.clamp_min(1e-300), torch.zeros_like(spread))
        half_sum, half_difference = (1 / high + 1 / low) / 2, (1 / high - 1 / low) / 2
        sx = (half_sum + half_difference * cosine) * gx + half_difference * sine * gy
        sy = half_difference * sine * gx + (half_sum - half_difference * cosine) * gy
        step = torch.stack([sx, sy], -1)
        length = step.norm(dim=-1)
        step = step * (damping * (radius / 8 / length.clamp_min(1e-300)).clamp_max(1))[..., None]
        trial = point - step
        trial_value, trial_x, trial_y = value(trial)
        better = trial_value <= current
        damping = torch.where(better, (2 * damping).clamp_max(1), damping / 4)
        point = torch.where(better[..., None], trial, point)
        current = torch.where(better, trial_value, current)
        x, y = (
            tuple(torch.where(better[..., None], t, o) for t, o in zip(new, old, strict=True)) for new, old in ((trial_x, x), (trial_y, y))
        )
    return point, current
