"""The minimum-phase factor of a nonnegative trigonometric polynomial (Fejer and Riesz), in batches and with derivatives.

For R(s) = r_0 + 2 sum_k r_k cos(k s) >= 0 there is one h with h_0 > 0, R = |h_0 + h_1 e^(-is) + ... + h_n e^(-ins)|^2 and no zero outside of
the unit circle; in coefficients, sum_j h_j h_(j+k) = r_k. Newton's method for that equation (Wilson's) solves the linear equation

    A(h) x = r + h * h,        (A(h) x)_k = sum_j h_j x_(j+k) + x_j h_(j+k),

which on the circle is x / h + its conjugate = (R + |h|^2) / |h|^2: x / h is the causal part of the right side, had by two transforms. It
starts from the exponential of the causal part of log R / 2 (Kolmogorov's). Rows whose zeros are too close to the circle for the grid
are finished by the dense equation. dh = A(h)^-1 dr, hence the derivatives of all orders.

G. Wilson, "Factorization of the covariance generating function of a pure moving average process", 1969.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops._checks import check_tensors

GRID_STEPS, DENSE_STEPS, START = 12, 80, 1e-3
LARGEST = 1024


def spectral_factor(r: Tensor) -> Tensor:
    """The minimum-phase factor of nonnegative trigonometric polynomials: sum_j h_j h_(j+k) = r_k, h_0 > 0.

    The filter with the taps h has the power response R(s) = r_0 + 2 sum_k r_k cos(k s), and all its zeros within or on the unit circle. Where
    R > 0 the coefficients of h are right to rounding times the condition of the problem, of the order of max R / min R; at zeros
    of R half the digits are left, as for any double root.

    Args:
        r: (..., n + 1), float32 or float64 (float32 is computed in float64 and rounded), n up to 1024.

    Returns: h (..., n + 1). It is differentiable in any order where R > 0.
    Raises TypeError for other dtypes; ValueError for an empty last axis, numbers that are not finite, and rows with R < 0 somewhere, which have no
    factor.

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


def correlation(h: Tensor, x: Tensor) -> Tensor:
    """(B, n + 1): sum_j h_j x_(j+k)."""
    n = h.shape[-1]
    size = 2 * n
    return torch.fft.irfft(torch.fft.rfft(h, size).conj() * torch.fft.rfft(x, size), size)[..., :n]


def wilson_matrix(h: Tensor) -> Tensor:
    """(B, n + 1, n + 1): A(h), upper Toeplitz h_(m - k) plus Hankel h_(m + k)."""
    n = h.shape[-1]
    k = torch.arange(n, device=h.device)
    padded = torch.nn.functional.pad(h, (n, n))
    return padded[..., n + k[None, :] - k[:, None]] + padded[..., n + k[None, :] + k[:, None]]


def _response(r: Tensor, size: int) -> Tensor:
    """R on the grid of angles 2 pi k / size, from 0 to pi."""
    return 2 * torch.fft.rfft(r, size).real - r[..., :1]


def _causal(values: Tensor, size: int) -> Tensor:
    """The spectrum of the causal part of a real even function on the grid, half of its mean included."""
    c = torch.fft.irfft(values.to(torch.complex128), size)[..., : size // 2 + 1].clone()
    c[..., 0] /= 2
    c[..., -1] /= 2
    return torch.fft.rfft(c, size)


def _launch(r: Tensor) -> Tensor:
    if not bool(r.isfinite().all()):
        raise ValueError("spectral_factor: r must be finite")
    if r.numel() == 0:
        return torch.empty_like(r)
    n = r.shape[-1]
    scale = r[:, :1]
    zero = scale[:, 0] == 0
    _refuse_negative(r, r[:, 0] < 0)
    unit = r / torch.where(zero[:, None], 1, scale)
    size = max(1024, 16 << (n - 1).bit_length())
    response = _response(unit, size)
    rounding = 16 * n * torch.finfo(r.dtype).eps * unit.abs().sum(-1)
    _refuse_negative(r, response.min(-1).values < -rounding)
    h = torch.fft.irfft(_causal(response.clamp_min(1e-300).log().clamp_min(-60) / 2, size).exp(), size)[..., :n]
    error, best = _residual(unit, h), h
    close = error > START  # a start that is cut off may have zeros outside of the circle
    active = (~close).nonzero()[:, 0]
    for _ in range(GRID_STEPS):
        spectrum = torch.fft.rfft(best[active], size)
        x = torch.fft.irfft(spectrum * _causal(response[active] / spectrum.abs().square().clamp_min(1e-300) + 1, size), size)[..., :n]
        new = _residual(unit[active], x)
        better = new < error[active]
        rows = active[better]
        best[rows], error[rows] = x[better], new[better]
        active = active[better & (new > 4 * torch.finfo(r.dtype).eps)]
        if not len(active):
            break
    rows = (close | (error > 64 * torch.finfo(r.dtype).eps)).nonzero()[:, 0]
    if len(rows):
        best[rows] = _dense(unit[rows])
        _refuse_negative(r, torch.zeros_like(error, dtype=torch.bool).index_fill_(0, rows, True) & (_residual(unit, best) > 1e-6))
    return torch.where(zero[:, None], 0, best * scale.sqrt())


def _residual(r: Tensor, h: Tensor) -> Tensor:
    """(B,): how far |h|^2 is from R, beside r_0 = 1; infinite where h has a zero outside of the circle by its first coefficient."""
    error = (correlation(h, h) - r).abs().amax(-1)
    return torch.where(error.isfinite() & (h[..., 0] > 0), error, torch.inf)


def _dense(r: Tensor) -> Tensor:
    """Wilson's iteration from h = (1, 0, ..., 0), which stays minimum-phase; it halves the error at zeros on the circle."""
    h = torch.zeros_like(r)
    h[:, 0] = 1
    error = torch.full_like(r[:, 0], torch.inf)
    for _ in range(DENSE_STEPS):
        x, info = torch.linalg.solve_ex(wilson_matrix(h), (r + correlation(h, h))[..., None])
        new = _residual(r, x[..., 0])
        better = (info == 0) & (new < 0.9 * error)
        if not bool(better.any()):
            break
        h, error = torch.where(better[:, None], x[..., 0], h), torch.where(better, new, error)
    return h


def _refuse_negative(r: Tensor, negative: Tensor) -> None:
    if bool(negative.any()):
        rows = negative.nonzero()[:, 0].tolist()
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise ValueError(
            f"spectral_factor: r must be nonnegative on the circle, r_0 + 2 sum_k r_k cos(k s) >= 0, which fails in {len(rows)} of {len(r)} rows "
            f"({named}); isotypic.sl2.certify(row, domain='circle') proves where"
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
