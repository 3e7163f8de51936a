"""The minimum-phase factor of a nonnegative trigonometric polynomial (Fejer and Riesz), in batches and with derivatives.

For R(s) = r_0 + 2 sum_k r_k cos(k s) >= 0 there is one h with h_0 > 0, R = |h_0 + h_1 e^(-is) + ... + h_n e^(-ins)|^2 and no zero outside
of the unit circle; in coefficients, sum_j h_j h_(j+k) = r_k. Newton's method for that equation (Wilson's) solves

    A(h) x = r + h * h,        (A(h) x)_k = sum_j h_j x_(j+k) + x_j h_(j+k),

in O(n^2) by Schur's reduction of the degree: with k = h_n / h_0 and h' = (h - k rev(h)) / (1 - k^2), of degree n - 1, x = y - k rev(y)
turns A(h) x = b into A(h') y = b / (1 - k^2), whose last entry gives y_n and leaves an equation of degree n - 1. |k| < 1 at every degree
says that h is minimum-phase. It starts from the exponential of the causal part of log R / 2 (Kolmogorov's), or from 1.
dh = A(h)^-1 dr, hence derivatives of all orders.

G. Wilson, "Factorization of the covariance generating function of a pure moving average process", 1969. C. Demeure, C. Mullis, "A
Newton-Raphson method for moving-average spectral factorization using the Euclid algorithm", 1990.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops._checks import check_tensors

STEPS = 100
LARGEST = 1024


def spectral_factor(r: Tensor) -> Tensor:
    """The minimum-phase factor of nonnegative trigonometric polynomials: sum_j h_j h_(j+k) = r_k, h_0 > 0.

    The filter with the taps h has the power response R(s) = r_0 + 2 sum_k r_k cos(k s), and all its zeros within or on the unit circle.
    Where R > 0 the coefficients of h are right to rounding times the condition of the problem, of the order of max R / min R; at zeros
    of R less than half of the digits are left, as for any double root.

    Args:
        r: (..., n + 1), float32 or float64 (float32 is computed in float64 and rounded), n up to 1024.

    Returns: h (..., n + 1). It is differentiable in any order where R > 0.
    Raises TypeError for other dtypes; ValueError for an empty last axis, numbers that are not finite, and rows with R < 0 somewhere,
    which have no factor.

    >>> spectral_factor(torch.tensor([5.0, 2.0]))  # 5 + 4 cos s = |2 + e^(-is)|^2
    tensor([2., 1.])
    """
    check_tensors("spectral_factor", {"r": r})
    if r.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"spectral_factor: r must have dtype float32 or float64, got {str(r.dtype).removeprefix('torch.')}")
    if r.dim() < 1 or not 1 <= r.shape[-1] <= LARGEST + 1:
        raise ValueError(f"spectral_factor: r must have shape (..., n + 1) with 0 <= n <= {LARGEST}, got {tuple(r.shape)}")
    rows = r.reshape(-1, r.shape[-1]).double()
    return factor(rows).to(r.dtype).reshape(r.shape)


def autocorrelation(h: Tensor) -> Tensor:
    """(B, n + 1): sum_j h_j h_(j+k)."""
    n = h.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(h, 2 * n).abs().square(), 2 * n)[..., :n]


def wilson_matrix(h: Tensor) -> Tensor:
    """(B, n + 1, n + 1): A(h), upper Toeplitz h_(m - k) plus Hankel h_(m + k)."""
    n = h.shape[-1]
    k = torch.arange(n, device=h.device)
    padded = torch.nn.functional.pad(h, (n, n))
    return padded[..., n + k[None, :] - k[:, None]] + padded[..., n + k[None, :] + k[:, None]]


def _launch(r: Tensor) -> Tensor:
    if not bool(r.isfinite().all()):
        raise ValueError("spectral_factor: r must be finite")
    if r.numel() == 0:
        return torch.empty_like(r)
    n = r.shape[-1]
    eps = torch.finfo(r.dtype).eps
    zero = ~r.any(-1)
    unit = r / torch.where(r[:, 0] > 0, r[:, 0], 1)[:, None]
    size = max(256, 8 << (n - 1).bit_length())
    response = 2 * torch.fft.rfft(unit, size).real - unit[:, :1]
    below = response.amin(-1) < -16 * n * eps * unit.abs().sum(-1)
    _refuse_negative(r, ((r[:, 0] <= 0) | below) & ~zero)
    unit, h = unit.T.contiguous(), _kolmogorov(response, size, n).T.contiguous()
    error = torch.full_like(unit[0], torch.inf)
    best = torch.zeros_like(h)
    active, started = torch.arange(len(r), device=r.device), torch.zeros_like(zero)
    for _ in range(STEPS):
        rows = unit[:, active]
        square = autocorrelation(h.T).T
        new = (square - rows).abs().amax(0)
        x, stable = _newton(h, rows + square)
        # What is not minimum-phase begins anew from 1, from where the iteration cannot leave it.
        again = ~stable & ~started[active]
        better = stable & (new < error[active])
        stuck = (error[active] < 1e-7) & ~(new < 0.9 * error[active])
        best[:, active[better]], error[active[better]] = h[:, better], new[better]
        started[active[again]] = True
        x[:, again] = 0
        x[0, again] = 1
        keep = again | (stable & ~stuck & (new > 2 * eps))
        active, h = active[keep], x[:, keep]
        if not len(active):
            break
    _refuse_negative(r, (error > 1e-6) & ~zero)
    return torch.where(zero[:, None], 0, best.T.contiguous() * r[:, :1].clamp_min(0).sqrt())


def _kolmogorov(response: Tensor, size: int, n: int) -> Tensor:
    """(B, n): the first coefficients of exp(c_0 / 2 + c_1 e^(-is) + ...), c those of log R / 2 on the grid."""
    logarithm = response.clamp_min(1e-26).log() / 2
    c = torch.fft.irfft(logarithm.to(torch.complex128), size)[..., : size // 2 + 1].clone()
    c[..., 1:-1] *= 2
    return torch.fft.irfft(torch.fft.rfft(c, size).exp(), size)[..., :n]


def _newton(h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(n + 1, B), (B,): x with A(h) x = b, and whether h is minimum-phase."""
    n = h.shape[0] - 1
    h, b = h.clone(), b.clone()
    steps, stable = [], h[0] > 0
    for m in range(n, 0, -1):
        k = h[m] / h[0]
        stable = stable & (k.abs() < 1)
        spare = 1 - k * k
        h = (h[:m] - k * h[1:].flip(0)) / spare
        last = b[m] / (spare * h[0])
        b = b[:m] / spare
        b[1:] -= last * h[1:].flip(0)
        steps.append((k, last))
    x = b / (2 * h)
    for k, last in reversed(steps):
        y = torch.cat([x, last[None]])
        x = y - k * y.flip(0)
    return x, stable


def _refuse_negative(r: Tensor, negative: Tensor) -> None:
    if bool(negative.any()):
        rows = negative.nonzero()[:, 0].tolist()
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise ValueError(
            "spectral_factor: r must be nonnegative on the circle, r_0 + 2 sum_k r_k cos(k s) >= 0, which fails in "
            f"{len(rows)} of {len(r)} rows ({named}); isotypic.sl2.certify(row, domain='circle') proves where"
        )


def _backward(needs: Sequence[bool], grad: Tensor, h: Tensor, r: Tensor) -> Gradients:
    return (torch.linalg.solve(wilson_matrix(h).mT, grad[..., None])[..., 0] if needs[0] else None,)


def _jvp(tangents: Gradients, r: Tensor) -> Tensor | None:
    if tangents[0] is None:
        return None
    return torch.linalg.solve(wilson_matrix(factor(r)), tangents[0][..., None])[..., 0]


def _vmap(info: Any, in_dims: Sequence[int | None], r: Tensor) -> tuple[Tensor, int]:
    folded = r.movedim(in_dims[0] or 0, 0)
    return factor(folded.flatten(0, 1)).unflatten(0, folded.shape[:2]), 0


factor = define(
    "spectral_factor(Tensor r) -> Tensor",
    launch=_launch,
    fake=torch.empty_like,
    backward=_backward,
    vmap=_vmap,
    jvp=_jvp,
    saved_outputs=(0,),
    sixteen_bit=False,
)
