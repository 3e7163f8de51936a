"""The global minimum of a polynomial in two variables, for many polynomials at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic.ops.forms import circle
from isotypic.ops.forms.gram import check_form
from isotypic.ops.forms.max_det_gram import MAX_DEGREE, max_det_gram
from isotypic.sl2.bounds import circle_bounds
from isotypic.sl2.branch import EPS, TOLERANCE, lower_bounds

RADII, ANGLES, STEPS = 64, 96, 60
LOCAL, LOWEST = 16, 32
"""Starts of Newton's method: local minima of the grid, and its lowest points, which may lie in basins too narrow for the grid."""


class Minimum(NamedTuple):
    """What :func:`minimize` finds."""

    value: Tensor
    """(...): the least value found, -inf where status is 1, NaN where it is 3. Its gradient in the parts is that of the polynomial at the
    point, before both are rounded to the dtype of the parts."""
    point: Tensor
    """(..., 2): where it is taken; where status is 1, a direction in which the polynomial falls without end; NaN where it is 3."""
    status: Tensor
    """(...), int64:

    0 the minimum, to about 1e-8 of it and the rounding of its terms: no value is less than ``lower``;
    1 not bounded below, since the part of highest degree is negative somewhere, or f falls along an axis;
    2 neither is known: the value is the least that was found, a bound of the infimum from above. It is the minimum if there is one within
      reach of the grid. A polynomial that falls without end along a curve on which its highest part vanishes has this status too, and then
      the value means nothing;
    3 the coefficients are not finite;
    4 bounded below, and the value is the least that was found, but ``lower`` is further below it than that: it may be a local minimum."""
    lower: Tensor
    """(...): a lower bound of the polynomial, by branch and bound with a bound of all rounding errors; -inf where none is known (status 1
    and 2), NaN where status is 3. It has no gradient."""


def minimize(parts: Sequence[Tensor]) -> Minimum:
    """The global minimum of polynomials f(x, y) = f_0 + f_1(x, y) + ... + f_D(x, y), given by their homogeneous parts.

    On each of 96 rays, f is larger than f(0) beyond a radius that its coefficients bound. The lowest points of the grid of 64 points within
    each radius, and its local minima, start Newton's method with the Hessian made positive. Branch and bound over a square that holds all
    minimisers then finds what the grid missed, and proves the rest to lie above.

    Args:
        parts: D + 1 tensors, part k of shape (..., k + 1), the coefficients of x^i y^(k-i); float32 or float64, D even and at least 2.

    Returns: a :class:`Minimum`, (value, point, status, lower). Values are summed in float64 and rounded once.
    Raises TypeError for what is no sequence of tensors and for other dtypes, ValueError for wrong shapes and odd D.

    >>> f = minimize([torch.tensor([5.0]), torch.tensor([-4.0, -2.0]), torch.tensor([1.0, 0.0, 1.0])])  # (x - 1)^2 + (y - 2)^2
    >>> f.value.abs().round(decimals=4), f.point.round(decimals=4)
    (tensor(0.), tensor([1., 2.]))
    """
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(f"minimize: parts must be a sequence of tensors, got {type(parts).__name__}")
    degree = len(parts) - 1
    if degree < 2 or degree % 2:
        raise ValueError(f"minimize: parts must be the homogeneous parts of degree 0 to D, D even and at least 2, got {len(parts)} of them")
    for k, part in enumerate(parts):
        if check_form("minimize", f"parts[{k}]", part, even=False) != k or part.dtype != parts[0].dtype:
            raise ValueError(
                f"minimize: parts[{k}] must have shape (..., {k + 1}) and the dtype of parts[0], {parts[0].dtype}, got "
                f"{tuple(part.shape)}, {part.dtype}"
            )
    try:
        lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    except RuntimeError:
        raise ValueError(f"minimize: the batches of the parts must broadcast, got {[tuple(part.shape[:-1]) for part in parts]}") from None
    flat = [part.expand(*lead, k + 1).reshape(-1, k + 1).double() for k, part in enumerate(parts)]
    broken = torch.stack([~part.isfinite().all(-1) for part in flat]).any(0)
    flat = [torch.where(broken[:, None], 0.0, part) for part in flat]
    balanced, unit = _balance([part.detach() for part in flat])
    point, status, lower = _solve(balanced)
    point = point * unit
    value = torch.where(status == 1, -torch.inf, _evaluate(flat, point))
    value, point, lower = (torch.where(broken[:, None] if t.dim() > 1 else broken, torch.nan, t) for t in (value, point, lower))
    status, dtype = torch.where(broken, 3, status), parts[0].dtype
    bound = lower.to(dtype)
    bound = torch.where(bound.double() > lower, bound.nextafter(torch.full_like(bound, -torch.inf)), bound)  # rounded down
    return Minimum(value.to(dtype).reshape(lead), point.to(dtype).reshape(*lead, 2), status.reshape(lead), bound.reshape(lead))


def _balance(parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """f(a x, y) with about the same coefficients of x^D and y^D, and (a, 1); a is a power of two, so that this is exact."""
    top, degree = parts[-1], len(parts) - 1
    ratio = (top[:, 0].abs().log2() - top[:, -1].abs().log2()) / degree
    unit = ratio.nan_to_num(0.0, 0.0, 0.0).round().exp2()[:, None]
    scaled = [part * unit ** torch.arange(part.shape[-1], device=top.device) for part in parts]
    exact = torch.stack([(new.isfinite() & ((new == 0) == (old == 0))).all(-1) for new, old in zip(scaled, parts, strict=True)]).all(0)[
        :, None
    ]
    unit = torch.where(exact, unit, 1.0)
    return [torch.where(exact, new, part) for new, part in zip(scaled, parts, strict=True)], torch.cat([unit, torch.ones_like(unit)], 1)


def _evaluate(parts: list[Tensor], point: Tensor) -> Tensor:
    powers_x, powers_y = (_powers(point[:, i], len(parts) - 1)[0] for i in range(2))
    return torch.stack([(part * powers_x[:, : k + 1] * powers_y[:, : k + 1].flip(-1)).sum(-1) for k, part in enumerate(parts)]).sum(0)


def _solve(parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Points, status and lower bounds."""
    degree, matrix = len(parts) - 1, _matrix(parts)
    point, status, reach = _search(parts)
    value = _evaluate(parts, point)
    proven = _radius(parts)
    bounded = (status == 0) & proven.isfinite()
    lower, _, better = lower_bounds(matrix, torch.where(bounded, proven, torch.where(status == 1, torch.nan, reach)), value, point)
    improved = better.isfinite().all(-1)
    if bool(improved.any()):
        rows = improved.nonzero()[:, 0]
        polished, least = _newton(matrix[rows], better[rows, None], proven[rows, None].nan_to_num(1, 1, 1).clamp_min(1e-300), degree)
        lowered = least[:, 0] < value[rows]
        point[rows[lowered]] = polished[lowered, 0]
        value = _evaluate(parts, point)
    lower = torch.where(bounded, torch.minimum(lower, value), -torch.inf)
    constant = torch.stack([~part.any(-1) for part in parts[1:]]).all(0)
    lower = torch.where(constant, value, lower)
    rounding = 64 * (degree + 2) * EPS * _evaluate([part.abs() for part in parts], point.abs())
    apart = value - lower > 2 * TOLERANCE * value.abs() + rounding
    return point, torch.where((status == 0) & apart, 4, status), lower


def _radius(parts: list[Tensor]) -> Tensor:
    """(B,): outside of this radius f > f(0). With m the minimum of the part of degree D on the circle and M_k the sizes of the others,
    2 max_k (M_k / m)^(1 / (D - k)); infinite where m > 0 is not proven."""
    degree = len(parts) - 1
    least = circle_bounds(parts[-1])[0]
    ratios = torch.stack([(parts[k].abs().sum(-1) / least.clamp_min(1e-300)) ** (1 / (degree - k)) for k in range(1, degree)])
    radius = 2 * ratios.amax(0).clamp_min(1e-6)
    return torch.where(least > 0, radius, torch.inf)


def _powers(t: Tensor, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """t^k for k up to the degree, with first and second derivatives."""
    k = torch.arange(degree + 1, dtype=t.dtype, device=t.device)
    power = torch.cat([torch.ones_like(t)[..., None], t[..., None].expand(*t.shape, degree).cumprod(-1)], -1)
    first = torch.cat([torch.zeros_like(power[..., :1]), power[..., :-1]], -1) * k
    second = torch.cat([torch.zeros_like(power[..., :1]), first[..., :-1]], -1) * k
    return power, first, second


def _search(parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Points by Newton's method from a grid, status, and the radius of the grid."""
    degree, batch = len(parts) - 1, parts[0].shape[0]
    device = parts[0].device
    status, direction = _boundedness(parts)
    angles = np.pi * (2 * np.arange(ANGLES) + 1) / ANGLES
    # rays[b, a, k] r^k, summed over k, is f on the ray at angle a.
    rays = torch.stack([part @ torch.from_numpy(circle.monomials(k, angles)).to(device).T for k, part in enumerate(parts)], -1)
    reach = _reach(rays)
    radius = torch.where(reach.isfinite(), reach, 0.0).amax(1)
    radius = torch.where(radius > 0, radius, torch.ones_like(radius))
    reach = torch.where(reach.isfinite() & (reach > 0), reach, radius[:, None])

    # The grid (batch, radii, angles): finer towards the centre, because the bound is generous.
    fractions = (torch.arange(1, RADII + 1, device=device, dtype=torch.float64) / RADII) ** 2
    radii = reach[:, None] * fractions[:, None]
    grid = torch.zeros_like(radii)
    for k in range(degree, -1, -1):
        grid = grid * radii + rays[:, None, :, k]
    inner = torch.cat([parts[0][:, :1, None].expand(-1, 1, ANGLES), grid[:, :-1]], 1)
    outer = torch.cat([grid[:, 1:], grid.new_full((batch, 1, ANGLES), torch.inf)], 1)
    is_minimum = (grid <= inner) & (grid <= outer) & (grid <= grid.roll(1, 2)) & (grid <= grid.roll(-1, 2))
    ranked = torch.where(is_minimum, grid, torch.inf).flatten(1)
    best = torch.cat([ranked.topk(LOCAL, largest=False).indices, grid.flatten(1).topk(LOWEST, largest=False).indices], 1)
    r, a = radii.flatten(1).gather(1, best), torch.from_numpy(angles).to(device)[best % ANGLES]
    starts = torch.cat([torch.stack([r * a.cos(), r * a.sin()], -1), torch.zeros(batch, 1, 2, dtype=torch.float64, device=device)], 1)

    found, values = _newton(_matrix(parts), starts, radius[:, None], degree)
    chosen = values.argmin(1)
    point = found[torch.arange(batch, device=device), chosen]
    return torch.where((status == 1)[:, None], direction, point), status, radius


def _reach(rays: Tensor) -> Tensor:
    """Beyond this radius f > f(0) on each ray (batch, angles, D + 1): 0 where no coefficient is negative, infinite where the last one is.

    With N the last negative coefficient, sum over k > N of c_k r^(k - N) rises with r, and sum over negative c_k of |c_k| r^(k - N) falls:
    beyond the radius at which they meet the first is larger.
    """
    order = torch.arange(rays.shape[-1], device=rays.device)
    negative = (rays < 0) & (order > 0)
    last = (negative * order).amax(-1, keepdim=True)
    positive = (rays > 0) & (order > last)
    exponents = (order - last).to(rays.dtype)
    size = rays.abs().amax((1, 2), keepdim=True)
    coefficients = torch.where(positive | negative, rays, 0.0) / torch.where(size > 0, size, 1.0)
    low, high = torch.full_like(rays[..., 0], -300.0), torch.full_like(rays[..., 0], 300.0)  # exponents of 2
    for _ in range(24):
        middle = (low + high) / 2
        powers = (exponents * middle.unsqueeze(-1)).clamp(-1000, 1000).exp2()
        outside = (coefficients * powers).sum(-1) > 0
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    reach = torch.where(positive.any(-1), high.exp2(), torch.inf)
    return torch.where(negative.any(-1), reach, 0.0)


def _boundedness(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The status, and directions in which f falls without end where there are any."""
    top, degree = parts[-1], len(parts) - 1
    angles = np.pi * np.arange(16 * (degree + 1)) / (16 * (degree + 1))
    powers = torch.from_numpy(circle.monomials(degree, angles)).to(top.device)
    # Far more than rounding can make of zero.
    negative = (top @ powers.T + 1e-14 * (degree + 1) * (top.abs() @ powers.abs().T)).min(1)
    angle = torch.from_numpy(angles).to(top.device)[negative.indices]
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    constant = torch.stack([~part.any(-1) for part in parts[1:]]).all(0)
    status = torch.where(negative.values < 0, 1, torch.where(constant | (circle_bounds(top)[0] > 0), 0, 2))
    if degree <= MAX_DEGREE:  # the bounds are coarse, this is not
        solved = max_det_gram(top)
        x, y = (_powers(solved.witness[:, i], degree)[0] for i in range(2))
        terms = top * x * y.flip(-1)
        below = (solved.status == 1) & (terms.sum(-1) + 1e-14 * (degree + 1) * terms.abs().sum(-1) < 0) & (status != 1)
        direction = torch.where(below[:, None], solved.witness, direction)
        status = torch.where(below, 1, torch.where((solved.status == 0) & (status == 2), 0, status))
    # On the axes f is a polynomial in one variable, whose last coefficient decides.
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
        along = torch.stack([part[:, k if axis == 0 else 0] * sign**k for k, part in enumerate(parts)], -1)[:, 1:]
        last = ((along != 0) * torch.arange(1, degree + 1, device=top.device)).argmax(-1, keepdim=True)
        below = (along.gather(1, last).squeeze(1) < 0) & (status == 2)
        unit = direction.new_tensor([sign, 0.0] if axis == 0 else [0.0, sign])
        status, direction = torch.where(below, 1, status), torch.where(below[:, None], unit, direction)
    return status, direction


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
