"""Flops of symmetrization: the multiply-adds of Sinkhorn's recursions and of small matrices. Permutations only move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._flops import flops
from isotypic.ops.symmetrize import _sinkhorn_operators, _small_operators, rotate_mean
from isotypic.ops.symmetrize.permute import permute

Shape = Sequence[int]


@flops(permute, _sinkhorn_operators.through)
def _moved(*arguments: Any, out_shape: Any) -> int:
    return 0


@flops(rotate_mean.rotate_sum, rotate_mean.rotate_each)
def _rotate(rotation: Shape, other: Shape, scale: float, *, out_shape: Shape) -> int:
    batch, samples, d = rotation[:3]
    return 2 * batch * samples * other[-2] * d**2


@flops(rotate_mean.rotate_outer)
def _rotate_outer(x: Shape, y: Shape, scale: float, *, out_shape: Shape) -> int:
    batch, samples, nodes, d = y
    return 2 * batch * samples * nodes * d**2


@flops(rotate_mean.rotate_both)
def _rotate_both(x: Shape, rotation: Shape, y: Shape, scale: float, *, out_shape: Any) -> int:
    batch, samples, nodes, d = y
    return 4 * batch * samples * nodes * d**2


# Sinkhorn, by csrc/ops/sort_sinkhorn_solver.hpp; the numbers are multiply-adds for a node.

HALF_STEP = 2  # a sum from either side
ENTROPY = 4 + 4 + 4  # K u and K v, their sums with distances, and the three terms
HALF_STEP_ADJOINT = 4 + 4 + 3  # K and its signed form of two vectors, those vectors, and what goes to t
BILINEAR_ADJOINT = 4 + 4 + 5  # the same for a channel, and what goes to u, v and t
ENTROPY_ADJOINT = 2 * BILINEAR_ADJOINT + 12 + 5  # two of those, the sums with distances, and what goes to u, v and t


@flops(_sinkhorn_operators.entropy)
def _entropy(t: Shape, lengths: Any, tau: float, iterations: int, *, out_shape: Shape) -> int:
    return 2 * t[0] * t[1] * (2 * iterations * HALF_STEP + ENTROPY)


@flops(_sinkhorn_operators.gradient)
def _gradient(t: Shape, x: Shape | None, y: Any, w: Any, lengths: Any, tau: float, iterations: int, *, out_shape: Shape) -> int:
    steps = 2 * iterations * (HALF_STEP + HALF_STEP_ADJOINT)
    channels = 0 if x is None or y is None else x[2] * BILINEAR_ADJOINT
    return 2 * t[0] * t[1] * (steps + channels + (0 if w is None else ENTROPY_ADJOINT))


# Small matrices, by csrc/ops/small_matrix_algebra.hpp; roots and divisions do not count.

ANGLE = 5  # of a rotation in a plane


def rotations(d: int, dtype: torch.dtype) -> int:
    """Of Jacobi's sweeps, whose number is fixed."""
    sweeps = 1 if d == 2 else d + (2 if dtype == torch.float64 else 1)
    return sweeps * d * (d - 1) // 2


def gram_schmidt(d: int) -> int:
    """Lengths before and after, every column projected twice, and scaled."""
    return 2 * d**2 * (d - 1) + 3 * d**2


def eigen_products(d: int, dtype: torch.dtype) -> int:
    """A rotation turns two columns of the vectors, two rows off the diagonal, and the 2 x 2 block."""
    return rotations(d, dtype) * (ANGLE + 4 * d + 4 * (d - 2) + 8)


def polar_products(d: int, dtype: torch.dtype) -> int:
    """A rotation takes three inner products and turns two columns of both factors; a frame and two products follow."""
    return rotations(d, dtype) * (ANGLE + 3 * d + 8 * d) + gram_schmidt(d) + 2 * d**3


def sylvester_products(d: int, dtype: torch.dtype) -> int:
    return eigen_products(d, dtype) + 4 * d**3


@flops(_small_operators.frame)
def _frame(v: Shape, proper: bool, *, out_shape: Any) -> int:
    """The columns, R = Q^T v, and its inverse."""
    d = v[-1]
    return 2 * v[0] * (gram_schmidt(d) + d**3 + d * (d**2 - 1) // 6)


@flops(_small_operators.frame_backward)
def _frame_backward(grad: Shape, frame: Shape, inverse: Shape, *, out_shape: Shape) -> int:
    """A product of matrices, and two by triangular ones."""
    return 2 * grad[0] * 2 * grad[-1] ** 3


@flops(_small_operators.eigen, tensors=True)
def _eigen(a: Tensor, *, out_val: Any) -> int:
    return 2 * a.shape[0] * eigen_products(a.shape[-1], a.dtype)


@flops(_small_operators.eigen_backward)
def _eigen_backward(grad_values: Any, grad_vectors: Any, values: Any, vectors: Shape, *, out_shape: Shape) -> int:
    return 2 * vectors[0] * 3 * vectors[-1] ** 3


@flops(_small_operators.polar_factors, tensors=True)
def _polar(a: Tensor, *, out_val: Any) -> int:
    return 2 * a.shape[0] * polar_products(a.shape[-1], a.dtype)


@flops(_small_operators.sylvester, tensors=True)
def _sylvester(s: Tensor, w: Tensor, *, out_val: Any) -> int:
    return 2 * s.shape[0] * sylvester_products(s.shape[-1], s.dtype)


@flops(_small_operators.polar_backward, tensors=True)
def _polar_backward(grad_rotation: Tensor, grad_stretch: Tensor, rotation: Tensor, stretch: Tensor, *, out_val: Any) -> int:
    d = rotation.shape[-1]
    return 2 * rotation.shape[0] * (sylvester_products(d, rotation.dtype) + 3 * d**3)
