"""max_det_gram next to the boundary of the positive forms: accuracy of values and derivatives against mpmath, frames, candidates."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import pytest
import torch
from forms.form_cases import action_matrix, antidiagonal_sums, exact_action, round_forms, sums_of_squares
from torch import Tensor

import isotypic as iso
from isotypic.ops.forms.framed import proven_negative
from isotypic.ops.forms.max_det import max_det_frame
from isotypic.sl2.rational import semidefinite_rank

EPS = torch.finfo(torch.float64).eps
max_det_gram = iso.ops.max_det_gram


def touching(e: float) -> Tensor:
    """x^4 - 2 x^2 y^2 + y^4 + e y^4, whose Gram has the entry Q11 = 2 (sqrt(4 + 3 e) - 2) / 3."""
    return torch.tensor([1 + e, 0, -2, 0, 1], dtype=torch.float64)


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("exponent", range(2, 10))
def test_value_and_derivatives_are_as_accurate_as_the_estimate_says(exponent: int, frame: bool) -> None:
    p = touching(10.0**-exponent).requires_grad_()
    result = max_det_gram(p, frame=frame)
    error = float(result.error)
    assert int(result.status) == 0 and error < min(1e-6, 100 * EPS * 10.0**exponent) + 1e-8
    (first,) = torch.autograd.grad(result.gram[1, 1], p, create_graph=True)
    (second,) = torch.autograd.grad(first[0], p)
    with mpmath.workdps(50):
        root = mpmath.sqrt(4 + 3 * (mpmath.mpf(float(p[0])) - 1))
        expected = 2 * (root - 2) / 3, 1 / root, -mpmath.mpf(3) / 2 / root**3
        off = [float(abs(mpmath.mpf(float(a)) / b - 1)) for a, b in zip((result.gram[1, 1], first[0], second[0]), expected, strict=True)]
    assert max(off[:2]) < 12 * error + 8 * EPS
    assert off[2] < 10 * error * max(error / EPS, 1)


@pytest.mark.parametrize("exponent", [11, 12])
def test_what_is_not_accurate_says_so(exponent: int) -> None:
    p = touching(10.0**-exponent).requires_grad_()
    plain, framed = max_det_gram(p), max_det_gram(p, frame=True)
    assert int(plain.status) == int(framed.status) == 4 and not plain.gram.any()
    with mpmath.workdps(50):
        expected = float(2 * (mpmath.sqrt(4 + 3 * (mpmath.mpf(float(p[0])) - 1)) - 2) / 3)
    assert 1e-6 < float(framed.error) < 1 and abs(float(framed.gram[1, 1]) / expected - 1) < 1000 * float(framed.error)
    assert (antidiagonal_sums(framed.gram) - p).abs().max() < 1e-14
    for result in (plain, framed):
        assert not torch.autograd.grad(result.gram.sum(), p, retain_graph=True)[0].any()


def solve_exactly(p: mpmath.matrix, y: mpmath.matrix | None = None) -> tuple[mpmath.matrix, mpmath.matrix]:
    """Newton on min <p, y> - log det Hankel(y), in monomials: the Gram and y."""
    m = len(p)
    n = m // 2 + 1
    if y is None:
        y = mpmath.matrix([mpmath.fac2(k - 1) * mpmath.fac2(m - 2 - k) if k % 2 == 0 else 0 for k in range(m)])
        y *= n / sum(a * b for a, b in zip(p, y, strict=True))
    for _ in range(200):
        gram = mpmath.inverse(mpmath.matrix(n, n) + mpmath.matrix([[y[i + j] for j in range(n)] for i in range(n)]))
        gradient, hessian = p.copy(), mpmath.matrix(m, m)
        for i in range(n):
            for j in range(n):
                gradient[i + j] -= gram[i, j]
                for k in range(n):
                    for o in range(n):
                        hessian[i + j, k + o] += gram[i, k] * gram[j, o]
        step = mpmath.lu_solve(hessian, gradient)
        decrement = mpmath.sqrt(abs(sum(a * b for a, b in zip(gradient, step, strict=True))))
        y -= step * (1 if decrement < 0.25 else 1 / (1 + decrement))
        if decrement < mpmath.mpf(10) ** (-mpmath.mp.dps // 2):
            break
    return gram, y


@pytest.mark.parametrize("exponent", [5, 8])
def test_gradient_next_to_the_boundary_against_mpmath(exponent: int) -> None:
    """((x - y)(x + 2 y))^2 (x^2 + y^2) + 10^-exponent (x^2 + y^2)^3: a degree where no entry has a closed form."""
    square = torch.tensor([4.0, -4, -3, 2, 1], dtype=torch.float64)  # ((x - y)(x + 2 y))^2
    p = torch.zeros(7, dtype=torch.float64)
    p[:5] += square
    p[2:] += square
    p += 10.0**-exponent * torch.tensor([1.0, 0, 3, 0, 3, 0, 1], dtype=torch.float64)
    p.requires_grad_()
    result = max_det_gram(p)
    assert int(result.status) == 0
    generator = torch.Generator().manual_seed(0)
    cotangent = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    direction = torch.randn(7, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((result.gram * cotangent).sum(), p)
    with mpmath.workdps(60):
        exact = mpmath.matrix([mpmath.mpf(v) for v in p.tolist()])
        gram, y = solve_exactly(exact)
        step = mpmath.mpf(10) ** -24
        ends = [solve_exactly(exact + sign * step * mpmath.matrix(direction.tolist()), y)[0] for sign in (1, -1)]
        slope = sum((ends[0][i, j] - ends[1][i, j]) * float(cotangent[i, j]) for i in range(4) for j in range(4)) / (2 * step)
        expected = torch.tensor([[float(gram[i, j]) for j in range(4)] for i in range(4)], dtype=torch.float64)
    error = float(result.error)
    assert (result.gram - expected).abs().max() < 10 * error * expected.abs().max()
    assert abs(float(gradient @ direction) / float(slope) - 1) < 1e-6


def test_balanced_forms_are_decided() -> None:
    """2 (3 x^2 - 1)^2 + 1e-5 (x^2 + 1)^3, whose ends are far apart."""
    p = torch.tensor([2.00001, 0, -11.99997, 0, 18.00003, 0, 1e-5], dtype=torch.float64)
    for frame in (False, True):
        assert int(max_det_gram(p, frame=frame).status) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_coefficients_that_scaling_loses_prove_nothing(dtype: torch.dtype) -> None:
    tiny, huge = (1e-30, 1e30) if dtype == torch.float32 else (1e-200, 1e200)
    rows = [
        [tiny, 0, huge, 0, huge],
        [huge, 0, huge, 0, tiny],
        [tiny, 0, huge, 0, tiny],
        [tiny, 0, 1, 0, 1],
        [tiny, 0, huge],
        [huge, 0, tiny],
    ]
    for row in rows:
        for frame in (False, True):
            assert int(max_det_gram(torch.tensor(row, dtype=dtype), frame=frame).status) in (0, 2, 4)
            assert int(max_det_gram(-torch.tensor(row, dtype=dtype), frame=frame).status) == 1


@pytest.mark.parametrize("degree", [16, 40])
def test_rounded_grams_are_positive_definite(degree: int) -> None:
    """float32 in, float32 out: what has status 0 is positive definite as it is returned."""
    p = sums_of_squares(degree, 30).float()
    for frame in (False, True):
        result = max_det_gram(p, frame=frame)
        assert set(result.status.tolist()) <= {0, 4}
        for matrix in result.gram[result.status == 0][:6]:
            assert semidefinite_rank([[Fraction(v) for v in row] for row in matrix.tolist()]) == degree // 2 + 1
        assert (torch.linalg.eigvalsh(result.gram[result.status == 0].double()) > 0).all()


# Frames


def moved(degree: int, count: int, condition: float, seed: int = 0) -> Tensor:
    """Random sums of squares, moved by elements of a given condition and rounded."""
    generator = torch.Generator().manual_seed(seed)
    angles = 6.3 * torch.rand(2, count, generator=generator, dtype=torch.float64)
    first, second = (torch.stack([torch.stack([a.cos(), -a.sin()], -1), torch.stack([a.sin(), a.cos()], -1)], -2) for a in angles)
    stretch = torch.diag(torch.tensor([condition**0.5, condition**-0.5], dtype=torch.float64))
    return iso.ops.form_action(sums_of_squares(degree, count, seed), first @ stretch @ second)


@pytest.mark.parametrize("degree", [4, 8, 12, 16, 20])
def test_moved_forms_are_decided(degree: int) -> None:
    p = moved(degree, 500, 10.0)
    result = max_det_gram(p, frame=True)
    assert (result.status == 2).float().mean() < 0.01
    for row, status, matrix, point in list(zip(p, result.status.tolist(), result.gram, result.witness, strict=True))[:12]:
        verdict = iso.sl2.certify(row).verdict
        assert status == 2 or (verdict == "positive") == (status in (0, 4))
        if status == 0:
            assert iso.sl2.certify_positive(row, iso.sl2.rational_gram(row, matrix))
        if status == 1:
            assert iso.sl2.certify_witness(row, point) and 0.49 < float(point.norm()) < 1.51
        if status != 1:
            assert (antidiagonal_sums(matrix) - row).abs().max() < 1e-13 * (degree + 1) * matrix.abs().max()


def test_a_frame_changes_nothing_for_what_is_solved_without() -> None:
    p = sums_of_squares(8, 40)
    plain, framed = max_det_gram(p), max_det_gram(p, frame=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, framed, strict=True))


@pytest.mark.parametrize("degree", [10, 16])
def test_what_is_solved_without_a_frame_is_solved_with_one(degree: int) -> None:
    """Two words for each number solve a third of these, whose Gram loses too much on its way back from the frame."""
    p = moved(degree, 200, 10.0)
    plain, framed = max_det_gram(p), max_det_gram(p, frame=True)
    solved = plain.status == 0
    assert int(solved.sum()) > 40 and not framed.status[solved].any()
    assert (framed.error[solved] <= 1e-6).all()


def test_gradients_in_a_frame_are_those_of_the_form_before_it_was_moved() -> None:
    degree = 8
    p = round_forms(degree, 3).requires_grad_()
    g = torch.tensor([[3.0, 1.0], [2.0, 1.0]], dtype=torch.float64) @ torch.diag(torch.tensor([3.0, 1 / 3], dtype=torch.float64))
    small, large = action_matrix(g, degree // 2), action_matrix(g, degree)
    cotangent = torch.randn(3, 5, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((max_det_gram(p).gram * (small.T @ cotangent @ small)).sum(), p)
    far = (p.detach() @ large.T).requires_grad_()
    result = max_det_gram(far, frame=True)
    assert not result.status.any()
    (found,) = torch.autograd.grad((result.gram * cotangent).sum(), far)
    assert (found @ large - expected).norm() < 1e-4 * expected.norm()


def test_transforms_in_a_frame() -> None:
    p = torch.cat([moved(6, 3, 30.0), round_forms(6, 2), -round_forms(6, 1)])
    expected = max_det_gram(p, frame=True)
    mapped = torch.func.vmap(lambda row: max_det_gram(row, frame=True))(p)
    assert torch.equal(mapped.status, expected.status) and expected.status.tolist()[-1] == 1
    solved = expected.status == 0
    torch.testing.assert_close(mapped.gram[solved], expected.gram[solved], rtol=1e-9, atol=1e-9)
    compiled = torch.compile(lambda rows: max_det_gram(rows, frame=True).gram, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(p)[solved], expected.gram[solved], rtol=1e-9, atol=1e-9)
    tangent = torch.func.jvp(lambda rows: max_det_gram(rows, frame=True).gram, (p[3:5],), (p[3:5],))[1]
    torch.testing.assert_close(tangent, expected.gram[3:5])


def test_proofs_at_a_point_bound_all_rounding() -> None:
    """(x - a y)^2 for a with many digits is positive at every stored point, however close."""
    a = torch.tensor([1 / 3, 0.7, 1.1, 3**0.5], dtype=torch.float64)
    p = torch.stack([a * a, -2 * a, torch.ones_like(a)], -1)
    points = torch.stack([a, torch.ones_like(a)], -1)
    points = points / points.norm(dim=-1, keepdim=True)
    for row, point, proven in zip(p, points, proven_negative(p, points).tolist(), strict=True):
        x, y = map(Fraction, point.tolist())
        value = sum(Fraction(c) * x**k * y ** (2 - k) for k, c in enumerate(row.tolist()))
        assert not proven or value < 0
    below = p - 1e-15 * torch.tensor([1.0, 0, 1], dtype=torch.float64)
    assert proven_negative(below, points).all() and not proven_negative(-below, points).any()


def test_frame_must_be_a_truth_value() -> None:
    with pytest.raises(TypeError, match=r"^max_det_gram: frame must be True or False, got 1"):
        max_det_gram(touching(1.0), frame=1)  # type: ignore[arg-type]


def test_frames_are_constants() -> None:
    """p o h in two words, right to rounding; its operator has no derivative, and every other guarantee."""
    p = moved(6, 5, 30.0)
    found = max_det_frame(p)
    h = found[:, 7:].reshape(-1, 2, 2)
    assert ((torch.linalg.det(h) - 1).abs() < 1e-9).all()
    for row, framed, matrix in zip(p, found[:, :7], h, strict=True):
        exact = exact_action(row, matrix)
        assert max(abs(float(u) - v) for u, v in zip(exact, framed.tolist(), strict=True)) <= 4 * EPS * float(framed.abs().max())
    torch.library.opcheck(torch.ops.isotypic.max_det_frame.default, (p,))
