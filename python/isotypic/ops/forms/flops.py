"""Flops of the operators on binary forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from isotypic._flops import flops
from isotypic.ops.forms import form_action, max_det, spectral_factor, transvectants
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan

Shape = Sequence[int]

# Newton steps to a Gram matrix: five to seven, 8 at most, from the starting point of csrc/ops/max_det.hpp. The count takes six.
NEWTON_STEPS = 6


@flops(form_action.act, form_action.adjoint)
def _action(p: Shape, g: Shape, *, out_shape: Shape) -> int:
    """Horner's rule takes 5 d^2 / 2 multiply-adds for a form."""
    return p[0] * 5 * (p[1] - 1) ** 2


@flops(form_action.matrix)
def _matrix(p: Shape, g: Shape, z: Shape, *, out_shape: Shape) -> int:
    """Both partial derivatives, substituted, and four inner products."""
    degree = p[1] - 1
    return p[0] * (2 * 5 * max(degree - 1, 0) ** 2 + 2 * 4 * degree)


@lru_cache(maxsize=1024)
def transvectant_terms(degrees: tuple[int, ...], paths: tuple[int, ...]) -> tuple[int, int]:
    """Nonzero coefficients of the transvectants of all paths, and the length of their results."""
    triples = list(zip(paths[::3], paths[1::3], paths[2::3], strict=True))
    terms = sum(int((clebsch_gordan(degrees[s], degrees[t], k) != 0).sum()) for s, t, k in triples)
    return terms, sum(degrees[s] + degrees[t] - 2 * k + 1 for s, t, k in triples)


def _transvectants(batch: int, channels: int, out_channels: int, degrees: Sequence[int], paths: Sequence[int]) -> int:
    terms, rows = transvectant_terms(tuple(degrees), tuple(paths))
    return 2 * batch * channels * (terms + rows * out_channels)


@flops(transvectants.product)
def _quadratic(f: Shape, weight: Shape, degrees: Sequence[int], paths: Sequence[int], *, out_shape: Shape) -> int:
    return _transvectants(f[0], f[1], weight[2], degrees, paths)


@flops(transvectants.polar)
def _polar(f: Shape, h: Shape, weight: Shape, degrees: Sequence[int], paths: Sequence[int], *, out_shape: Shape) -> int:
    return _transvectants(f[0], f[1], weight[2], degrees, paths)


@flops(transvectants.product_input)
def _input(f: Shape, weight: Shape, z: Shape, degrees: Sequence[int], paths: Sequence[int], *, out_shape: Shape) -> int:
    return _transvectants(f[0], f[1], weight[2], degrees, paths)


@flops(transvectants.product_weight)
def _weight(f: Shape, z: Shape, degrees: Sequence[int], paths: Sequence[int], *, out_shape: Shape) -> int:
    return _transvectants(f[0], f[1], out_shape[2], degrees, paths)


@flops(transvectants.polar_weight)
def _weight_polar(f: Shape, h: Shape, z: Shape, degrees: Sequence[int], paths: Sequence[int], *, out_shape: Shape) -> int:
    return _transvectants(f[0], f[1], out_shape[2], degrees, paths)


def _hessian_solve(size: int, samples: int) -> int:
    """Multiply-adds: K = U H^-1 U^T by a Cholesky factor and triangular solves, and the Cholesky factor of the squares of its entries."""
    return size**3 // 6 + samples * size**2 // 2 + samples**2 * size // 2 + samples**3 // 6 + samples**2


@flops(max_det.max_det)
def _max_det(p: Shape, single: bool, candidates: bool, quick: bool, *, out_shape: Shape) -> int:
    samples = p[1]
    size = (samples + 1) // 2
    return 2 * p[0] * NEWTON_STEPS * (_hessian_solve(size, samples) + samples * size**2 // 2)


@flops(max_det.max_det_frame)
def _max_det_frame(p: Shape, *, out_shape: Shape) -> int:
    """One correction of the frame: the samples, and Horner's rule with two linear forms on double words, 20 operations each."""
    return p[0] * (2 * p[1] ** 2 + 20 * 5 * p[1] ** 2 // 2)


@flops(max_det.max_det_adjoint, max_det.max_det_solve)
def _max_det_adjoint(gram: Shape, given: Shape, *, out_shape: Shape) -> int:
    size, samples = gram[-1], 2 * gram[-1] - 1
    return 2 * gram[0] * (_hessian_solve(size, samples) + (2 * size**3 if tuple(given) == tuple(gram) else 0))


# Wilson's steps from 1 to rounding for zeros at some distance from the circle.
WILSON_STEPS = 12


def _wilson_solve(rows: int, taps: int) -> int:
    """Reducing the degree from n to 0 and raising it again: 9 operations for each of n (n + 1) / 2 coefficients."""
    return rows * 9 * taps * (taps - 1) // 2


@flops(spectral_factor.factor)
def _spectral_factor(r: Shape, *, out_shape: Shape) -> int:
    return WILSON_STEPS * (_wilson_solve(r[0], r[1]) + r[0] * r[1] * (r[1] + 1))


@flops(spectral_factor.solve)
def _spectral_solve(h: Shape, b: Shape, transposed: bool, *, out_shape: Shape) -> int:
    return _wilson_solve(h[0], h[1])
