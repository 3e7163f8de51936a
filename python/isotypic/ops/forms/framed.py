"""Gram matrices of largest determinant by way of a frame: that of p o h, with a matrix h that makes it round, moved back.

A form moved by a matrix of condition c has a minimum on the circle c^(2d) times below its maximum, far below what its coefficients hold in
floating point, and is as easy as before in the right frame. p o h is computed in double-word arithmetic. Three things are proven: the
Gram that was moved back, if its factorisation has room for all rounding; if it has not, positivity, from the factorisation of the Gram in
the frame with room for the error of p o h; and witnesses, from their coordinates as stored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isotypic._register import needs_gradient, plain
from isotypic.ops.forms import circle
from isotypic.ops.forms.form_action import form_action
from isotypic.ops.forms.gram import antidiagonal_sums, hankel
from isotypic.ops.forms.max_det import (
    INACCURATE,
    INVALID,
    NOT_POSITIVE,
    REFINE,
    SOLVED,
    UNDECIDED,
    Solution,
    max_det,
    max_det_frame,
    split,
)

LIMIT, LIMIT_OF_SINGLE = 1e-6, 1e-2
"""The largest estimate of the error with which a Gram counts as solved: `solved` in csrc/ops/max_det_solver.hpp."""


def solve(forms: Tensor, single: bool) -> Solution:
    """As ``max_det``, with a frame for the rows that the first pass leaves open, and a Gram also where they stay so.

    Moving a Gram back costs digits, so that two words for each number solve what the frame found to be positive and no more.
    """
    if forms.shape[1] == 1:
        return split(max_det(forms, single, True, False))
    solution = split(max_det(forms, single, False, True))
    solution = _again(forms, solution, (REFINE, UNDECIDED), lambda rows: _solve_in_frame(rows, single))
    return _again(forms, solution, (REFINE, UNDECIDED, INACCURATE), lambda rows: split(max_det(rows, single, True, False)))


def _again(forms: Tensor, solution: Solution, left: tuple[int, ...], attempt: Callable[[Tensor], Solution]) -> Solution:
    """The rows of these status by another attempt, which counts where it says more. Where values can be read, others are not computed."""
    rows_open = torch.stack([solution.status == status for status in left]).any(0)
    if torch.compiler.is_compiling() or not plain(forms):
        return _better(solution, attempt(forms), rows_open)
    rows = rows_open.nonzero()[:, 0]
    if len(rows) == 0:
        return solution
    merged = _better(Solution(*(part[rows] for part in solution)), attempt(forms[rows]), rows_open[rows])
    return Solution(*(part.index_copy(0, rows, new) for part, new in zip(solution, merged, strict=True)))


def _better(old: Solution, new: Solution, rows: Tensor) -> Solution:
    more = torch.where(old.status == INACCURATE, new.status == SOLVED, new.status != UNDECIDED)
    taken = rows & (more | (old.status == REFINE))
    return Solution(*(torch.where(taken.reshape(-1, *(1,) * (a.dim() - 1)), b, a) for a, b in zip(old, new, strict=True)))


def _solve_in_frame(forms: Tensor, single: bool) -> Solution:
    degree, n = forms.shape[1] - 1, forms.shape[1] // 2 + 1
    fixed = forms.detach()
    found = max_det_frame(fixed)
    framed, h = found[:, : degree + 1], found[:, degree + 1 :].reshape(-1, 2, 2)
    if needs_gradient(forms) or not plain(forms):  # the value of the one with the derivative of the other
        action = form_action(forms, h)
        framed = framed + (action - action.detach())
    inside = split(max_det(framed, False, True, False))
    (a, b), (c, e) = (row.unbind(-1) for row in h.unbind(-2))
    determinant = a * e - b * c
    inverse = torch.stack([torch.stack([e, -b], -1), torch.stack([-c, a], -1)], -2) / determinant[:, None, None]
    moved = form_action(form_action(inside.gram, inverse[:, None]).mT, inverse[:, None])
    moved = (moved + moved.mT) / 2
    with torch.no_grad():
        spread = torch.tensor(circle.spread(n - 1), dtype=forms.dtype, device=forms.device)
        correction = spread * hankel(fixed - antidiagonal_sums(moved, n), n)
        gram, eps = moved + correction, torch.finfo(forms.dtype).eps
        has_gram = (inside.status == SOLVED) | (inside.status == INACCURATE)
        rounding = 2 * n * (n + 2) * eps  # see one_less_rounding in csrc/ops/max_det_solver.hpp
        certain, condition = _factor(gram, rounding)
        error = inside.error + 8 * eps * condition
        solved = has_gram & certain & (error <= LIMIT)
        if single:
            certain, condition = _factor(gram.float().double(), rounding)
            rounded = torch.finfo(torch.float32).eps * condition
            solved &= certain & (rounded <= LIMIT_OF_SINGLE)
            error = torch.maximum(error, rounded)
        # What p o h is off by, coefficient by coefficient, spread over a Gram: at most `share` of the roots of two entries of the diagonal.
        reach = form_action(fixed.abs(), h.abs())
        off = spread * hankel(8 * degree * eps**2 * reach + eps * framed.abs(), n)
        diagonal = inside.gram.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(forms.dtype).tiny).sqrt()
        share = (off / diagonal[:, :, None] / diagonal[:, None, :]).amax((-2, -1))
        positive = has_gram & _factor(inside.gram, rounding + n * share)[0]
        point = (h @ inside.witness[:, :, None])[:, :, 0]
        point = point / point.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(forms.dtype).tiny)
        if single:
            point = point.float().to(forms.dtype)
        negative = (inside.status == NOT_POSITIVE) & proven_negative(fixed, point)
        status = torch.full_like(inside.status, UNDECIDED)
        for condition, value in ((positive, INACCURATE), (solved, SOLVED), (negative, NOT_POSITIVE), (inside.status == INVALID, INVALID)):
            status = torch.where(condition, value, status)
        point = torch.where(negative[:, None], point, 0)
        error = torch.where(negative, 0, error)
    return Solution(torch.where(negative[:, None, None], 0, moved + correction), status, inside.iterations, point, error)


def _factor(gram: Tensor, margin: Tensor | float) -> tuple[Tensor, Tensor]:
    """(B), bool: whether Q - margin diag Q has a Cholesky factor; (B): the trace of its inverse with its diagonal scaled to 1."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.clamp_min(torch.finfo(gram.dtype).tiny).rsqrt()
    unit = gram * scale[:, :, None] * scale[:, None, :]
    unit = unit - torch.diag_embed(torch.as_tensor(margin, dtype=gram.dtype).expand(len(gram))[:, None].expand_as(diagonal))
    unit = torch.where(unit.isfinite(), unit, 0)
    factor, failed = torch.linalg.cholesky_ex(unit)
    has_factor = (failed == 0) & (diagonal > 0).all(-1)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.where(has_factor[:, None, None], factor, identity)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return has_factor, torch.where(has_factor, inverse.square().sum((-2, -1)), 1e30)


def proven_negative(p: Tensor, point: Tensor) -> Tensor:
    """(B), bool: whether p(x, y) < 0 for certain, p (B, 2 d + 1), point (B, 2): Horner's rule in double-word arithmetic.

    Each step is off by less than 2^-98 of its terms. Coefficients that scaling would lose by underflow prove nothing.
    """
    p, (x, y) = p.double(), point.double().unbind(-1)
    size = p.abs().amax(-1, keepdim=True)
    scale = torch.where((size > 0) & size.isfinite(), torch.frexp(size).mantissa / size, 1)
    scaled = p * scale
    exact = (scaled / scale == p).all(-1) & ((scaled == 0) | (scaled.abs() > 1e-100)).all(-1) & (torch.minimum(x.abs(), y.abs()) > 1e-4)
    value, power = (scaled[:, -1], torch.zeros_like(x)), (torch.ones_like(x), torch.zeros_like(x))
    terms, weight = scaled[:, -1].abs(), torch.ones_like(x)
    for k in range(p.shape[1] - 2, -1, -1):
        power, weight = _times(power, y), weight * y.abs()
        value = _plus(_times(value, x), _times(power, scaled[:, k]))
        terms = terms * x.abs() + scaled[:, k].abs() * weight
    return exact & (value[0] + value[1] + 2.0**-98 * 2 * p.shape[1] * terms < 0)


Words = tuple[Tensor, Tensor]


def _two_sum(a: Tensor, b: Tensor) -> Words:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Tensor, b: Tensor) -> Words:
    """By Dekker's splitting into halves of 26 bits."""

    def halves(t: Tensor) -> Words:
        large = 134217729.0 * t
        high = large - (large - t)
        return high, t - high

    product, (a_high, a_low), (b_high, b_low) = a * b, halves(a), halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _times(a: Words, b: Tensor) -> Words:
    product, error = _two_product(a[0], b)
    return _two_sum(product, error + a[1] * b)


def _plus(a: Words, b: Words) -> Words:
    total, error = _two_sum(a[0], b[0])
    return _two_sum(total, error + (a[1] + b[1]))
