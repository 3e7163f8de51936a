"""Spectral factors by torch, several rows in lockstep: what csrc/cpu/spectral_factor_kernel.cpp does, for tensors on other devices.

It starts from the exponential of the causal part of log R / 2 (A. Kolmogorov's), which saves steps of Newton's method, or from 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 100


def factor(unit: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """(B, n + 1), (B): the factors of rows with r_0 = 1 and the largest errors of their autocorrelations; `response` is R on a grid."""
    n, eps = unit.shape[-1], torch.finfo(unit.dtype).eps
    h = _kolmogorov(response, 2 * (response.shape[-1] - 1), n).T.contiguous()
    unit = unit.T.contiguous()
    error = torch.full_like(unit[0], torch.inf)
    best = torch.zeros_like(h)
    active, started = torch.arange(unit.shape[1], device=unit.device), torch.zeros(unit.shape[1], dtype=torch.bool, device=unit.device)
    for _ in range(STEPS):
        rows = unit[:, active]
        square = autocorrelation(h.T).T
        new = (square - rows).abs().amax(0)
        x, stable = newton(h, rows + square)
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
    return best.T.contiguous(), error


def autocorrelation(h: Tensor) -> Tensor:
    """(B, n + 1): sum_j h_j h_(j+k)."""
    n = h.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(h, 2 * n).abs().square(), 2 * n)[..., :n]


def _kolmogorov(response: Tensor, size: int, n: int) -> Tensor:
    """(B, n): the first coefficients of exp(c_0 / 2 + c_1 e^(-is) + ...), c those of log R / 2 on the grid."""
    logarithm = response.clamp_min(1e-26).log() / 2
    c = torch.fft.irfft(logarithm.to(torch.complex128), size)[..., : size // 2 + 1].clone()
    c[..., 1:-1] *= 2
    return torch.fft.irfft(torch.fft.rfft(c, size).exp(), size)[..., :n]


def newton(h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
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
