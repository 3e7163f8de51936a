"""The Gram matrix of largest determinant of a positive binary form, its derivative, and the operators that they are made of.

With A the antidiagonal sums, their adjoint Hankel, and Hess(Q) y = A(Q Hankel(y) Q), the map p -> Q of ``max_det`` has the derivative

    dQ = Q Hankel(Hess(Q)^-1 dp) Q,        grad_p = Hess(Q)^-1 A(Q G Q),

so that the two operators below, ``max_det_adjoint`` (Q, G) -> Hess(Q)^-1 A(Q G Q) and ``max_det_solve`` (Q, r) -> Hess(Q)^-1 r, are closed
under differentiation: for z = Hess(Q)^-1 r and a cotangent c, the gradient in r is Hess(Q)^-1 c, and in Q it is
-(Hankel(Hess(Q)^-1 c) Q Hankel(z) + its transpose).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic._register import Gradients, plain
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.forms import circle
from isotypic.ops.forms.gram import antidiagonal_sums, check_form, hankel

MAX_DEGREE = 40
FLOAT32_DEGREE = 14
"""Above it, float32 forms are solved in float64 and rounded: there the rounding of float32 arithmetic alone is 1e-5 of the Gram."""

SOLVED, NOT_POSITIVE, UNDECIDED, INVALID = range(4)


class MaxDetGram(NamedTuple):
    """What :func:`max_det_gram` finds for forms of shape (..., 2 d + 1)."""

    gram: Tensor
    """(..., d + 1, d + 1), zeros where status is not 0."""
    status: Tensor
    """(...), int64: 0 solved, 1 not positive (see witness), 2 undecided, 3 the coefficients are not finite."""
    witness: Tensor
    """(..., 2): where status is 1, a point (x, y) at which p(x, y) <= 0 exactly, of the unit circle up to rounding; where the coefficients
    of y^(2d) and x^(2d) are positive and differ by more than a factor of 64, of norm between 1/2 and 3/2. Zeros elsewhere."""
    iterations: Tensor
    """(...), int64: steps of Newton's method."""


def max_det_gram(p: Tensor) -> MaxDetGram:
    """Of all Gram matrices of positive binary forms, those of largest determinant.

    Q(p) = argmax of log det Q over the symmetric positive semidefinite Q with p(x, y) = v^T Q v, v = (y^d, x y^(d-1), ..., x^d).

    Q is a certificate that p is positive, and SL(2, R) moves it along: Q(g.p) = M Q M^T. Its inverse is a Hankel matrix, and
    Q(c p) = c Q(p) for c > 0. It is found by Newton's method on the dual, in samples on the circle, several forms in lockstep, and can be
    differentiated any number of times (by the implicit function theorem).

    Both answers are proven by bounds of all rounding errors, underflow apart: what is solved is positive, and a witness is one. Forms next
    to the boundary, where the minimum on the circle is below about the root of epsilon of the maximum, may come out as undecided. Use
    :func:`isotypic.sl2.certify_positive` for a certificate in rational numbers. What is not solved has a Gram of zeros, and gradients of
    zero. Each form is divided by its size, and its first and last coefficient are balanced by a map (x, y) -> (t x, y / t), all in powers
    of two, which are exact: neither a scale nor such a map changes what is solved, nor the precision of derivatives.

    Args:
        p: (..., 2 d + 1), the coefficients of sum_k p_k x^k y^(2d - k), float32 or float64, of even degree up to 40. Forms are independent
            of each other and may have any scale. float32 forms of degree above 14 are solved in float64 and rounded.

    Returns: a :class:`MaxDetGram`, (gram, status, witness, iterations).
    Raises TypeError for other dtypes; ValueError for odd degrees and degrees above 40; RuntimeError where isotypic has no kernels.

    H. Lawrence, M. Harris, "Learning Polynomial Problems with SL(2,R) Equivariance", 2024.

    >>> result = max_det_gram(torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, -3.0, 0.0, 1.0]]))  # x^4 + y^4, x^4 - 3 x^2 y^2 + y^4
    >>> result.status
    tensor([0, 1])
    >>> result.gram[0]
    tensor([[ 1.0000,  0.0000, -0.5774],
            [ 0.0000,  1.1547,  0.0000],
            [-0.5774,  0.0000,  1.0000]])
    """
    degree = check_form("max_det_gram", "p", p, max_degree=MAX_DEGREE)
    n = degree // 2 + 1
    wide = p.double() if p.dtype == torch.float32 and degree > FLOAT32_DEGREE else p
    forms = wide.reshape(-1, degree + 1)
    factors, f = _factors(forms)
    solution = max_det(forms if factors is None else forms * factors, p.dtype == torch.float32)
    gram, rest = solution[:, : n * n].reshape(-1, n, n), solution[:, n * n :].detach().to(p.dtype)
    status, iterations, witness = rest[:, 0].long(), rest[:, 1].long(), rest[:, 2:]
    if factors is not None and f is not None:
        gram = gram / hankel(factors, n)
        witness, exact = _move(witness, f.to(p.dtype))
        status = torch.where(exact, status, UNDECIDED)
    lead = p.shape[:-1]
    return MaxDetGram(gram.to(p.dtype).reshape(*lead, n, n), status.reshape(lead), witness.reshape(*lead, 2), iterations.reshape(lead))


def _far(dtype: torch.dtype) -> float:
    """The ratio of the first coefficient to the last, or back, from which on a form is balanced: long before its minimum on the circle
    comes near the root of epsilon of the maximum."""
    return 2.0**6 if dtype == torch.float32 else 2.0**12


def _factors(forms: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Those of :func:`_balance`, or None where no form needs them. Where values can be read, only the forms that do are balanced, because
    its passes over all of them would take a third of the time of the solver."""
    if torch.compiler.is_compiling() or not plain(forms) or forms.device.type != "cpu":
        return _balance(forms.detach())
    p = forms.detach().numpy()
    size, low, high = np.abs(p).max(1, initial=0), np.minimum(p[:, 0], p[:, -1]), np.maximum(p[:, 0], p[:, -1])
    ordinary = (size > 2.0**-20) & (size < 2.0**20) & ((low <= 0) | (low >= high / _far(forms.dtype)))
    if ordinary.all():
        return None, None
    rows = torch.from_numpy(~ordinary).nonzero()[:, 0]
    chosen = _balance(forms.detach()[rows])
    factors, f = torch.ones_like(forms, requires_grad=False), forms.new_ones(len(forms), 1)
    return factors.index_copy_(0, rows, chosen[0]), f.index_copy_(0, rows, chosen[1])


def _power_of_two(x: Tensor) -> Tensor:
    """2^e > x >= 2^(e-1), exactly; NaN for zero."""
    return x / torch.frexp(x).mantissa


def _balance(p: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2 d + 1): powers of two c f^(k - d), by which p(x, y) becomes c p(sqrt(f) x, y / sqrt(f)) and Q[i, j] is multiplied by that of
    k = i + j; (B, 1): f.

    f^(2d) is the ratio of the first coefficient to the last where they are positive and far apart, and c scales the largest to 1. Forms
    whose coefficients would not survive without rounding, by underflow, are left alone, and so are those that are not finite.
    """
    d = p.shape[1] // 2
    first, last = p[:, :1], p[:, -1:]
    ratio = first.log2() - last.log2()
    far = (first > 0) & (last > 0) & (ratio.abs() > math.log2(_far(p.dtype)))
    f = torch.where(far, _power_of_two((torch.where(far, ratio, 0) / max(2 * d, 1) - 0.5).exp2()), 1)
    up = f.expand(-1, d).cumprod(-1)
    factors = torch.cat([(1 / up).flip(-1), torch.ones_like(f), up], -1)
    factors = factors / _power_of_two((p * factors).abs().amax(-1, keepdim=True))
    exact = ((p * factors) / factors == p).all(-1, keepdim=True) & factors.isfinite().all(-1, keepdim=True)
    return torch.where(exact, factors, 1), torch.where(exact, f, 1)


def _move(point: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2): multiples of (f x, y), where p has the sign that p(sqrt(f) x, y / sqrt(f)) has at (x, y); (B): whether they are exact."""
    factors = torch.cat([f, torch.ones_like(f)], -1)
    size = (point * factors).abs().amax(-1, keepdim=True)
    factors = torch.where((f != 1) & (size > 0), factors / _power_of_two(size), 1)
    moved = point * factors
    exact = (moved / factors == point).all(-1)
    return torch.where(exact[:, None], moved, 0), exact


# The operators: p (B, m), Q and G (B, n, n), r and z (B, m), m = 2 n - 1. max_det has one output, (B, n n + 4): the Gram, status,
# iterations, witness; `single` says that it will be rounded to float32, which the witness must outlive.


def _shape_solve(p: Tensor, single: bool) -> Sequence[int]:
    n = p.shape[1] // 2 + 1
    return p.shape[0], n * n + 4


def _shape_form(gram: Tensor, other: Tensor) -> Sequence[int]:
    return gram.shape[0], 2 * gram.shape[1] - 1


def _transposes(matrix: Tensor) -> Tensor:
    return matrix + matrix.mT


def _symmetric(matrix: Tensor) -> Tensor:
    """The operators are functions of the symmetric parts of their matrices."""
    return _transposes(matrix) / 2


def _gram_of(solution: Tensor, p: Tensor) -> Tensor:
    n = p.shape[1] // 2 + 1
    return solution[:, : n * n].reshape(-1, n, n)


def _backward_solve(needs: Sequence[bool], grad: Tensor, solution: Tensor, p: Tensor, single: bool) -> Gradients:
    return (max_det_adjoint(_gram_of(solution, p), _gram_of(grad, p)),) if needs[0] else (None,)


def _jvp_solve(tangents: Gradients, p: Tensor, single: bool) -> Tensor | None:
    if tangents[0] is None:
        return None
    n = p.shape[1] // 2 + 1
    gram = _gram_of(max_det(p, single), p)
    tangent = gram @ hankel(max_det_solve(gram, tangents[0]), n) @ gram
    return torch.nn.functional.pad(tangent.reshape(-1, n * n), (0, 4))


def _gram_gradient(gram: Tensor, z: Tensor, solved: Tensor, matrix: Tensor | None) -> Tensor:
    """The gradient in Q of <c, z>, with solved = Hess(Q)^-1 c, for z = Hess(Q)^-1 A(Q G Q), or Hess(Q)^-1 r where G is None."""
    n = gram.shape[1]
    inner = -hankel(z, n) if matrix is None else _symmetric(matrix) - hankel(z, n)
    return _transposes(hankel(solved, n) @ _symmetric(gram) @ inner)


def _backward_adjoint(needs: Sequence[bool], grad: Tensor, z: Tensor, gram: Tensor, matrix: Tensor) -> Gradients:
    solved, symmetric = max_det_solve(gram, grad), _symmetric(gram)
    return (
        _gram_gradient(gram, z, solved, matrix) if needs[0] else None,
        symmetric @ hankel(solved, gram.shape[1]) @ symmetric if needs[1] else None,
    )


def _jvp_adjoint(tangents: Gradients, gram: Tensor, matrix: Tensor) -> Tensor | None:
    change, total = tangents[0], None if tangents[1] is None else max_det_adjoint(gram, tangents[1])
    if change is not None:
        n = gram.shape[1]
        inner = _symmetric(matrix) - hankel(max_det_adjoint(gram, matrix), n)
        term = max_det_solve(gram, antidiagonal_sums(_transposes(_symmetric(change) @ inner @ _symmetric(gram)), n))
        total = term if total is None else total + term
    return total


def _backward_hessian_solve(needs: Sequence[bool], grad: Tensor, z: Tensor, gram: Tensor, form: Tensor) -> Gradients:
    solved = max_det_solve(gram, grad)
    return _gram_gradient(gram, z, solved, None) if needs[0] else None, solved if needs[1] else None


def _jvp_hessian_solve(tangents: Gradients, gram: Tensor, form: Tensor) -> Tensor | None:
    change, total = tangents[0], None if tangents[1] is None else max_det_solve(gram, tangents[1])
    if change is not None:
        n = gram.shape[1]
        inner = hankel(max_det_solve(gram, form), n)
        term = -max_det_solve(gram, antidiagonal_sums(_transposes(_symmetric(change) @ inner @ _symmetric(gram)), n))
        total = term if total is None else total + term
    return total


_OPTIONS: dict[str, Any] = {"saved_outputs": (0,), "sixteen_bit": False}


def _tables_of_gram(gram: Tensor, other: Tensor) -> tuple[Tensor]:
    return (circle.table_tensor(gram.shape[1] - 1, gram.dtype, gram.device),)


max_det = kernel_operator(
    "max_det(Tensor p, bool single) -> Tensor",
    shape=_shape_solve,
    samples=(0,),
    plan=lambda p, single: (circle.table_tensor(p.shape[1] // 2, p.dtype, p.device),),
    backward=_backward_solve,
    jvp=_jvp_solve,
    **_OPTIONS,
)
max_det_adjoint = kernel_operator(
    "max_det_adjoint(Tensor gram, Tensor matrix) -> Tensor",
    shape=_shape_form,
    samples=(0, 1),
    plan=_tables_of_gram,
    backward=_backward_adjoint,
    jvp=_jvp_adjoint,
    **_OPTIONS,
)
max_det_solve = kernel_operator(
    "max_det_solve(Tensor gram, Tensor form) -> Tensor",
    shape=_shape_form,
    samples=(0, 1),
    plan=_tables_of_gram,
    backward=_backward_hessian_solve,
    jvp=_jvp_hessian_solve,
    **_OPTIONS,
)
