"""The minimum-phase factor of a nonnegative trigonometric polynomial (Fejer and Riesz), in batches and with derivatives.

For R(s) = r_0 + 2 sum_k r_k cos(k s) >= 0 there is one h with h_0 > 0, R = |h_0 + h_1 e^(-is) + ... + h_n e^(-ins)|^2 and no zero outside
of the unit circle; in coefficients, sum_j h_j h_(j+k) = r_k. Newton's method for that equation (Wilson's) solves

    A(h) x = r + h * h,        (A(h) x)_k = sum_j h_j x_(j+k) + x_j h_(j+k),

in O(n^2) by Schur's reduction of the degree: with k = h_n / h_0 and h' = (h - k rev(h)) / (1 - k^2), of degree n - 1, x = y - k rev(y)
turns A(h) x = b into A(h') y = b / (1 - k^2), whose last entry gives y_n and leaves an equation of degree n - 1. |k| < 1 at every degree
says that h is minimum-phase. The derivatives, dh = A(h)^-1 dr and grad_r = A(h)^-T grad_h, take such steps too; they and the factor are
closed under differentiation, because A(h) x = A(x) h.

G. Wilson, "Factorization of the covariance generating function of a pure moving average process", 1969. C. Demeure, C. Mullis, "A
Newton-Raphson method for moving-average spectral factorization using the Euclid algorithm", 1990.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isotypic._register import Gradients
from isotypic.ops import _launch
from isotypic.ops._checks import check_tensors
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.forms import wilson

LARGEST = 1024
CANDIDATES = 4096  # places at which minima are refined at once
FINE = 1 << 22  # values of R at once on the finer grid
NEAR = 1e-9
"""Error of an autocorrelation from which on a row counts as one whose R touches zero."""


def spectral_factor(r: Tensor) -> Tensor:
    """The minimum-phase factor of nonnegative trigonometric polynomials: sum_j h_j h_(j+k) = r_k, h_0 > 0.

    The filter with the taps h has the power response R(s) = r_0 + 2 sum_k r_k cos(k s), and all its zeros within or on the unit circle.
    Where R > 0 the coefficients of h are right to rounding times the condition of the problem, at most of the order of max R / min R, and
    first derivatives to ten times that: 1e-10 and 1e-6 at 1e8. At zeros of R less than half of the digits are left, as for any double
    root; the autocorrelation of h is within 1e-6 r_0 of r, or r is refused. Where R touches zero, h may be the factor of r with a rounding
    error of R, epsilon of the dtype or 16 (n + 1) 2^-52 of sum_k |r_k|, added to r_0.

    Args:
        r: (..., n + 1), float32 or float64 (float32 is computed in float64 and rounded), n up to 1024.

    Returns: h (..., n + 1). It is differentiable in any order where R > 0.
    Raises TypeError for other dtypes; ValueError for an empty last axis, numbers that are not finite, rows with R < 0 somewhere by more
    than rounding (of numbers of this dtype and of sums of n terms in float64), which have no factor, and rows with zeros of R of such an
    order that none is found.

    >>> spectral_factor(torch.tensor([5.0, 2.0]))  # 5 + 4 cos s = |2 + e^(-is)|^2
    tensor([2., 1.])
    """
    check_tensors("spectral_factor", {"r": r})
    if r.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"spectral_factor: r must have dtype float32 or float64, got {str(r.dtype).removeprefix('torch.')}")
    if r.dim() < 1 or not 1 <= r.shape[-1] <= LARGEST + 1:
        raise ValueError(f"spectral_factor: r must have shape (..., n + 1) with 0 <= n <= {LARGEST}, got {tuple(r.shape)}")
    rows = r.reshape(-1, r.shape[-1]).double()
    return factor(rows, torch.finfo(r.dtype).eps).to(r.dtype).reshape(r.shape)


def wilson_matrix(h: Tensor) -> Tensor:
    """(B, n + 1, n + 1): A(h), upper Toeplitz h_(m - k) plus Hankel h_(m + k)."""
    n = h.shape[-1]
    k = torch.arange(n, device=h.device)
    padded = torch.nn.functional.pad(h, (n, n))
    return padded[..., n + k[None, :] - k[:, None]] + padded[..., n + k[None, :] + k[:, None]]


def _times(h: Tensor, x: Tensor) -> Tensor:
    """A(h) x"""
    return (wilson_matrix(h) @ x[..., None])[..., 0]


def _transposed_times(h: Tensor, y: Tensor) -> Tensor:
    """A(h)^T y"""
    return (wilson_matrix(h).mT @ y[..., None])[..., 0]


# r, h, b and x (B, n + 1), float64.


def _factor(name: str, shape: Sequence[int], r: Tensor, rounding: float) -> Tensor:
    if not bool(r.isfinite().all()):
        raise ValueError("spectral_factor: r must be finite")
    if r.numel() == 0:
        return torch.empty_like(r)
    n, eps = r.shape[-1], torch.finfo(r.dtype).eps
    zero = ~r.any(-1)
    unit = r / torch.where(r[:, 0] > 0, r[:, 0], 1)[:, None]
    response = 2 * torch.fft.rfft(unit, max(256, 8 << (n - 1).bit_length())).real - unit[:, :1]
    allowed = max(16 * n * eps, rounding) * unit.abs().sum(-1)
    h, error = _factor_unit(name, unit, response)
    # R is |H|^2 up to 2 n times the error: a factor proves that R is nonnegative, and other rows are looked at.
    below = torch.zeros_like(zero)
    unsure = (~(2 * n * error <= allowed)).nonzero()[:, 0]
    if len(unsure):
        below[unsure] = _minimum(unit[unsure], response[unsure]) < -allowed[unsure]
    wrong = ((r[:, 0] <= 0) | below) & ~zero
    _refuse(
        r,
        wrong,
        "nonnegative on the circle, r_0 + 2 sum_k r_k cos(k s) >= 0, which fails",
        "isotypic.sl2.certify(row, domain='circle') proves where",
    )
    rows = ((error > NEAR) & ~zero & ~wrong).nonzero()[:, 0]
    if len(rows):  # R touches zero: lifted by what rounding does it has a factor for certain
        lift = torch.eye(1, n, dtype=r.dtype, device=r.device) * allowed[rows, None]
        lifted, new = _factor_unit(name, unit[rows] + lift, response[rows] + allowed[rows, None])
        better = new + allowed[rows] < error[rows]
        h[rows[better]], error[rows[better]] = lifted[better], new[better]
    _refuse(
        r,
        ~(error <= 1e-6) & ~zero,
        "positive on the circle: at zeros of high order, or of rounded numbers, no factor is found to 1e-6 r_0, which happens",
        "with a part in 10^5 more in r_0 there is one",
    )
    return torch.where(zero[:, None], 0, h * r[:, :1].clamp_min(0).sqrt())


def _factor_unit(name: str, unit: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n + 1), (B): the factors of rows with r_0 about 1, and the largest errors of their autocorrelations."""
    if unit.device.type != "cpu":
        return wilson.factor(unit, response)
    h, error = torch.empty_like(unit), torch.empty_like(unit[:, 0])
    _launch.launch(name, name, unit.contiguous(), h, error, like=h)
    return h, error


def _solve(name: str, shape: Sequence[int], h: Tensor, b: Tensor, transposed: bool) -> Tensor:
    """A(h)^-1 b, or A(h)^-T b; h_0 is scaled to 1, and what has h = 0 gets zeros."""
    zero = ~h.any(-1, keepdim=True)
    size = torch.where(zero, 1, h[:, :1])
    unit = torch.where(zero, torch.eye(1, h.shape[-1], dtype=h.dtype, device=h.device), h / size).contiguous()
    if h.device.type == "cpu":
        x = torch.empty_like(unit)
        if x.numel():
            _launch.launch(name, name, unit, b.contiguous(), transposed, x, like=x)
    elif transposed:
        x = torch.linalg.solve(wilson_matrix(unit).mT, b[..., None])[..., 0]
    else:
        x = wilson.newton(unit.T, b.T)[0].T
    return torch.where(zero, 0, x / size)


def _minimum(unit: Tensor, response: Tensor) -> Tensor:
    """(B,): the least value of R, from those on a grid of [0, pi], on one eight times finer for rows that come near zero, and by Newton's
    method at those that may be beside it.

    With |R''| <= n^2 max |R| (Bernstein) and 8 n points on the circle, R at the next point of the grid is at most 0.08 max |R| larger, and
    with 64 n points 0.0014 max |R|.
    """
    least, largest = response.amin(-1), response.abs().amax(-1)
    near = (least <= 0.08 * largest).nonzero()[:, 0]
    points = 16 * (response.shape[-1] - 1)
    for rows in near.split(max(1, FINE // points)) if len(near) else ():
        fine = 2 * torch.fft.rfft(unit[rows], points).real - unit[rows, :1]
        least[rows] = torch.minimum(fine.amin(-1), _refined(unit[rows], fine, 0.0014 * largest[rows]))
    return least


def _refined(unit: Tensor, response: Tensor, low: Tensor) -> Tensor:
    """(B,): the least of the minima of R beside points of the grid that are at most `low`, infinity where there are none."""
    least = torch.full_like(low, torch.inf)
    padded = torch.nn.functional.pad(response, (1, 1), value=torch.inf)
    beside = (response <= low[:, None]) & (response <= padded[:, :-2]) & (response <= padded[:, 2:])
    row, place = beside.nonzero(as_tuple=True)
    step = torch.pi / (response.shape[-1] - 1)
    k = torch.arange(1, unit.shape[-1], dtype=unit.dtype, device=unit.device)
    starts = torch.cat([place * step, (place - 0.5) * step, (place + 0.5) * step])  # two zeros may lie around one point
    for rows, start in zip(row.repeat(3).split(CANDIDATES), starts.split(CANDIDATES), strict=True):
        taps = 2 * unit[rows, 1:]
        s = start
        for _ in range(6):
            sine, cosine = (k * s[:, None]).sin(), (k * s[:, None]).cos()
            slope, curvature = -(taps * k * sine).sum(-1), -(taps * k * k * cosine).sum(-1)
            move = torch.where(curvature > 0, -slope / curvature, 0.0).clamp(-step, step)
            s = torch.minimum(torch.maximum(s + move, start - step), start + step)
        values = unit[rows, 0] + (taps * (k * s[:, None]).cos()).sum(-1)
        least = least.scatter_reduce(0, rows, values, "amin")
    return least


def _refuse(r: Tensor, wrong: Tensor, expected: str, remedy: str) -> None:
    if bool(wrong.any()):
        rows = wrong.nonzero()[:, 0].tolist()
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise ValueError(f"spectral_factor: r must be {expected} in {len(rows)} of {len(r)} rows ({named}); {remedy}")


def _backward_factor(needs: Sequence[bool], grad: Tensor, h: Tensor, r: Tensor, rounding: float) -> Gradients:
    return (solve(h, grad, True) if needs[0] else None,)


def _jvp_factor(tangents: Gradients, r: Tensor, rounding: float) -> Tensor | None:
    return None if tangents[0] is None else solve(factor(r, rounding), tangents[0], False)


def _backward_solve(needs: Sequence[bool], grad: Tensor, x: Tensor, h: Tensor, b: Tensor, transposed: bool) -> Gradients:
    """From A(h) dx + A(x) dh = db, and from A(h)^T dy + A(dh)^T y = dg with <c, A(dh)^T y> = <A(c) dh, y>."""
    other = solve(h, grad, not transposed)
    in_h = -(_transposed_times(other, x) if transposed else _transposed_times(x, other)) if needs[0] else None
    return in_h, other if needs[1] else None


def _jvp_solve(tangents: Gradients, h: Tensor, b: Tensor, transposed: bool) -> Tensor | None:
    change = tangents[1]
    if tangents[0] is not None:
        x = solve(h, b, transposed)
        part = _transposed_times(tangents[0], x) if transposed else _times(tangents[0], x)
        change = -part if change is None else change - part
    return None if change is None else solve(h, change, transposed)


factor = kernel_operator(
    "spectral_factor(Tensor r, float rounding) -> Tensor",
    shape=lambda r, rounding: r.shape,
    samples=(0,),
    run=_factor,
    backward=_backward_factor,
    jvp=_jvp_factor,
    saved_outputs=(0,),
    sixteen_bit=False,
)
solve = kernel_operator(
    "spectral_solve(Tensor h, Tensor b, bool transposed) -> Tensor",
    shape=lambda h, b, transposed: h.shape,
    samples=(0, 1),
    run=_solve,
    backward=_backward_solve,
    jvp=_jvp_solve,
    saved_outputs=(0,),
    sixteen_bit=False,
)
