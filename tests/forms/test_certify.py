"""Exact certificates: never a wrong yes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import isotypic as iso

certify, rational = iso.sl2.certify_positive, iso.sl2.rational_gram


def sums_of_squares(degree: int, count: int) -> torch.Tensor:
    n = degree // 2 + 1
    a = torch.randn(count, n, n, dtype=torch.float64)
    return iso.ops.gram_to_form(a.mT @ a + 1e-8 * torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("degree", [0, 2, 6, 14, 20, 40])
def test_the_solver_is_certified(degree: int) -> None:
    p = sums_of_squares(degree, 3)
    for row, gram in zip(p, iso.ops.max_det_gram(p).gram, strict=True):
        exact = rational(row, gram)
        assert certify(row, exact)
        assert all(abs(float(a) - float(b)) < 1e-6 * float(gram.abs().max()) for a, b in zip(sum(exact, ()), gram.flatten(), strict=True))
        # One unit in the last place of a coefficient is another form.
        row[degree] = torch.nextafter(row[degree], torch.tensor(torch.inf, dtype=torch.float64))
        assert not certify(row, exact)


def test_kinds_of_numbers() -> None:
    gram = [[1, 0, -1], [0, 3, 0], [-1, 0, 2]]
    p = [1, 0, 1, 0, 2]
    for kind in (list, tuple, np.array, torch.tensor, lambda v: np.array(v, dtype=np.float32)):
        assert certify(kind(p), kind(gram))
    third = Fraction(1, 3)
    assert certify([third, 0, third], [[third, 0], [0, third]])
    assert not certify([1 / 3, 0, 1 / 3], [[third, 0], [0, third]])  # 1 / 3 in floating point is another number


def test_definite_and_semidefinite() -> None:
    square = [[1, 0, -1], [0, 0, 0], [-1, 0, 1]]  # (x^2 - y^2)^2
    assert not certify([1, 0, -2, 0, 1], square) and certify([1, 0, -2, 0, 1], square, strict=False)
    assert certify([0], [[0]], strict=False) and not certify([0], [[0]])
    indefinite = [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert not certify([0, 2, 0, 0, 0], indefinite, strict=False)
    assert not certify([0, 1, 0], [[0, 0], [1, 0]], strict=False)  # not symmetric


def test_random_matrices_against_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(3)
    verdicts = []
    for _ in range(200):
        root = torch.randint(-3, 4, (4, 4), generator=generator)
        gram = root.T @ torch.diag(torch.randint(-1, 3, (4,), generator=generator)) @ root
        values = torch.linalg.eigvalsh(gram.double())
        p = iso.ops.gram_to_form(gram.double())
        if values.abs().min() > 1e-6:
            verdicts.append(certify(p, gram))
            assert verdicts[-1] == bool(values.min() > 0) == certify(p, gram, strict=False)
        elif values.min() < -1e-6:
            assert not certify(p, gram, strict=False)
        else:
            assert certify(p, gram, strict=False) == bool(values.min() > -1e-9)
    assert True in verdicts and False in verdicts


def test_tiny_violations_are_seen() -> None:
    tiny = Fraction(1, 10**60)
    assert certify([1, 0, 2, 0, 1], [[1, 0, -1 + tiny], [0, 4 - 2 * tiny, 0], [-1 + tiny, 0, 1]])
    assert not certify([1, 0, 2, 0, 1], [[1, 0, -1 - tiny], [0, 4 + 2 * tiny, 0], [-1 - tiny, 0, 1]], strict=False)


def test_witnesses() -> None:
    assert iso.sl2.certify_witness([1, 0, -2, 0, 1], (1, 1))
    assert not iso.sl2.certify_witness([1, 0, -2, 0, 1], (0, 0))  # the origin proves nothing
    assert not iso.sl2.certify_witness([1, 0, -2, 0, 1], torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: certify([1.0, 2.0], [[1.0]]), "certify_positive: p must have even degree, got degree 1"),
        (lambda: certify([1.0, 0.0, 1.0], [[1.0]]), r"certify_positive: gram must be a matrix of shape \(n, n\), n = 2"),
        (lambda: certify([1.0, float("nan"), 1.0], [[1, 0], [0, 1]]), "certify_positive: p must hold finite numbers, got nan"),
        (lambda: certify([1.0, 0.0, 1.0], [[1, 0], [0, float("inf")]]), "certify_positive: gram must hold finite numbers, got inf"),
        (lambda: certify([1.0, None, 1.0], [[1, 0], [0, 1]]), "certify_positive: p must hold numbers, got None"),
        (lambda: certify(torch.ones(2, 3), torch.eye(2)), "certify_positive: p must be one form"),
        (lambda: rational([1.0, 0.0, 1.0], torch.eye(3)), "rational_gram: gram must be a matrix"),
        (lambda: iso.sl2.certify_witness([1.0, 0.0, 1.0], (1.0,)), r"certify_witness: point must be \(x, y\)"),
    ],
)
def test_wrong_arguments(call, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match="^" + text):
        call()
