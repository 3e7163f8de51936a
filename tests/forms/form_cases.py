"""Positive binary forms to try, and the action of SL(2, R) on them as plain sums."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor


def sums_of_squares(degree: int, count: int, seed: int = 0) -> Tensor:
    """(count, degree + 1) float64: antidiagonal sums of A^T A, A Gaussian."""
    n = degree // 2 + 1
    a = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return antidiagonal_sums(a.mT @ a + 1e-8 * torch.eye(n, dtype=torch.float64))


def round_forms(degree: int, count: int, seed: int = 0, size: float = 0.3) -> Tensor:
    """(x^2 + y^2)^d plus a Gaussian form in scaled coordinates: positive and well away from the boundary."""
    d = degree // 2
    middle = torch.tensor([float(comb(d, k // 2)) if k % 2 == 0 else 0.0 for k in range(degree + 1)], dtype=torch.float64)
    scale = torch.tensor([comb(degree, k) ** 0.5 for k in range(degree + 1)], dtype=torch.float64)
    noise = torch.randn(count, degree + 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    sizes = (noise @ samples(degree).T).abs().amax(-1, keepdim=True)
    return middle + size * noise / sizes


def samples(degree: int, count: int = 4001) -> Tensor:
    """(count, degree + 1): the monomials on fine samples of the circle."""
    angle = torch.arange(count, dtype=torch.float64) * torch.pi / count
    k = torch.arange(degree + 1)
    return angle.cos()[:, None] ** k * angle.sin()[:, None] ** (degree - k)


def antidiagonal_sums(gram: Tensor) -> Tensor:
    n = gram.shape[-1]
    form = gram.new_zeros(*gram.shape[:-2], 2 * n - 1)
    for i in range(n):
        for j in range(n):
            form[..., i + j] += gram[..., i, j]
    return form


def action_matrix(g: Tensor, degree: int) -> Tensor:
    """(degree + 1, degree + 1): column i holds the coefficients of (a x + b y)^i (c x + e y)^(degree - i), multiplied out."""
    (a, b), (c, e) = g.tolist()
    columns = []
    for i in range(degree + 1):
        column = [1.0]  # index: power of x
        for x, y in [(a, b)] * i + [(c, e)] * (degree - i):
            column = [y * (column[k] if k < len(column) else 0.0) + x * (column[k - 1] if k else 0.0) for k in range(len(column) + 1)]
        columns.append(column)
    return torch.tensor(columns, dtype=torch.float64).T
