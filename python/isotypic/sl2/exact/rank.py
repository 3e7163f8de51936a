"""Whether rational vectors span the space."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from isotypic.sl2.exact.polynomials import integral

PRIMES = (2**61 - 1, 2**89 - 1)
"""An image modulo a prime has at most the rank of the matrix: where it is full, so is that of the matrix."""


def spans(vectors: Sequence[Sequence[Fraction]], size: int) -> bool:
    """Whether the vectors, each of this size, have rank ``size``. Modulo a prime first; exactly where that finds less."""
    if any(len(vector) != size for vector in vectors):
        return False
    rows = [integral(list(vector))[0] for vector in vectors]
    return any(_rank(rows, prime) == size for prime in PRIMES) or _rank(rows, None) == size


def _rank(rows: Sequence[Sequence[int]], prime: int | None) -> int:
    """The rank modulo a prime, or of the integers, by elimination without fractions (Bareiss)."""
    left = [[value % prime for value in row] if prime else list(row) for row in rows]
    rank, previous = 0, 1
    for column in range(len(left[0]) if left else 0):
        pivot = next((i for i in range(rank, len(left)) if left[i][column]), None)
        if pivot is None:
            continue
        left[rank], left[pivot] = left[pivot], left[rank]
        head = left[rank]
        for row in left[rank + 1 :]:
            factor = row[column]
            for k in range(column, len(row)):
                value = row[k] * head[column] - factor * head[k]
                row[k] = value % prime if prime else value // previous
        rank, previous = rank + 1, head[column]
    return rank
