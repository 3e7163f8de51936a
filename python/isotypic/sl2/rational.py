"""Certificates of positivity in exact rational arithmetic: what is said here holds for the numbers as given, whatever found them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch

Rational = tuple[tuple[Fraction, ...], ...]


def _rational(operator: str, name: str, value: Any) -> Fraction:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{operator}: {name} must hold finite numbers, got {value!r}")
    try:
        return Fraction(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{operator}: {name} must hold numbers, got {value!r}") from error


def _sequence(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) or hasattr(value, "tolist") else value


def _form(operator: str, p: Any) -> list[Fraction]:
    values = _sequence(p)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values or any(isinstance(value, Sequence) for value in values):
        raise ValueError(f"{operator}: p must be one form, a sequence of its degree + 1 coefficients, got {p!r}")
    if len(values) % 2 == 0:
        raise ValueError(f"{operator}: p must have even degree, got degree {len(values) - 1}")
    return [_rational(operator, "p", value) for value in values]


def _gram(operator: str, gram: Any, n: int) -> list[list[Fraction]]:
    rows = _sequence(gram)
    if (
        not isinstance(rows, Sequence)
        or len(rows) != n
        or any(not isinstance(row, Sequence) or len(row) != n for row in map(_sequence, rows))
    ):
        raise ValueError(f"{operator}: gram must be a matrix of shape (n, n), n = {n} for this p")
    return [[_rational(operator, "gram", value) for value in _sequence(row)] for row in rows]


def certify_positive(p: Any, gram: Any, *, strict: bool = True) -> bool:
    """Whether a Gram matrix proves that a binary form is positive, in exact arithmetic.

    True if gram is symmetric and positive definite and its antidiagonal sums are exactly the coefficients of p: then p(x, y) = v^T Q v > 0
    for (x, y) != 0, v = (y^d, ..., x^d). False says that this is no proof, not that p is not positive.

    Floating-point numbers are taken as the rationals that they are, so that the Gram of a solver, whose antidiagonal sums are p up to
    rounding only, must be rounded first: :func:`rational_gram`.

    Args:
        p: 2 d + 1 coefficients of x^k y^(2d - k): a vector, or a sequence of integers, fractions or floats.
        gram: (d + 1, d + 1), of the same kinds of numbers.
        strict: with False, positive semidefinite is enough, which proves p >= 0.

    Raises ValueError for odd degree, wrong shapes and numbers that are not finite; TypeError for what is no number.

    >>> gram = [[1, 0, -1], [0, 2, 0], [-1, 0, 1]]  # x^4 + y^4 = (x^2 - y^2)^2 + 2 (x y)^2
    >>> certify_positive([1, 0, 0, 0, 1], gram), certify_positive([1, 0, 0, 0, 1], gram, strict=False)
    (False, True)
    """
    form = _form("certify_positive", p)
    matrix = _gram("certify_positive", gram, len(form) // 2 + 1)
    n = len(matrix)
    if any(matrix[i][j] != matrix[j][i] for i in range(n) for j in range(i)):
        return False
    if any(value != sum(matrix[i][k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) for k, value in enumerate(form)):
        return False
    return semidefinite_rank(matrix) >= (n if strict else 0)


def semidefinite_rank(matrix: list[list[Fraction]]) -> int:
    """The rank of a positive semidefinite matrix, -1 for others: Bareiss elimination in integers, with pivots on the diagonal.

    Each pivot is a principal minor, so its sign decides; where all remaining diagonal entries vanish the rest must vanish too.
    """
    scale = math.lcm(*(value.denominator for row in matrix for value in row))
    rows = [[int(value * scale) for value in row] for row in matrix]
    previous, n = 1, len(rows)
    for rank in range(n):
        if any(rows[i][i] < 0 for i in range(rank, n)):
            return -1
        pivot = next((i for i in range(rank, n) if rows[i][i]), None)
        if pivot is None:
            return rank if not any(rows[i][j] for i in range(rank, n) for j in range(rank, n)) else -1
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for row in rows:
            row[rank], row[pivot] = row[pivot], row[rank]
        head = rows[rank]
        for i in range(rank + 1, n):
            row = rows[i]
            for j in range(rank + 1, n):
                row[j] = (row[j] * head[rank] - row[rank] * head[j]) // previous
        previous = head[rank]
    return n


def rational_gram(p: Any, gram: Any) -> Rational:
    """A Gram matrix in rationals whose antidiagonal sums are exactly p, next to a numerical one.

    The rounding errors of each antidiagonal, p_k - A(Q)_k, go to its middle, where the entries of Gram matrices are largest. If gram is
    positive definite by more than these errors, so is the result; :func:`certify_positive` tells.

    Args:
        p: 2 d + 1 coefficients: a vector, or a sequence of integers, fractions or floats.
        gram: (d + 1, d + 1); its symmetric part is taken.

    Raises ValueError and TypeError as :func:`certify_positive`.

    >>> import isotypic as iso
    >>> p = torch.tensor([1.0, 0.1, 0.0, 0.2, 1.0], dtype=torch.float64)
    >>> certify_positive(p, rational_gram(p, iso.ops.max_det_gram(p).gram))
    True
    """
    form = _form("rational_gram", p)
    n = len(form) // 2 + 1
    given = _gram("rational_gram", gram, n)
    matrix = [[(given[i][j] + given[j][i]) / 2 for j in range(n)] for i in range(n)]
    for k, value in enumerate(form):
        rest = value - sum(matrix[i][k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1))
        low, high = k // 2, (k + 1) // 2
        matrix[low][high] += rest / (1 + k % 2)
        if low != high:
            matrix[high][low] += rest / 2
    return tuple(tuple(row) for row in matrix)


def certify_witness(p: Any, point: Any) -> bool:
    """Whether p(x, y) <= 0 at a point other than the origin, in exact arithmetic: the proof that a form is not positive.

    Args:
        p: degree + 1 coefficients of x^k y^(degree - k), of even degree: a vector, or a sequence of integers, fractions or floats.
        point: (x, y).

    Raises ValueError and TypeError as :func:`certify_positive`.

    >>> certify_witness([1, 0, -3, 0, 1], (1, 1)), certify_witness([1, 0, -1, 0, 1], (1, 1))
    (True, False)
    """
    form = _form("certify_witness", p)
    values = _sequence(point)
    if not isinstance(values, Sequence) or len(values) != 2:
        raise ValueError(f"certify_witness: point must be (x, y), got {point!r}")
    x, y = (_rational("certify_witness", "point", value) for value in values)
    degree = len(form) - 1
    return not x == y == 0 and sum(value * x**k * y ** (degree - k) for k, value in enumerate(form)) <= 0
