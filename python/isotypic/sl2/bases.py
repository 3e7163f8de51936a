"""Three bases of the binary forms of degree d, and the maps between them.

A form p(x, y) = sum_i p_i x^i y^(d-i) is given by

    monomial  p_i                             what users write; ill-conditioned at high degree
    scaled    a_i = p_i / sqrt(C(d, i))       rotations act as orthogonal matrices (the Bombieri norm); every kernel works in it
    circle    p = sum_j c_j u^j v^(d-j)       with u = x + i y, v = x - i y: rotations by t multiply c_j by exp(i (2j - d) t)

For a real form c_(d-j) is the conjugate of c_j, and on the unit circle p(cos t, sin t) = sum_j c_j exp(i (2j - d) t).
All maps are linear, differentiable in any order and act on the last axis. In the scaled norm each is right to a few roundings: the matrix
from scaled coordinates to sqrt(2^d / C(d, j)) c_j is unitary, and its entries come from exact integers.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import comb

import numpy as np
import torch
from torch import Tensor

from isotypic.ops.forms.clebsch_gordan import check_range, roots_of_binomials

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


@cache
def _products(degree: int) -> tuple[tuple[int, ...], ...]:
    """[i][j]: the integer coefficient of x^i y^(d-i) in (x + y)^j (x - y)^(d-j)."""
    columns = [[1]]
    for _ in range(degree):  # the column j = 0 by (x - y)
        padded = [0, *columns[0], 0]
        columns[0] = [padded[i] - padded[i + 1] for i in range(len(padded) - 1)]
    for j in range(degree):
        # From (x + y)^j (x - y)^(d-j) to j + 1: divide by (x - y), multiply by (x + y).
        quotient, carry = [], 0
        for value in reversed(columns[j][1:]):  # synthetic division from the highest power of x
            carry = value + carry
            quotient.append(carry)
        quotient.reverse()
        columns.append([(quotient[i - 1] if i else 0) + (quotient[i] if i < degree else 0) for i in range(degree + 1)])
    return tuple(zip(*columns, strict=True))


@cache
def circle_matrix(degree: int) -> np.ndarray:
    """(d+1, d+1) complex128: the unitary matrix from scaled coordinates a to the scaled circle coordinates sqrt(2^d / C(d, j)) c_j.

    d is the degree, 0 or more.

    >>> matrix = circle_matrix(3)
    >>> bool(np.allclose(matrix @ matrix.conj().T, np.eye(4)))
    True
    """
    integers = _products(degree)
    # x = (u + v) / 2 and y = -i (u - v) / 2, so x^i y^(d-i) = 2^-d (-i)^(d-i) (u + v)^i (u - v)^(d-i).
    matrix = np.empty((degree + 1, degree + 1), dtype=np.complex128)
    for j in range(degree + 1):
        for i in range(degree + 1):
            square = Fraction(integers[j][i] ** 2 * comb(degree, i), 2**degree * comb(degree, j))
            matrix[j, i] = np.copysign(float(square) ** 0.5, float(integers[j][i])) * (1, -1j, -1, 1j)[(degree - i) % 4]
    matrix.setflags(write=False)
    return matrix


def _check(operator: str, name: str, value: Tensor, complex_valued: bool = False) -> int:
    """The degree of a form."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{operator}: {name} must be a torch.Tensor, got {type(value).__name__}")
    dtypes = tuple(_COMPLEX.values() if complex_valued else _COMPLEX)
    if value.dtype not in dtypes:
        raise TypeError(f"{operator}: {name} must have a dtype of {' or '.join(map(str, dtypes))}, got {value.dtype}")
    if value.dim() < 1 or value.shape[-1] < 1:
        raise ValueError(f"{operator}: {name} must have shape (..., d+1) with d >= 0, got {tuple(value.shape)}")
    degree = value.shape[-1] - 1
    check_range(operator, name, degree, value.dtype)
    return len(range(degree))  # a number also where a compiler has a symbol for it


def _roots(degree: int, like: Tensor) -> Tensor:
    return torch.tensor(roots_of_binomials(degree), dtype=like.dtype, device=like.device)


def _circle_transpose(degree: int, inverse: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(d+1, d+1): the transpose of the matrix from monomial coordinates to those of the circle, or of its inverse. Compilers run it, since
    they cannot trace fractions."""
    roots = np.array(roots_of_binomials(degree))
    matrix = circle_matrix(degree).conj().T * 2.0**degree if inverse else circle_matrix(degree)
    return torch.tensor((roots[:, None] * matrix / roots * 2.0 ** (-degree / 2)).T, dtype=dtype, device=device)


# What torch.compiler.assume_constant_result does, without loading the compiler, which takes longer than all of the package.
_circle_transpose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def to_scaled(p: Tensor) -> Tensor:
    """Monomial to scaled coordinates, a_i = p_i / sqrt(C(d, i)).

    Args:
        p: (..., d+1), float32 or float64; index i belongs to x^i y^(d-i).

    Returns: a tensor of that shape.
    Raises TypeError for other dtypes, ValueError for a scalar, an empty last axis and degrees above 260 (float32) or 1029 (float64).

    >>> to_scaled(torch.tensor([1.0, 2.0, 1.0]))[0]
    tensor(1.)
    """
    return p / _roots(_check("to_scaled", "p", p), p)


def from_scaled(a: Tensor) -> Tensor:
    """Scaled to monomial coordinates, p_i = sqrt(C(d, i)) a_i: the inverse of :func:`to_scaled`, for a (..., d + 1).

    >>> from_scaled(torch.tensor([1.0, 2.0]))  # both roots of binomials are 1
    tensor([1., 2.])
    """
    return a * _roots(_check("from_scaled", "a", a), a)


def to_circle(p: Tensor) -> Tensor:
    """Monomial coordinates to those of the circle: p(x, y) = sum_j c_j (x + i y)^j (x - i y)^(d-j).

    Args:
        p: (..., d+1), float32 or float64; index i belongs to x^i y^(d-i).

    Returns: (..., d+1), complex64 or complex128; c_(d-j) is the conjugate of c_j.
    Raises TypeError for other dtypes, ValueError for a scalar or an empty last axis.

    >>> to_circle(torch.tensor([1.0, 0.0, 1.0]))  # x^2 + y^2 = u v
    tensor([0.+0.j, 1.+0.j, 0.+0.j])
    """
    degree = _check("to_circle", "p", p)
    return p.to(_COMPLEX[p.dtype]) @ _circle_transpose(degree, False, _COMPLEX[p.dtype], p.device)


def from_circle(c: Tensor) -> Tensor:
    """Circle coordinates to monomial ones: the inverse of :func:`to_circle` on the coordinates of real forms.

    Args:
        c: (..., d+1), complex64 or complex128. Where c_(d-j) is not the conjugate of c_j, the form is complex, and its real part is given.

    Returns: (..., d+1), float32 or float64.
    Raises TypeError for other dtypes, ValueError for a scalar or an empty last axis.

    >>> from_circle(to_circle(torch.tensor([1.0, 2.0, 3.0])))
    tensor([1., 2., 3.])
    """
    degree = _check("from_circle", "c", c, complex_valued=True)
    return (c @ _circle_transpose(degree, True, c.dtype, c.device)).real
