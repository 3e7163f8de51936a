"""The Gram matrix of largest determinant: what characterises it, known values, other solvers, derivatives, and what is no positive form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from forms.form_cases import action_matrix, antidiagonal_sums, round_forms, samples, sums_of_squares
from sympy import Poly, Rational, symbols
from torch import Tensor

import isotypic as iso
from isotypic._extension import kernels
from isotypic.ops.forms import reference

EPS = torch.finfo(torch.float64).eps
DEGREES = [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 30, 40]
max_det_gram = iso.ops.max_det_gram


def gram(p: Tensor) -> Tensor:
    return max_det_gram(p).gram


def circle_residual(p: Tensor, found: Tensor) -> float:
    """The largest of |p - v^T Q v| / max |p| on fine samples of the circle."""
    degree = p.shape[-1] - 1
    v, values = samples(degree // 2, 401), p.double() @ samples(degree, 401).T
    reached = torch.einsum("si,bij,sj->bs", v, found.double(), v)
    return float(((reached - values).abs().amax(-1) / values.abs().amax(-1)).max())


# What characterises the optimum


@pytest.mark.parametrize("degree", DEGREES)
def test_solves_every_degree(degree: int) -> None:
    p = torch.cat([sums_of_squares(degree, 20), round_forms(degree, 17)])
    result = max_det_gram(p)
    n = degree // 2 + 1
    assert result.gram.shape == (37, n, n) and not result.status.any() and not result.witness.any()
    assert (result.iterations >= 1).all() and (result.iterations < 30).all()
    assert torch.equal(result.gram, result.gram.mT)
    assert (torch.linalg.eigvalsh(result.gram) > 0).all()
    assert circle_residual(p, result.gram) < 1e-11
    assert (antidiagonal_sums(result.gram) - p).abs().max() <= 8 * n * EPS * max(float(result.gram.abs().max()), 1.0)


@pytest.mark.parametrize("degree", [2, 4, 6, 8, 10, 14])
def test_inverse_is_hankel(degree: int) -> None:
    p = round_forms(degree, 10)
    inverse = torch.linalg.inv(gram(p))
    n = degree // 2 + 1
    moments = torch.stack([inverse[:, i - i // 2, i // 2] for i in range(degree + 1)], -1)
    assert (inverse - moments.unfold(-1, n, 1)).abs().max() < 1e-10 * inverse.abs().max()
    torch.testing.assert_close((p * moments).sum(-1), torch.full((10,), float(n), dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("degree", [20, 40])
def test_inverse_is_toeplitz_on_the_circle(degree: int) -> None:
    """The same optimality in a basis that is stable at degree 40: exp(i (2j - d) theta) in place of monomials."""
    d = degree // 2
    p = round_forms(degree, 4)
    angle = torch.arange(d + 1, dtype=torch.float64) * torch.pi / (d + 1)
    k = torch.arange(d + 1)
    v = angle.cos()[:, None] ** k * angle.sin()[:, None] ** (d - k)
    w = torch.exp(1j * (2 * k - d) * angle[:, None])
    change = torch.linalg.solve(w, v.to(torch.complex128))  # v = w change
    inverse = torch.linalg.inv(change.conj() @ gram(p).to(torch.complex128) @ change.T)
    for offset in range(d + 1):
        diagonal = inverse.diagonal(offset, -2, -1)
        assert (diagonal - diagonal.mean(-1, keepdim=True)).abs().max() < 1e-8 * inverse.abs().max()


@pytest.mark.parametrize("degree", [2, 4, 6, 10])
def test_matches_newton_on_hankel_matrices(degree: int) -> None:
    p = round_forms(degree, 3)
    expected = torch.stack([reference.max_det_gram(row) for row in p])
    assert (gram(p) - expected).norm() < 1e-10 * expected.norm()


def test_sum_of_eighth_powers() -> None:
    p = torch.zeros(9, dtype=torch.float64)
    p[0] = p[8] = 1
    found = gram(p)
    a, b = 1.563472, 3.126944
    expected = torch.tensor(
        [[1, 0, -a, 0, 1 / 3], [0, b, 0, -8 / 3, 0], [-a, 0, 14 / 3, 0, -a], [0, -8 / 3, 0, b, 0], [1 / 3, 0, -a, 0, 1]],
        dtype=torch.float64,
    )
    assert (found - expected).abs().max() < 1e-6
    assert abs(float(torch.logdet(found)) - 0.863046) < 1e-6


def test_unique_grams() -> None:
    p = torch.tensor([[2.0, 2.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(gram(p)[0], torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64), rtol=0, atol=4 * EPS)
    assert torch.equal(gram(torch.tensor([[3.5]], dtype=torch.float64)), torch.tensor([[[3.5]]], dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("degree", [4, 6, 8])
def test_agrees_with_clarabel(degree: int) -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    pytest.importorskip("clarabel", reason="clarabel is not installed")
    n = degree // 2 + 1
    for p in round_forms(degree, 2, seed=degree):
        q = cvxpy.Variable((n, n), PSD=True)
        sums = [sum(q[i, k - i] for i in range(max(0, k - n + 1), min(k, n - 1) + 1)) == float(p[k]) for k in range(degree + 1)]
        options = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
        cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(q)), sums).solve(solver="CLARABEL", **options)
        assert (gram(p) - torch.from_numpy(q.value)).abs().max() < 1e-6 * float(p.abs().max())


# Symmetry


@pytest.mark.parametrize("degree", [2, 4, 6, 8, 10, 14, 20])
def test_equivariant(degree: int) -> None:
    p = round_forms(degree, 5)
    for seed in range(3):
        g = iso.sl2.random_sl2(max_condition=2.0, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        small, large = action_matrix(g, degree // 2), action_matrix(g, degree)
        expected = small @ gram(p) @ small.T
        assert (gram(p @ large.T) - expected).norm() < 1e-10 * expected.norm()
        torch.testing.assert_close(torch.logdet(expected), torch.logdet(gram(p)), rtol=0, atol=1e-8)


def test_homogeneous() -> None:
    p = sums_of_squares(8, 3)
    scales = torch.tensor([1e-100, 1e-3, 7.0, 1e100, 2.0**900], dtype=torch.float64)[:, None, None]
    expected = gram(p)[None] * scales[..., None]
    result = max_det_gram(p * scales)
    assert not result.status.any()
    assert ((result.gram - expected) / scales[..., None]).abs().max() < 1e-11 * gram(p).abs().max()
    assert torch.equal(gram(p * 2.0**-300), gram(p) * 2.0**-300)


def test_results_do_not_depend_on_the_batch() -> None:
    p = sums_of_squares(6, 21)
    everything = max_det_gram(p)
    for i in (0, 7, 8, 20):
        assert torch.equal(gram(p[i]), everything.gram[i])
    bad = p.clone()
    bad[3], bad[10, 2] = -bad[3], torch.nan
    keep = [i for i in range(21) if i not in (3, 10)]
    assert torch.equal(gram(bad)[keep], everything.gram[keep])


def test_shapes() -> None:
    p = sums_of_squares(6, 6).reshape(2, 3, 7)
    result = max_det_gram(p)
    assert [t.shape for t in result] == [(2, 3, 4, 4), (2, 3), (2, 3, 2), (2, 3), (2, 3)]
    assert torch.equal(result.gram.flatten(0, 1), gram(p.flatten(0, 1)))
    assert [t.shape for t in max_det_gram(p[:, :0])] == [(2, 0, 4, 4), (2, 0), (2, 0, 2), (2, 0), (2, 0)]
    strided = torch.stack([p, -p], -1)[..., 0].transpose(0, 1)
    assert torch.equal(gram(strided), result.gram.transpose(0, 1))
    assert torch.equal(gram(p[:1].expand(4, 3, 7)), result.gram[:1].expand(4, 3, 4, 4))


@pytest.fixture
def isa() -> Iterator[Callable[[str], None]]:
    extension = kernels("test")
    before = extension.cpu_isa()
    yield extension.set_cpu_isa
    extension.set_cpu_isa(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [0, 4, 6, 18])
def test_instruction_sets_agree(degree: int, dtype: torch.dtype, isa: Callable[[str], None]) -> None:
    p = round_forms(degree, 19).to(dtype).requires_grad_()
    results = []
    for variant in iso.info()["cpu_isas"]:
        isa(variant)
        found = gram(p)
        results.append((found.detach(), torch.autograd.grad(found.sin().sum(), p)[0]))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert (a - b).norm() < 1e4 * torch.finfo(dtype).eps * b.norm()


@pytest.mark.parametrize("degree", [0, 2, 6, 10, 14, 20, 40])
def test_float32(degree: int) -> None:
    """float32 input is solved in float64, so that the result is right to a few roundings of its entries."""
    p = round_forms(degree, 9).float()
    result = max_det_gram(p)
    expected = gram(p.double())
    assert result.gram.dtype == torch.float32 and not result.status.any()
    assert ((result.gram - expected).norm(dim=(1, 2)) < 4 * torch.finfo(torch.float32).eps * expected.norm(dim=(1, 2))).all()


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("degree", [4, 10, 20])
def test_the_error_of_float32_is_at_most_what_is_said(degree: int, frame: bool) -> None:
    """Beside the boundary, against the solution in float64, in the order of symmetric matrices."""
    close = squares_beside_the_boundary(degree, 1e-4).float()
    single, exact = max_det_gram(close, frame=frame), max_det_gram(close.double(), frame=True)
    known = (single.status == 0) & (exact.error < 1e-6) & (exact.status == 0)
    assert known.sum() > 50
    factor = torch.linalg.cholesky(exact.gram[known])
    left = torch.linalg.solve_triangular(factor, single.gram[known].double(), upper=False)
    ratios = torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, left.mT, upper=False))
    off = (ratios - 1).abs().amax(-1)
    assert (off < 10 * single.error[known] + 1e-6).all() and (off < 0.02).all()


def squares_beside_the_boundary(degree: int, least: float) -> Tensor:
    """a(x, y)^2 + least (x^2 + y^2)^d with random a, float64."""
    a = torch.randn(100, degree // 2 + 1, generator=torch.Generator().manual_seed(degree), dtype=torch.float64)
    round_form = torch.zeros(degree + 1, dtype=torch.float64)
    round_form[::2] = torch.tensor([math.comb(degree // 2, k) for k in range(degree // 2 + 1)], dtype=torch.float64)
    return antidiagonal_sums(a[:, :, None] * a[:, None]) + least * round_form


def test_threads_do_not_change_bits() -> None:
    p = sums_of_squares(6, 100)
    threads = torch.get_num_threads()
    one = gram(p)
    torch.set_num_threads(2)
    try:
        assert torch.equal(gram(p), one)
    finally:
        torch.set_num_threads(threads)


# What is not positive


def check_rows(p: Tensor, expected: list[int]) -> None:
    p = p.clone().requires_grad_()
    result = max_det_gram(p)
    assert result.status.tolist() == expected
    assert result.gram.isfinite().all() and result.witness.isfinite().all()
    for row, status, matrix, point in zip(p.detach(), result.status, result.gram, result.witness, strict=True):
        assert bool(matrix.any()) == (status == 0)
        if status == 1:
            assert abs(float(point.norm()) - 1) < 1e-6
            assert iso.sl2.certify_witness(row, point)
        else:
            assert not point.any()
    (gradient,) = torch.autograd.grad(result.gram.square().sum(), p)
    assert gradient.isfinite().all()
    assert not gradient[result.status != 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_not_positive(dtype: torch.dtype) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        ([1, 0, 2, 0, 1], 0),
        ([0, 0, 0, 0, 0], 1),
        ([-1, 0, -2, 0, -1], 1),
        ([1, 0, -3, 0, 1], 1),
        ([0, 0, 1, 0, 0], 1),  # x^2 y^2 touches zero on the axes
        ([0, 0, 0, 0, 1], 1),
        ([1, 0, 0, 1, 0], 1),
        ([1, nan, 0, 0, 1], 3),
        ([1, 0, inf, 0, 1], 3),
        ([-inf, 0, 0, 0, 1], 3),
        ([1, 0, 2, 0, 1], 0),
    ]
    check_rows(torch.tensor([row for row, _ in rows], dtype=dtype), [status for _, status in rows])


def test_a_narrow_dip_between_the_nodes_is_found() -> None:
    """(y - 1.3 x)^2 (x^2 + y^2) minus a little: negative on a narrow interval that holds no node."""
    p = torch.tensor([[1.0, -2.6, 2.69, -2.6, 1.69]], dtype=torch.float64)
    dip = p - 1e-5 * torch.tensor([1.0, 0, 2, 0, 1], dtype=torch.float64)
    check_rows(dip, [1])
    assert int(max_det_gram(p + 1e-5 * torch.tensor([1.0, 0, 2, 0, 1], dtype=torch.float64)).status) == 0


def test_double_zeros_are_never_solved_wrongly() -> None:
    """(x^2 - c y^2)^2 has no positive definite Gram: not positive where the zero is found, undecided elsewhere."""
    c = torch.linspace(0.1, 3, 40, dtype=torch.float64)
    p = torch.stack([c**2, 0 * c, -2 * c, 0 * c, torch.ones_like(c)], -1)
    result = max_det_gram(p)
    for row, status, matrix in zip(p, result.status.tolist(), result.gram, strict=True):
        if status == 0:  # p may round to a positive form; then the certificate is one
            assert iso.sl2.certify_positive(row, iso.sl2.rational_gram(row, matrix))
    assert (result.status != 0).sum() > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [2, 4, 6, 14, 16, 30, 40])
def test_squares_are_not_solved_and_witnesses_are_exact(degree: int, dtype: torch.dtype) -> None:
    """Squares of forms with integer coefficients touch zero, so that every sample beside it is a rounding error."""
    root = torch.randint(-3, 4, (60, degree // 2 + 1), generator=torch.Generator().manual_seed(degree)).to(dtype)
    p = antidiagonal_sums(root[:, :, None] * root[:, None])
    zeros = torch.zeros(4, degree + 1, dtype=dtype)  # (a x - b y)^2 x^(degree - 2)
    zeros[:, -3:] = torch.tensor([[b * b, -2 * a * b, a * a] for a, b in ((1, 1), (1, 2), (3, 1), (3, -2))], dtype=dtype)
    assert max_det_gram(zeros).status.tolist() == [1] * 4
    p = torch.cat([p, zeros])
    result = max_det_gram(p)
    for row, status, point, matrix in zip(p, result.status.tolist(), result.witness, result.gram, strict=True):
        if status == 1:
            assert abs(float(point.norm()) - 1) < 1e-6 and iso.sl2.certify_witness(row, point)
        else:
            assert not point.any()
            # The square of a form without real roots is positive. Status 4 says so, and that no matrix here is accurate enough to show it.
            if status == 4:
                assert iso.sl2.certify(row.tolist()).verdict == "positive"
            else:
                assert status == 2 or iso.sl2.certify_positive(row, iso.sl2.rational_gram(row, matrix))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [6, 10, 14, 20])
def test_what_is_solved_is_positive(degree: int, dtype: torch.dtype) -> None:
    """Squares with rounded coefficients, and forms beside them, from what rounding does to where Newton's method begins to converge."""
    root = torch.randn(500, degree // 2 + 1, generator=torch.Generator().manual_seed(degree), dtype=torch.float64)
    square = antidiagonal_sums(root[:, :, None] * root[:, None])
    eps = torch.finfo(dtype).eps
    steps = torch.tensor([-10 * eps, 0, eps, 10 * eps, 0.3 * eps**0.5, eps**0.5, 3 * eps**0.5], dtype=torch.float64)
    p = (square + steps[:, None, None] * round_forms(degree, 1)).flatten(0, 1).to(dtype)  # the nearest first
    solved = p[max_det_gram(p).status == 0]
    assert len(solved) > 300
    for row in torch.cat([solved[:60], solved[60::30]]):
        form = Poly([Rational(*value.as_integer_ratio()) for value in reversed(row.tolist())], symbols("x"))
        assert form.LC() > 0 and form.count_roots() == 0  # Sturm's count, in rational numbers


@pytest.mark.parametrize("degree", [2, 8, 40])
def test_random_signs(degree: int) -> None:
    p = torch.randn(200, degree + 1, dtype=torch.float64)
    result = max_det_gram(p)
    low, high = iso.sl2.circle_bounds(p)
    assert not (result.status[low > 0] != 0).any()
    assert not (result.status[high < 0] != 1).any()
    assert (result.status == 1).sum() > 50
    for row, point in zip(p[result.status == 1], result.witness[result.status == 1], strict=True):
        assert iso.sl2.certify_witness(row, point)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        ([1.0, 0.0, 1.0], "p must be a torch.Tensor, got list"),
        (torch.ones(3).int(), "p must be a dense tensor of dtype float32 or float64, got torch.int32"),
        (torch.ones(3).half(), "p must be a dense tensor of dtype float32 or float64, got torch.float16"),
        (torch.ones(3).to_sparse(), "p must be a dense tensor"),
        (torch.ones(2), "p must have even degree, got degree 1"),
        (torch.ones(3, 8), "p must have even degree, got degree 7"),
        (torch.ones(43), "p must have degree at most 40, got 42"),
        (torch.ones(()), r"p must have shape \(..., degree \+ 1\), got \(\)"),
        (torch.ones(3, 0), r"p must have shape \(..., degree \+ 1\), got \(3, 0\)"),
    ],
)
def test_wrong_arguments(p, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^max_det_gram: {text}"):
        max_det_gram(p)


def test_the_kernel_refuses_what_does_not_fit() -> None:
    extension = kernels("test")
    tables = torch.zeros(10, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^max_det kernel: p must have shape \(B, 2 d \+ 1\)"):
        extension.max_det(tables, torch.ones(2, 4, dtype=torch.float64), False, False, False, torch.ones(2, 14, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^max_det kernel: tables must have shape"):
        extension.max_det(tables, torch.ones(2, 5, dtype=torch.float64), False, False, False, torch.ones(2, 14, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^max_det_adjoint kernel: matrix must have shape \(B=2, n=3, n=3\), got \(2, 3, 4\)"):
        extension.max_det_adjoint(tables, *(torch.ones(shape, dtype=torch.float64) for shape in ((2, 3, 3), (2, 3, 4), (2, 5))))
    with pytest.raises(ValueError, match=r"^max_det kernel: p must be float64"):
        extension.max_det(tables, torch.ones(2, 5), False, False, False, torch.ones(2, 14))


# Derivatives


@pytest.mark.parametrize("degree", [0, 2, 4, 6, 10])
def test_derivatives(degree: int) -> None:
    p = round_forms(degree, 2).requires_grad_()
    options = {"check_batched_grad": True}
    assert torch.autograd.gradcheck(gram, p, check_forward_ad=True, check_batched_forward_grad=True, **options)
    assert torch.autograd.gradgradcheck(gram, p, check_fwd_over_rev=True, fast_mode=True, **options)


@pytest.mark.parametrize("degree", [14, 20, 40])
def test_gradient_of_high_degree(degree: int) -> None:
    """Against central differences along random directions, in scaled coordinates where all coefficients matter alike."""
    p = round_forms(degree, 3).requires_grad_()
    weights = 1 / torch.linalg.vector_norm(gram(p).detach(), dim=(1, 2))[:, None, None]
    cotangent = torch.randn(3, degree // 2 + 1, degree // 2 + 1, dtype=torch.float64) * weights
    (gradient,) = torch.autograd.grad(gram(p), p, cotangent)
    direction = round_forms(degree, 3, seed=5) - round_forms(degree, 3, seed=6)
    step = 1e-4
    with torch.no_grad():
        # Fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h.
        values = {k: (gram(p + k * step * direction) * cotangent).sum((1, 2)) for k in (-2, -1, 1, 2)}
    numeric = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * step)
    torch.testing.assert_close((gradient * direction).sum(-1), numeric, rtol=1e-6, atol=1e-7)


def test_gradient_scales() -> None:
    """grad f has degree 0 in p: scales of 1e+-100 change nothing."""
    p = round_forms(6, 3)
    cotangent = torch.randn(3, 4, 4, dtype=torch.float64)

    def gradient(scale: float) -> Tensor:
        scaled = (p * scale).requires_grad_()
        return torch.autograd.grad(gram(scaled), scaled, cotangent)[0]

    for scale in (1e-100, 1e100):
        torch.testing.assert_close(gradient(scale), gradient(1.0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "scales"), [(torch.float32, (1e-30, 1e30)), (torch.float64, (1e-300, 1e-200, 1e200))], ids=["float32", "float64"]
)
def test_derivatives_at_every_scale(dtype: torch.dtype, scales: tuple[float, ...]) -> None:
    """The gradient and the forward derivative have degree 0 in p, the second derivative degree -1; that at scale 1 is the reference."""
    p, cotangent = round_forms(6, 3), torch.randn(3, 4, 4, dtype=torch.float64)
    tangent = torch.randn_like(p)

    def derivatives(p: Tensor) -> list[Tensor]:
        forward = torch.func.jvp(gram, (p,), (tangent.to(p),))[1]
        p = p.clone().requires_grad_()
        (first,) = torch.autograd.grad((gram(p) * cotangent.to(p)).sum(), p, create_graph=True)
        (second,) = torch.autograd.grad((first * tangent.to(p)).sum(), p)
        return [forward, first.detach(), second]

    expected = derivatives(p)
    for scale in scales:
        found = derivatives((p * scale).to(dtype))
        for index, (a, b) in enumerate(zip(found, expected, strict=True)):
            a = a.double() * (scale if index == 2 else 1)
            assert (a - b).norm() < 1e3 * torch.finfo(dtype).eps * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_what_a_diagonal_map_balances(dtype: torch.dtype) -> None:
    """p(t x, y / t) for powers of two t: Q and its derivatives move along exactly, and nothing becomes undecided."""
    for row in ([1e12, 0, 0, 0, 1], [1e9, 0, 1], [1, 0, 1e-9], [1, 0, 1e-30], [1e15, 0, 3, 0, 1e-15]):
        check_rows(torch.tensor([row, [-value for value in row]], dtype=dtype), [0, 1])
    p, cotangent = round_forms(6, 4).to(dtype), torch.randn(4, 4, 4, dtype=dtype)
    p.requires_grad_()
    expected = gram(p)
    (gradient,) = torch.autograd.grad(expected, p, cotangent)
    for exponent in (-12, -5, 5, 12):
        factors = 2.0 ** (exponent * torch.arange(-3, 4, dtype=dtype))
        moved = (p.detach() * factors).requires_grad_()
        result = max_det_gram(moved)
        block = factors.unfold(0, 4, 1)
        assert not result.status.any()
        assert ((result.gram / block - expected).norm(dim=(1, 2)) < 1e3 * torch.finfo(dtype).eps * expected.norm(dim=(1, 2))).all()
        (found,) = torch.autograd.grad(result.gram, moved, cotangent / block)
        assert ((found * factors - gradient).norm(dim=1) < 1e3 * torch.finfo(dtype).eps * gradient.norm(dim=1)).all()
        mixed = torch.cat([p.detach(), moved.detach()])  # neighbours that need it change nothing for those that do not
        assert torch.equal(gram(mixed)[:4], gram(p)) and torch.equal(gram(mixed)[4:], result.gram)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [2, 4, 8, 16])
def test_witnesses_of_balanced_forms_are_exact(degree: int, dtype: torch.dtype) -> None:
    root = torch.randint(-3, 4, (40, degree // 2 + 1), generator=torch.Generator().manual_seed(degree)).to(dtype)
    root[:, [0, -1]] = root[:, [0, -1]].abs() + 1  # positive ends
    square = antidiagonal_sums(root[:, :, None] * root[:, None])
    exponents = torch.arange(degree + 1, dtype=dtype) - degree // 2
    dips = square.clone()
    dips[:, degree // 2] -= square.abs().sum(1) + 1  # p(1, 1) < 0
    for exponent in (-6, 6):
        p = torch.cat([square, dips]) * 2.0 ** (exponent * exponents)
        result = max_det_gram(p)
        assert (result.status[40:] == 1).all()
        for row, status, point, matrix in zip(p, result.status.tolist(), result.witness, result.gram, strict=True):
            if status == 1:
                assert 0.49 < float(point.norm()) < 1.51 and iso.sl2.certify_witness(row, point)
            elif status == 0:
                assert iso.sl2.certify_positive(row, iso.sl2.rational_gram(row, matrix))
        assert torch.equal(max_det_gram(p.clone().requires_grad_()).status, result.status)


def test_underflow_proves_nothing() -> None:
    """Where a coefficient would be lost by balancing, the form is solved as it is."""
    p = torch.tensor([[1e300, 0, 1e-200], [1e300, 1e-300, 1e-10], [1e-310, 0, 1e-310], [1e308, 1e308, 1e308]], dtype=torch.float64)
    for row, status, point, matrix in zip(p, *(t.tolist() for t in max_det_gram(p)[1:3]), max_det_gram(p).gram, strict=True):
        if status == 1:
            assert iso.sl2.certify_witness(row, point)
        elif status == 0:
            assert iso.sl2.certify_positive(row, iso.sl2.rational_gram(row, matrix))


def test_euler_identity() -> None:
    """f(c p) = c f(p): the derivative along p is f(p) itself, by forward mode."""
    p = sums_of_squares(8, 4)
    value, tangent = torch.func.jvp(gram, (p,), (p,))
    torch.testing.assert_close(tangent, value, rtol=1e-8, atol=1e-8)


def test_log_det_gradient_is_the_moments() -> None:
    """d log det Q(p) = <y, dp> with Hankel(y) = Q^-1, the envelope theorem."""
    p = round_forms(6, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(torch.logdet(gram(p)).sum(), p)
    inverse = torch.linalg.inv(gram(p).detach())
    moments = torch.stack([inverse[:, i - i // 2, i // 2] for i in range(7)], -1)
    torch.testing.assert_close(gradient, moments, rtol=1e-9, atol=1e-10)


def scalar(p: Tensor) -> Tensor:
    return gram(p).sin().sum()


def test_transforms() -> None:
    p = round_forms(6, 3)
    expected = torch.autograd.functional.hessian(scalar, p[0])
    for transform in (torch.func.hessian, twice(torch.func.jacrev)):
        torch.testing.assert_close(transform(scalar)(p[0]), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(scalar))(p), torch.func.grad(scalar)(p), rtol=1e-12, atol=1e-13)
    assert torch.equal(torch.func.vmap(gram, in_dims=1)(p.T), gram(p))
    mapped = torch.func.vmap(max_det_gram)(p)
    assert torch.equal(mapped.status, max_det_gram(p).status)


def twice(transform: Callable) -> Callable:
    return lambda f: transform(transform(f))


def test_graphs() -> None:
    p = round_forms(6, 3).requires_grad_()
    compiled = torch.compile(gram, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(p), gram(p))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(p).sin().sum(), p)[0], torch.autograd.grad(scalar(p), p)[0], rtol=1e-12, atol=1e-14
    )
    forces = torch.compile(torch.func.grad(scalar), fullgraph=True, backend="aot_eager")(p)
    expected = torch.autograd.grad(scalar(p), p, create_graph=True)[0]
    torch.testing.assert_close(
        torch.autograd.grad(forces.square().sum(), p)[0], torch.autograd.grad(expected.square().sum(), p)[0], rtol=1e-10, atol=1e-12
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gram(p.float()), gram(p.float().detach()))
        assert gram(p.float()).dtype == torch.float32
    assert gram(p.detach().to("meta")).shape == (3, 4, 4)


def registered() -> dict[str, tuple[Tensor, ...]]:
    p = round_forms(6, 2)
    matrix, form = torch.randn(2, 4, 4, dtype=torch.float64), torch.randn(2, 7, dtype=torch.float64)
    return {"max_det": (p,), "max_det_adjoint": (gram(p), matrix), "max_det_solve": (gram(p), form)}


@pytest.mark.parametrize("name", ["max_det", "max_det_adjoint", "max_det_solve"])
def test_registered_operators(name: str) -> None:
    tensors = tuple(t.detach().requires_grad_() for t in registered()[name])
    operator = getattr(torch.ops.isotypic, name).default
    settings = (False, False, False) if name == "max_det" else ()
    torch.library.opcheck(operator, (*tensors, *settings))
    last = slice(0, 16) if name == "max_det" else slice(None)  # status and witness have no derivative
    checks: tuple[Callable[..., bool], ...] = (
        partial(torch.autograd.gradcheck, check_forward_ad=True, fast_mode=True),
        partial(torch.autograd.gradgradcheck, check_fwd_over_rev=True, fast_mode=True),
    )
    for check in checks:
        assert check(lambda *args: operator(*args, *settings)[:, last], tensors)
