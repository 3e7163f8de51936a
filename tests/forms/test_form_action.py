"""The action on binary forms against the definition in exact arithmetic, and what follows from it."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
import torch
from torch import Tensor

from isotypic.ops import form_action
from isotypic.sl2 import from_scaled, random_sl2, to_scaled

EPS = torch.finfo(torch.float64).eps


def exact_matrix(g: list[list[Fraction]], degree: int) -> list[list[Fraction]]:
    """M[l][i] = sum_s C(i, s) C(d-i, l-s) a^s b^(i-s) c^(l-s) e^(d-i-l+s)"""
    (a, b), (c, e) = g
    return [
        [
            sum(
                (
                    comb(i, s) * comb(degree - i, k - s) * a**s * b ** (i - s) * c ** (k - s) * e ** (degree - i - k + s)
                    for s in range(max(0, k - degree + i), min(i, k) + 1)
                ),
                Fraction(0),
            )
            for i in range(degree + 1)
        ]
        for k in range(degree + 1)
    ]


def matrix(g: Tensor, degree: int) -> Tensor:
    """The matrix of the action in the monomial basis, column i the image of x^i y^(d-i)."""
    return form_action(torch.eye(degree + 1, dtype=g.dtype), g).mT


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 6, 7, 8, 9, 10, 14])
def test_exact(degree: int) -> None:
    """Small integers: every intermediate value is an integer below 2^53, so that nothing is rounded."""
    integers = [[2, -1], [3, 1]]
    expected = exact_matrix([[Fraction(entry) for entry in row] for row in integers], degree)
    found = matrix(torch.tensor(integers, dtype=torch.float64), degree)
    assert found.tolist() == [[float(entry) for entry in row] for row in expected]


@pytest.mark.parametrize("degree", [1, 2, 5, 8, 14, 20, 40])
def test_scaled_coordinates(degree: int) -> None:
    """Rotations are orthogonal, cond(M) = cond(g)^d, det M = 1, M(-I) = (-1)^d, and the adjoint of g is g^T."""
    loss = degree * EPS * comb(degree, degree // 2) ** 0.5  # of Horner's rule, in the scaled norm
    rotation = random_sl2((50,), max_condition=1.0, dtype=torch.float64)
    a = torch.randn(50, degree + 1, dtype=torch.float64)
    moved = to_scaled(form_action(from_scaled(a), rotation))
    assert ((moved.norm(dim=1) / a.norm(dim=1) - 1).abs() <= loss).all()
    roots = from_scaled(torch.ones(degree + 1, dtype=torch.float64))
    squeeze = torch.tensor([[2**0.5, 0], [0, 0.5**0.5]], dtype=torch.float64)
    values = torch.linalg.svdvals(matrix(squeeze, degree) * roots / roots[:, None])
    assert abs(values[0] / values[-1] / 2.0**degree - 1) < 1e-12
    g = random_sl2((), max_condition=2.0, dtype=torch.float64)
    scaled, transposed = (matrix(h, degree) * roots / roots[:, None] for h in (g, g.mT))
    assert (scaled.mT - transposed).abs().max() <= 8 * loss * 2 ** (degree / 2)
    if degree <= 14:
        assert abs(torch.linalg.det(scaled) - 1) < 1e-9
    p = torch.randn(degree + 1, dtype=torch.float64)
    assert torch.equal(form_action(p, -torch.eye(2, dtype=torch.float64)), p if degree % 2 == 0 else -p)


@pytest.mark.parametrize("degree", [0, 1, 4, 9, 16])
def test_composition(degree: int) -> None:
    """M(g1) M(g2) = M(g2 g1), for matrices of any determinant."""
    g1, g2 = torch.randn(2, 20, 2, 2, dtype=torch.float64)
    p = torch.randn(20, degree + 1, dtype=torch.float64)
    found, expected = form_action(form_action(p, g2), g1), form_action(p, g2 @ g1)
    size = to_scaled(p).norm(dim=1) * (torch.linalg.matrix_norm(g1, 2) * torch.linalg.matrix_norm(g2, 2)) ** degree
    loss = 16 * (degree + 1) * EPS * comb(degree, degree // 2) ** 0.5
    assert ((to_scaled(found) - to_scaled(expected)).norm(dim=1) <= loss * size).all()


def test_values_at_points() -> None:
    p, g, point = torch.randn(6, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    def value(p: Tensor, x: Tensor) -> Tensor:
        return sum((p[i] * x[0] ** i * x[1] ** (5 - i) for i in range(6)), torch.zeros((), dtype=torch.float64))

    assert torch.allclose(value(form_action(p, g), point), value(p, g @ point))


@pytest.mark.parametrize("degree", [0, 1, 2, 7])
def test_gradients_by_differences(degree: int) -> None:
    p = torch.randn(3, degree + 1, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(form_action, (p, g), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(form_action, (p, g))


def test_batches_broadcast() -> None:
    p, g = torch.randn(4, 1, 3, dtype=torch.float64), torch.randn(5, 2, 2, dtype=torch.float64)
    y = form_action(p, g)
    assert y.shape == (4, 5, 3)
    assert torch.equal(y[2, 3], form_action(p[2, 0], g[3]))
    assert form_action(p[:0], g).shape == (0, 5, 3)


def test_bad_values() -> None:
    """Zero stays zero, NaN stays in its form, scale does not matter, and a singular matrix is a matrix."""
    g = random_sl2((3,), max_condition=2.0, dtype=torch.float64)
    p = torch.randn(3, 9, dtype=torch.float64)
    assert not form_action(torch.zeros_like(p), g).any()
    broken = p.clone()
    broken[1, 4] = float("nan")
    y = form_action(broken, g)
    assert torch.equal(y[[0, 2]], form_action(p, g)[[0, 2]]) and y[1].isnan().any()
    for scale in (2.0**330, 2.0**-330):  # about 1e100 and 1e-100
        assert torch.equal(form_action(scale * p, g), scale * form_action(p, g))
    singular = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
    y = form_action(p[0], singular)  # a multiple of (x + 2 y)^8
    power = torch.tensor([comb(8, i) * 2.0 ** (8 - i) for i in range(9)], dtype=torch.float64)
    assert torch.allclose(y, y[8] * power)
    assert not form_action(p[0], torch.zeros(2, 2, dtype=torch.float64)).any()
    assert torch.equal(form_action(p[:, :1], g), p[:, :1])  # degree 0
