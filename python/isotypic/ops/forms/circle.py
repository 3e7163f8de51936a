"""Binary forms in samples on the circle: the constants of a degree that the max-det kernels read, in float64 numpy.

Nodes theta_s = pi s / (2 d + 1), s = 0 .. 2 d, determine a form of degree 2 d, since it is a trigonometric polynomial of degree d in phi =
2 theta.
"""

from __future__ import annotations

from functools import cache
from math import comb, sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isotypic.ops._launch import DeviceTables

Array = npt.NDArray[np.float64]


def monomials(degree: int, theta: Array) -> Array:
    """(nodes, degree + 1): x^k y^(degree - k) at (cos theta, sin theta)."""
    x, y, k = np.cos(theta)[:, None], np.sin(theta)[:, None], np.arange(degree + 1)
    return x**k * y ** (degree - k)


def nodes(d: int) -> Array:
    return np.pi * np.arange(2 * d + 1) / (2 * d + 1)


def frequencies(d: int) -> list[tuple[int, bool, float]]:
    """The orthonormal trigonometric basis of forms of degree d, scale cos(f theta) or scale sin(f theta), as (f, is it a sine, scale)."""
    constant = [(0, False, 1.0)] if d % 2 == 0 else []
    return constant + [(f, sine, sqrt(2)) for f in range(2 - d % 2, d + 1, 2) for sine in (False, True)]


def basis(d: int, theta: Array) -> Array:
    """(nodes, d + 1): the basis above."""
    return np.stack([scale * (np.sin if sine else np.cos)(f * theta) for f, sine, scale in frequencies(d)], axis=-1)


def basis_coefficients(d: int) -> Array:
    """(d + 1, d + 1): row i holds the coefficients of form i of the basis: those of (x + i y)^f (x^2 + y^2)^((d - f) / 2), real or
    imaginary part."""
    rows = np.zeros((d + 1, d + 1))
    for row, (f, sine, scale) in zip(rows, frequencies(d), strict=True):
        for j in range(f + 1):  # (x + i y)^f has C(f, j) i^j x^(f - j) y^j
            if j % 2 == sine:
                sign = (-1) ** (j // 2) * comb(f, j)
                for i in range((d - f) // 2 + 1):
                    row[f - j + 2 * i] += scale * sign * comb((d - f) // 2, i)
    return rows


def products(d: int) -> Array:
    """(n (n + 1) / 2, 4): the products of two basis forms as c1 t[i1] + c2 t[i2], i1, c1, i2, c2, with t = 1, cos phi, sin phi, cos 2 phi,
    ..."""

    def place(f: int, sine: bool) -> int:
        return max(f - 1 + sine, 0)  # of cos(f / 2 phi), sin(f / 2 phi)

    entries = []
    pairs = frequencies(d)
    for i, (a, a_sine, a_scale) in enumerate(pairs):
        for b, b_sine, b_scale in pairs[: i + 1]:
            half = a_scale * b_scale / 2
            if a_sine == b_sine:  # cos a cos b, sin a sin b = (cos(a - b) +- cos(a + b)) / 2
                entries.append((place(abs(a - b), False), half, place(a + b, False), -half if a_sine else half))
            else:  # sin s cos c = (sin(s + c) + sin(s - c)) / 2
                difference = (a - b) if a_sine else (b - a)
                sign = (difference > 0) - (difference < 0)
                entries.append((place(a + b, True), half, place(abs(difference), True) if difference else 0, sign * half))
    return np.array(entries, dtype=np.float64)


def spread(d: int) -> list[list[float]]:
    """(d + 1, d + 1): C(d, i) C(d, j) / C(2 d, i + j), which sums to 1 over every antidiagonal (Vandermonde)."""
    return [[comb(d, i) * comb(d, j) / comb(2 * d, i + j) for j in range(d + 1)] for i in range(d + 1)]


@cache
def tables(d: int) -> Array:
    """Everything in the order of Tables in csrc/ops/max_det_solver.hpp."""
    theta = nodes(d)
    moments = np.stack(
        [np.ones_like(theta), *(part for j in range(1, d + 1) for part in (np.cos(2 * j * theta), np.sin(2 * j * theta)))], axis=0
    )
    parts = monomials(2 * d, theta), monomials(d, theta), basis(d, theta), moments, products(d), basis_coefficients(d), np.array(spread(d))
    return np.concatenate([part.ravel() for part in parts])


def _as_tensor(key: tuple[int, torch.dtype]) -> Tensor:
    d, dtype = key
    return torch.from_numpy(tables(d)).to(dtype)


_TABLES = DeviceTables("max_det_gram", "a degree and dtype", _as_tensor)


def table_tensor(d: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The tables as kernels read them."""
    return _TABLES((d, dtype), device)
