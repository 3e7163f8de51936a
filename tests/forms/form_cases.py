"""Positive binary forms to try, and the action of SL(2, R) on them as plain sums."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Any

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


def _action_columns(a: Any, b: Any, c: Any, e: Any, degree: int) -> list[list[Any]]:
    """Column i holds the coefficients of (a x + b y)^i (c x + e y)^(degree - i), multiplied out, by the power of x."""
    columns = []
    for i in range(degree + 1):
        column: list[Any] = [1]
        for x, y in [(a, b)] * i + [(c, e)] * (degree - i):
            column = [y * u + x * v for u, v in zip([*column, 0], [0, *column], strict=True)]
        columns.append(column)
    return columns


def action_matrix(g: Tensor, degree: int) -> Tensor:
    """(degree + 1, degree + 1): the coefficients of p o g are this times those of p."""
    return torch.tensor(_action_columns(*g.flatten().tolist(), degree), dtype=torch.float64).T


def exact_action(p: Tensor, g: Tensor) -> list[Fraction]:
    """The coefficients of p o g, exactly."""
    columns = _action_columns(*map(Fraction, g.flatten().tolist()), len(p) - 1)
    return [sum((column[k] * Fraction(v) for column, v in zip(columns, p.tolist(), strict=True)), Fraction(0)) for k in range(len(p))]
