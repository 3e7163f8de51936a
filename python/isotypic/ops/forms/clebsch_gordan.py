"""Coefficients of transvectants, exact and as the orthogonal Clebsch-Gordan matrices; pure Python and numpy."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb, factorial, perm

import numpy as np
import torch


def coefficient(m: int, n: int, k: int, i: int, j: int) -> Fraction:
    """The coefficient of (x^i y^(m-i), x^j y^(n-j))_k, a multiple of x^(i+j-k) y^(m+n-i-j-k):

    (m-k)! (n-k)! / (m! n!) sum_r (-1)^r C(k, r) (i)_{k-r} (m-i)_r (j)_r (n-j)_{k-r}, with falling factorials.
    """
    total = sum((-1) ** r * comb(k, r) * perm(i, k - r) * perm(m - i, r) * perm(j, r) * perm(n - j, k - r) for r in range(k + 1))
    return Fraction(total, perm(m, k) * perm(n, k))


def norm_squared(m: int, n: int, k: int) -> tuple[int, int]:
    """lambda_k as numerator and denominator: in scaled coordinates the matrix of the k-th transvectant satisfies T_k T_k^T = lambda_k I."""
    numerator = factorial(k) * factorial(m + n - k + 1) * factorial(m - k) * factorial(n - k)
    return numerator, factorial(m) * factorial(n) * factorial(m + n - 2 * k + 1)


@cache
def clebsch_gordan(m: int, n: int, k: int) -> np.ndarray:
    """(m+1, n+1): entry (i, j) of the orthogonal Clebsch-Gordan matrix V_m x V_n -> V_(m+n-2k), whose row l = i + j - k it belongs to.

    In scaled coordinates, the transvectant over sqrt(lambda_k). Each entry is the root of an exact rational, so that it is right to one
    rounding at every degree.
    """
    scale = Fraction(*norm_squared(m, n, k))
    table = np.zeros((m + 1, n + 1))
    for i in range(m + 1):
        for j in range(max(0, k - i), min(n, m + n - k - i) + 1):
            exact = coefficient(m, n, k, i, j)
            square = exact**2 * Fraction(comb(m, i) * comb(n, j), comb(m + n - 2 * k, i + j - k)) / scale
            table[i, j] = (1 if exact > 0 else -1) * float(square) ** 0.5
    table.setflags(write=False)
    return table


RANGE = {torch.float32: 260, torch.complex64: 260}
LARGEST_DEGREE = 1029


def check_range(operator: str, name: str, degree: int, dtype: torch.dtype) -> None:
    """Raises for degrees whose scaled coordinates leave the range of the dtype: sqrt(C(d, d / 2)) in float32, C(d, d / 2) in float64."""
    largest = RANGE.get(dtype, LARGEST_DEGREE)
    if degree > largest:
        raise ValueError(f"{operator}: {name} must have degree at most {largest} in {dtype}, got {degree}")


def roots_of_binomials(degree: int) -> list[float]:
    """(degree+1): sqrt(C(degree, i)), the monomial coefficients of the forms that are orthonormal in the scaled basis."""
    degree = len(range(degree))  # a number also where a compiler has a symbol for it
    return [comb(degree, i) ** 0.5 for i in range(degree + 1)]
