"""Symmetric Gram matrices and their parts: Sym^2 V_d = V_2d + V_(2d-4) + V_(2d-8) + .., by the orthogonal Clebsch-Gordan matrices."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from isotypic._constants import Constants
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan, roots_of_binomials


def part_degrees(degree: int) -> list[int]:
    """The degrees of the parts of a Gram matrix of a form of this even degree: degree, degree - 4, .., down to 0 or 2."""
    return list(range(degree, -1, -4))


@cache
def gram_basis(degree: int) -> np.ndarray:
    """(n, n, n (n+1) / 2), n = degree / 2 + 1: a symmetric matrix in the monomial basis from the parts in scaled coordinates, one after the
    other in the order of `part_degrees`. The antidiagonal sums of the first part are its form, those of the others zero."""
    half = degree // 2
    columns = np.zeros((half + 1, half + 1, (half + 1) * (half + 2) // 2))
    first = 0
    for k, part in enumerate(part_degrees(degree)):
        table = clebsch_gordan(half, half, 2 * k)
        for i in range(half + 1):
            for j in range(half + 1):
                if 0 <= i + j - 2 * k <= part:
                    columns[i, j, first + i + j - 2 * k] = table[i, j]
        first += part + 1
    roots = np.array(roots_of_binomials(half))
    basis = columns * roots[:, None, None] * roots[:, None]
    basis.setflags(write=False)
    return basis


def triangle(size: int) -> np.ndarray:
    """(size, size): where the entries of a symmetric matrix lie in its upper triangle, row by row."""
    rows, columns = np.triu_indices(size)
    place = np.empty((size, size), dtype=np.int64)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return place


class GramHead(Constants):
    """From the form and the other parts of its Gram matrix, in scaled coordinates, to the matrix."""

    basis: Tensor
    place: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__({"basis": gram_basis(degree)[np.triu_indices(degree // 2 + 1)].T, "place": triangle(degree // 2 + 1)})

    def forward(self, form: Tensor, parts: Tensor) -> Tensor:
        return (torch.cat([form, parts], -1) @ self.basis)[:, self.place]
