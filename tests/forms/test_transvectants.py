"""Transvectants against exact rationals, the identities of the classical theory, and their orthogonality."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest
import torch
from torch import Tensor

from isotypic.nn import Transvectants
from isotypic.ops import form_action, transvectant, transvectant_paths, transvectants
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan, norm_squared
from isotypic.sl2 import from_scaled, random_sl2, to_scaled

EPS = torch.finfo(torch.float64).eps
Form = list[Fraction]


def exact(p: Form, q: Form, k: int) -> Form:
    """The definition: derivatives of polynomials in rational arithmetic."""

    def differentiate(p: Form, in_x: int, in_y: int) -> Form:
        for _ in range(in_x):
            p = [i * p[i] for i in range(1, len(p))]
        for _ in range(in_y):
            p = [(len(p) - 1 - i) * p[i] for i in range(len(p) - 1)]
        return p

    m, n = len(p) - 1, len(q) - 1
    total = [Fraction(0)] * (m + n - 2 * k + 1)
    for r in range(k + 1):
        left, right = differentiate(p, k - r, r), differentiate(q, r, k - r)
        for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
            total[i + j] += (-1) ** r * comb(k, r) * a * b
    return [Fraction(factorial(m - k) * factorial(n - k), factorial(m) * factorial(n)) * value for value in total]


@pytest.mark.parametrize("m", range(9))
def test_exact_rationals(m: int) -> None:
    generator = np.random.default_rng(m)
    for n in range(9):
        p, q = ([Fraction(int(value)) for value in generator.integers(-5, 6, degree + 1)] for degree in (m, n))
        for k in range(min(m, n) + 1):
            expected = torch.tensor([float(value) for value in exact(p, q, k)], dtype=torch.float64)
            tensors = [torch.tensor([float(value) for value in form], dtype=torch.float64) for form in (p, q)]
            found = transvectant(*tensors, k)
            scale = float(Fraction(*norm_squared(m, n, k))) ** 0.5 * to_scaled(tensors[0]).norm() * to_scaled(tensors[1]).norm()
            assert (to_scaled(found) - to_scaled(expected)).norm() <= 16 * EPS * scale
            swapped = transvectant(tensors[1], tensors[0], k)
            assert (to_scaled(swapped) - (-1) ** k * to_scaled(found)).norm() <= 16 * EPS * scale
            normalized = transvectant(*tensors, k, normalize=True)
            assert torch.allclose(normalized * float(Fraction(*norm_squared(m, n, k))) ** 0.5, found, rtol=1e-14, atol=1e-300)


def test_worked_example() -> None:
    f = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)  # x^2 y + y^3
    g = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64)  # x^2 - 2 y^2
    assert torch.allclose(transvectant(f, g, 1), torch.tensor([0, -7 / 3, 0, -1 / 3], dtype=torch.float64), atol=1e-15)
    assert torch.allclose(transvectant(f, g, 2), torch.tensor([1 / 3, 0], dtype=torch.float64), atol=1e-15)


def full_matrix(m: int, n: int, k: int) -> np.ndarray:
    table = clebsch_gordan(m, n, k)
    matrix = np.zeros((m + n - 2 * k + 1, m + 1, n + 1))
    for i, j in itertools.product(range(m + 1), range(n + 1)):
        if 0 <= i + j - k <= m + n - 2 * k:
            matrix[i + j - k, i, j] = table[i, j]
    return matrix.reshape(len(matrix), -1)


@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 5), (1, 1), (4, 7), (8, 8)])
def test_clebsch_gordan_matrices_are_one_orthogonal_matrix(m: int, n: int) -> None:
    matrix = np.concatenate([full_matrix(m, n, k) for k in range(min(m, n) + 1)])
    assert matrix.shape == ((m + 1) * (n + 1),) * 2  # the dimension count
    assert np.abs(matrix @ matrix.T - np.eye(len(matrix))).max() < 1e-14


def test_orthogonality_at_degree_40() -> None:
    matrices = [full_matrix(40, 40, k) for k in (0, 1, 2, 20, 21, 39, 40)]
    for a, b in itertools.product(range(len(matrices)), repeat=2):
        product = matrices[a] @ matrices[b].T
        assert np.abs(product - (np.eye(len(product)) if a == b else 0)).max() < 1e-13


def test_lambda() -> None:
    """T_k T_k^T = lambda_k I with the coefficients of the operator."""
    m, n, k = 5, 4, 2
    left, right = torch.eye(m + 1, dtype=torch.float64), torch.eye(n + 1, dtype=torch.float64)
    images = to_scaled(transvectant(from_scaled(left)[:, None], from_scaled(right), k)).flatten(0, 1)
    expected = factorial(k) * factorial(m + n - k + 1) * factorial(m - k) * factorial(n - k)
    expected /= factorial(m) * factorial(n) * factorial(m + n - 2 * k + 1)
    assert torch.allclose(images.mT @ images, expected * torch.eye(m + n - 2 * k + 1, dtype=torch.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 5), (8, 6), (12, 12)])
def test_covariance(m: int, n: int) -> None:
    """(g.p, g.q)_k = det(g)^k g.(p, q)_k."""
    p, q = torch.randn(m + 1, dtype=torch.float64), torch.randn(n + 1, dtype=torch.float64)
    for scale in (1.0, 1.5):
        g = scale * random_sl2((), max_condition=2.0, dtype=torch.float64)
        for k in range(min(m, n) + 1):
            found = to_scaled(transvectant(form_action(p, g), form_action(q, g), k))
            expected = to_scaled(scale ** (2 * k) * form_action(transvectant(p, q, k), g))
            size = to_scaled(form_action(p, g)).norm() * to_scaled(form_action(q, g)).norm()
            assert (found - expected).norm() <= 1e-12 * size * scale ** (m + n)


def test_invariants() -> None:
    a, b, c = torch.randn(3, dtype=torch.float64)
    quadratic = torch.stack([c, b, a])
    assert torch.allclose(transvectant(quadratic, quadratic, 2), 2 * (a * c - b**2 / 4))
    g = random_sl2((), max_condition=2.0, dtype=torch.float64)
    for degree in (2, 4, 6, 8):
        p = torch.randn(degree + 1, dtype=torch.float64)
        assert torch.allclose(
            transvectant(p, p, degree), transvectant(form_action(p, g), form_action(p, g), degree), rtol=1e-10, atol=1e-12
        )

    def quartic(p: Tensor) -> tuple[Tensor, Tensor]:
        return transvectant(p, p, 4), transvectant(transvectant(p, p, 2), p, 4)

    # a x^4 + 4 b x^3 y + 6 c x^2 y^2 + 4 d x y^3 + e y^4: I = 2 (a e - 4 b d + 3 c^2), J = 6 times the catalecticant.
    a, b, c, d, e = torch.randn(5, dtype=torch.float64)
    p = torch.stack([e, 4 * d, 6 * c, 4 * b, a])
    i, j = quartic(p)
    hankel = torch.stack([torch.stack([a, b, c]), torch.stack([b, c, d]), torch.stack([c, d, e])])
    assert torch.allclose(i, 2 * (a * e - 4 * b * d + 3 * c**2))
    assert torch.allclose(j, 6 * torch.linalg.det(hankel))
    assert all(torch.allclose(u, v, rtol=1e-10, atol=1e-12) for u, v in zip(quartic(form_action(p, g)), (i, j), strict=True))


def test_odd_transvectants_of_a_form_with_itself_vanish() -> None:
    for degree in (1, 2, 5, 8):
        p = torch.randn(degree + 1, dtype=torch.float64)
        for k in range(1, degree + 1, 2):
            assert transvectant(p, p, k).abs().max() <= 8 * EPS * to_scaled(p).norm() ** 2 * comb(2 * degree, degree) ** 0.5


def test_paths() -> None:
    """Of 69 pairs and k with results up to degree 10, the 12 of a form with itself and odd k are left out."""
    degrees = [0, 2, 4, 6, 8, 10]
    paths = transvectant_paths(degrees, 10)
    everything = [
        (s, t, k)
        for s in range(6)
        for t in range(s, 6)
        for k in range(min(degrees[s], degrees[t]) + 1)
        if degrees[s] + degrees[t] - 2 * k <= 10
    ]
    assert len(everything) == 69 and len(paths) == 57
    assert set(everything) - set(paths) == {(s, s, k) for s, t, k in everything if s == t and k % 2}
    reached = [degrees[s] + degrees[t] - 2 * k for s, t, k in paths]
    assert reached == sorted(reached)
    with pytest.raises(ValueError, match=r"^transvectant_paths: degrees must be at least 0, got \[2, -1\]"):
        transvectant_paths([2, -1])
    assert transvectant_paths(np.array([2, 4]), np.int64(2)) == transvectant_paths([2, 4], 2)
    assert transvectant(torch.ones(3), torch.ones(3), np.int64(1)).shape == (3,)  # type: ignore[arg-type]
    for wrong, text in ((3, "3"), ([1.5], r"\[1.5\]"), ([True], r"\[True\]"), ("24", "'24'")):
        with pytest.raises(TypeError, match=rf"^transvectant_paths: degrees must be a sequence of integers, got {text}"):
            transvectant_paths(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^transvectant_paths: max_degree must be an integer or None, got 1.5"):
        transvectant_paths([2], 1.5)  # type: ignore[arg-type]


def test_arguments_of_the_layer() -> None:
    layer = Transvectants(np.array([2, 4]), np.int64(4), np.int64(3), np.int64(2), degrees_out=np.array([4, 0]))  # type: ignore[arg-type]
    assert layer.degrees_out == (0, 4) and layer(torch.zeros(1, 3, 8)).shape == (1, 2, 6)
    with pytest.raises(TypeError, match=r"^Transvectants: degrees_in must be a sequence of integers, got 4"):
        Transvectants(4, 4, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^Transvectants: degrees_out must be a sequence of integers, got 4"):
        Transvectants([4], 4, 3, degrees_out=4)  # type: ignore[arg-type]
    for wrong in ([], [1.5], [-2], [True]):
        with pytest.raises(ValueError, match=r"^Transvectants: degrees_in must hold integers of at least 0, got "):
            Transvectants(wrong, 4, 3)


def test_batches_broadcast() -> None:
    p, q = torch.randn(4, 1, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    y = transvectant(p, q, 1)
    assert y.shape == (4, 5, 4)
    assert torch.allclose(y[2, 3], transvectant(p[2, 0], q[3], 1), atol=1e-15)


def test_bad_values() -> None:
    p, q = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    assert not transvectant(torch.zeros_like(p), q, 2).any()
    broken = p.clone()
    broken[1, 2] = float("nan")
    y = transvectant(broken, q, 2)
    assert torch.equal(y[[0, 2]], transvectant(p, q, 2)[[0, 2]]) and y[1].isnan().any()
    for scale in (2.0**330, 2.0**-330):
        assert torch.equal(transvectant(scale * p, q, 2), scale * transvectant(p, q, 2))
    assert torch.allclose(transvectant(p[:, :1], q, 0), p[:, :1] * q)  # degree 0
    assert transvectant(p[:, :2], q[:, :2], 1).shape == (3, 1)  # odd degrees


def test_many_channels_in_blocks() -> None:
    """More channels than one block of the kernel holds, and the polarisation against sums."""
    degrees = (6, 8)
    paths = transvectant_paths(degrees)
    f, weight = torch.randn(5, 60, 16, dtype=torch.float64), torch.randn(60, len(paths), 3, dtype=torch.float64)
    whole = transvectants(f, weight, degrees=degrees, paths=paths)
    parts = sum(transvectants(f[:, c : c + 1], weight[c : c + 1], degrees=degrees, paths=paths) for c in range(60))
    assert isinstance(parts, Tensor)
    assert (whole - parts).norm() < 100 * EPS * whole.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("out_channels", [1, 5, 18, 50])
def test_samples_do_not_see_their_batch(out_channels: int, dtype: torch.dtype) -> None:
    """Whole tiles of samples, tiles with empty lanes and single samples give the same numbers; the weight's gradient is their sum."""
    degrees, channels = [0, 3, 12], 37  # antidiagonals of 13 are cut in two
    paths = transvectant_paths(degrees, 8)
    f = torch.randn(35, channels, 18, dtype=dtype, requires_grad=True)
    weight = torch.randn(channels, len(paths), out_channels, dtype=dtype, requires_grad=True)
    y = transvectants(f, weight, degrees=degrees, paths=paths)
    z = torch.randn_like(y)
    whole = (y, *torch.autograd.grad(y, (f, weight), z))
    for count in (1, 2, 7, 20, 29):
        parts = []
        for first in range(0, 35, count):
            part = transvectants(f[first : first + count], weight, degrees=degrees, paths=paths)
            parts.append((part, *torch.autograd.grad(part, (f, weight), z[first : first + count])))
        y, for_f, for_weight = zip(*parts, strict=True)
        eps = torch.finfo(dtype).eps
        for found, expected in (
            (torch.cat(y), whole[0]),
            (torch.cat([g[i * count : (i + 1) * count] for i, g in enumerate(for_f)]), whole[1]),
        ):
            assert (found - expected).norm() <= 8 * eps * expected.norm()
        assert (sum(for_weight) - whole[2]).norm() <= 64 * eps * whole[2].norm()
