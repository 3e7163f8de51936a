"""The Gram matrix of largest determinant of a positive binary form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic._register import plain
from isotypic.ops.forms import framed
from isotypic.ops.forms.gram import check_form, hankel
from isotypic.ops.forms.max_det import SOLVED, UNDECIDED, Solution, max_det, split

MAX_DEGREE = 40


class MaxDetGram(NamedTuple):
    """What :func:`max_det_gram` finds for forms of shape (..., 2 d + 1)."""

    gram: Tensor
    """(..., d + 1, d + 1), zeros where status is not 0; with a frame, a candidate where it is 2 or 4."""
    status: Tensor
    """(...), int64: 0 solved, 1 not positive (see witness), 2 undecided, 3 the coefficients are not finite, 4 positive, but the Gram is
    less accurate than status 0 promises (see error)."""
    witness: Tensor
    """(..., 2): where status is 1, a point (x, y) at which p(x, y) <= 0 exactly, of the unit circle up to rounding; where the coefficients
    of y^(2d) and x^(2d) are positive and differ by more than a factor of 64, of norm between 1/2 and 3/2. Zeros elsewhere."""
    iterations: Tensor
    """(...), int64: steps of Newton's method."""
    error: Tensor
    """(...): an estimate e, to a factor of about ten, of the relative error: (1 - e) Q <= gram <= (1 + e) Q for the exact solution Q, in
    the order of symmetric matrices; at most 1e-6 (float32: 1e-2) where status is 0, zero where there is no Gram. First derivatives have the
    same relative error; each further order loses a factor of about e / epsilon more."""


def max_det_gram(p: Tensor, frame: bool = False) -> MaxDetGram:
    """Of all Gram matrices of positive binary forms, those of largest determinant.

    Q(p) = argmax of log det Q over the symmetric positive semidefinite Q with p(x, y) = v^T Q v, v = (y^d, x y^(d-1), ..., x^d).

    Q is a certificate that p is positive, and SL(2, R) moves it along: Q(g.p) = M Q M^T. Its inverse is a Hankel matrix, and
    Q(c p) = c Q(p) for c > 0. It is found by Newton's method on the dual, in samples on the circle, several forms in lockstep, and can be
    differentiated any number of times (by the implicit function theorem).

    Both answers are proven by bounds of all rounding errors, underflow apart: what has status 0 or 4 is positive, a Gram with status 0 is
    positive definite as it is returned, and a witness is one. Forms next to the boundary are solved in arithmetic of twice the precision;
    with the minimum r times the maximum on the circle, rounding of the coefficients leaves an error of about epsilon / r, which `error`
    estimates. Where r is below about 1e-9 (float32: 1e-4) the status is 4, and 2 where it comes near to epsilon. Use
    :func:`isotypic.sl2.certify` for an answer in rational numbers, which there always is. What is not solved has gradients of zero. Each
    form is divided by its size, and its first and last coefficient are balanced by a map (x, y) -> (t x, y / t), all in powers of two,
    which are exact: neither a scale nor such a map changes what is solved, nor the precision of derivatives.

    Args:
        p: (..., 2 d + 1), the coefficients of sum_k p_k x^k y^(2d - k), float32 or float64, of even degree up to 40. Forms are independent
            of each other and may have any scale. float32 forms are solved in float64 and rounded.
        frame: solve what the first pass leaves open in a frame, as the form p o h with a matrix h that makes it round. Forms that an
            element of SL(2, R) of large condition has moved, whose minimum is far below rounding of the maximum, are decided then; and
            `gram` holds a candidate, whose antidiagonal sums are p up to rounding, where status is 2 or 4.

    Returns: a :class:`MaxDetGram`, (gram, status, witness, iterations, error).
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
    if not isinstance(frame, bool):
        raise TypeError(f"max_det_gram: frame must be True or False, got {frame!r}")
    n = degree // 2 + 1
    wide = p.double()  # Newton's method in float32 loses more of the Gram than rounding it does
    forms = wide.reshape(-1, degree + 1)
    factors, f = _factors(forms)
    solution = _solve(forms if factors is None else forms * factors, p.dtype == torch.float32, frame)
    gram, status, witness = solution.gram, solution.status.long(), solution.witness.to(p.dtype)
    if factors is not None and f is not None:
        gram = gram / hankel(factors, n)
        witness, exact = _move(witness, f.to(p.dtype))
        status = torch.where(exact, status, UNDECIDED)
    if frame:
        gram = torch.where((status == SOLVED)[:, None, None], gram, gram.detach())
    lead = p.shape[:-1]
    return MaxDetGram(
        gram.to(p.dtype).reshape(*lead, n, n),
        status.reshape(lead),
        witness.reshape(*lead, 2),
        solution.iterations.long().reshape(lead),
        solution.error.to(p.dtype).reshape(lead),
    )


def _solve(forms: Tensor, single: bool, frame: bool) -> Solution:
    return framed.solve(forms, single) if frame else split(max_det(forms, single, False, False))


FAR = 2.0**12
"""The ratio of the first coefficient to the last, or back, from which on a form is balanced: long before its minimum on the circle
comes near the root of epsilon of the maximum."""


def _factors(forms: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Those of :func:`_balance`, or None where no form needs them. Where values can be read, only the forms that do are balanced, because
    its passes over all of them would take a third of the time of the solver."""
    if torch.compiler.is_compiling() or not plain(forms) or forms.device.type != "cpu":
        return _balance(forms.detach())
    p = forms.detach().numpy()
    size, low, high = np.abs(p).max(1, initial=0), np.minimum(p[:, 0], p[:, -1]), np.maximum(p[:, 0], p[:, -1])
    ordinary = (size > 2.0**-20) & (size < 2.0**20) & ((low <= 0) | (low >= high / FAR))
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
    far = (first > 0) & (last > 0) & (ratio.abs() > math.log2(FAR))
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
