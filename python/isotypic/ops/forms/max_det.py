"""The operators of :func:`isotypic.ops.max_det_gram`: the Gram matrix of largest determinant of a positive binary form, and its derivative.

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

import torch
from torch import Tensor

from isotypic._register import Gradients
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.forms import circle
from isotypic.ops.forms.gram import antidiagonal_sums, hankel

SOLVED, NOT_POSITIVE, UNDECIDED, INVALID, INACCURATE, REFINE = range(6)
"""As in csrc/ops/max_det_solver.hpp. REFINE never leaves this package: the quick pass has not decided."""


class Solution(NamedTuple):
    """What ``max_det`` tells of B forms, all of their dtype; only the Gram has derivatives."""

    gram: Tensor
    """(B, n, n)"""
    status: Tensor
    """(B)"""
    iterations: Tensor
    """(B)"""
    witness: Tensor
    """(B, 2)"""
    error: Tensor
    """(B)"""


def split(solution: Tensor) -> Solution:
    """The parts of the result of ``max_det``, (B, n n + 5)."""
    n = math.isqrt(solution.shape[1] - 5)
    rest = solution[:, n * n :].detach()
    return Solution(solution[:, : n * n].reshape(-1, n, n), rest[:, 0], rest[:, 1], rest[:, 2:4], rest[:, 4])


# p (B, m), Q and G (B, n, n), r and z (B, m), m = 2 n - 1. max_det has one output, (B, n n + 5), and the settings of csrc/ops/max_det.hpp.


def _shape_solve(p: Tensor, single: bool, candidates: bool, quick: bool) -> Sequence[int]:
    n = p.shape[1] // 2 + 1
    return p.shape[0], n * n + 5


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


def _backward_solve(
    needs: Sequence[bool], grad: Tensor, solution: Tensor, p: Tensor, single: bool, candidates: bool, quick: bool
) -> Gradients:
    return (max_det_adjoint(_gram_of(solution, p), _gram_of(grad, p)),) if needs[0] else (None,)


def _jvp_solve(tangents: Gradients, p: Tensor, single: bool, candidates: bool, quick: bool) -> Tensor | None:
    if tangents[0] is None:
        return None
    n = p.shape[1] // 2 + 1
    gram = _gram_of(max_det(p, single, candidates, quick), p)
    tangent = gram @ hankel(max_det_solve(gram, tangents[0]), n) @ gram
    return torch.nn.functional.pad(tangent.reshape(-1, n * n), (0, 5))


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


def _backward_frame(needs: Sequence[bool], grad: Tensor, p: Tensor) -> Gradients:
    """Which frame it is does not matter, and so it counts as a constant."""
    return (None,)


_OPTIONS: dict[str, Any] = {"saved_outputs": (0,), "sixteen_bit": False}


def _tables_of_gram(gram: Tensor, other: Tensor) -> tuple[Tensor]:
    return (circle.table_tensor(gram.shape[1] - 1, gram.dtype, gram.device),)


max_det = kernel_operator(
    "max_det(Tensor p, bool single, bool candidates, bool quick) -> Tensor",
    shape=_shape_solve,
    samples=(0,),
    plan=lambda p, single, candidates, quick: (circle.table_tensor(p.shape[1] // 2, p.dtype, p.device),),
    backward=_backward_solve,
    jvp=_jvp_solve,
    **_OPTIONS,
)
max_det_frame = kernel_operator(  # p -> p o h and h, (B, m + 4)
    "max_det_frame(Tensor p) -> Tensor",
    shape=lambda p: (p.shape[0], p.shape[1] + 4),
    samples=(0,),
    plan=lambda p: (circle.table_tensor(p.shape[1] // 2, p.dtype, p.device),),
    backward=_backward_frame,
    sixteen_bit=False,
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
