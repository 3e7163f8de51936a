"""Frames, eigenvectors and polar factors of d x d matrices with d = 2, 3, 4, at every scale from subnormal to the largest numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from isotypic.ops._checks import check_flag, check_tensors
from isotypic.ops.symmetrize import _small_operators
from isotypic.ops.symmetrize.reference import tolerance


class OrthonormalFrame(NamedTuple):
    """What :func:`orthonormal_frame` returns."""

    frame: Tensor
    """(..., d, d), orthonormal columns."""
    degenerate: Tensor
    """(...) bool: the columns do not determine the frame."""


class SymmetricEigen(NamedTuple):
    """What :func:`symmetric_eigen` returns."""

    values: Tensor
    """(..., d), ascending."""
    vectors: Tensor
    """(..., d, d), one in each column."""
    degenerate: Tensor
    """(...) bool: two values are equal, so that their vectors are any basis of the eigenspace."""


class Polar(NamedTuple):
    """What :func:`polar` returns."""

    rotation: Tensor
    """(..., d, d), orthogonal."""
    stretch: Tensor
    """(..., d, d), symmetric and positive semidefinite."""
    degenerate: Tensor
    """(...) bool: the matrix is singular, so that several rotations do."""


def _finite(values: Tensor) -> Tensor:
    """Values beyond the largest number as that one, so that they can be compared."""
    largest = torch.finfo(values.dtype).max
    return values.detach().clamp(-largest, largest)


def _check(operator: str, name: str, a: Any) -> None:
    check_tensors(operator, {name: a})
    if a.dim() < 2 or a.shape[-1] != a.shape[-2] or a.shape[-1] not in (2, 3, 4):
        raise ValueError(f"{operator}: {name} must have shape (..., d, d) with d = 2, 3 or 4, got {tuple(a.shape)}")


def orthonormal_frame(v: Tensor, proper: bool = False) -> OrthonormalFrame:
    """The orthonormal frame of the columns of v by Gram-Schmidt, first column first: v = frame R with R upper triangular.

    frame(g v) = g frame(v) for every orthogonal g, so that a frame of vectors that rotate with the input rotates with it. Each column is
    projected twice and stays orthogonal to rounding however close the columns are to each other.

    Where a column depends on the ones before (what is left of it is at most 64 eps of its length), the frame is completed by the axis that
    is farthest from them, `degenerate` is set, and the derivative of that frame is zero. No vectors determine such a frame.

    Columns may be of any size, subnormal ones too. The derivative grows as 1 / length, up to where that is no number any more (a length of
    3e-39 in float32); shorter columns get the derivative of that length.

    Args:
        v: (..., d, d) with d = 2, 3 or 4, float32, float64, bfloat16 or float16, one vector in each column.
        proper: whether the last column is turned round where the determinant would be negative; such a frame turns with rotations only.

    Returns: ``OrthonormalFrame(frame, degenerate)``.
    Raises TypeError for arguments that are no dense tensors of a supported dtype and for a flag that is none; ValueError for other shapes.

    J. Kim et al., "Learning Probabilistic Symmetrization for Architecture Agnostic Equivariance", NeurIPS 2023.

    >>> import torch
    >>> orthonormal_frame(torch.tensor([[2.0, 3.0], [0.0, -4.0]])).frame
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    _check("orthonormal_frame", "v", v)
    check_flag("orthonormal_frame", "proper", proper)
    frame, inverse = _small_operators.frame(v.reshape(-1, *v.shape[-2:]), proper)
    # The inverse of the triangular factor is 0 where there is none, and nowhere else.
    return OrthonormalFrame(frame.reshape(v.shape), (inverse.detach()[:, 0, 0] == 0).reshape(v.shape[:-2]))


def symmetric_eigen(a: Tensor) -> SymmetricEigen:
    """Eigenvalues and eigenvectors of the symmetric matrices (a + a^T) / 2.

    Args:
        a: (..., d, d) with d = 2, 3 or 4.

    Returns: ``SymmetricEigen(values, vectors, degenerate)``; the first entry of a vector that is at least 0.3 times its largest is
        positive. `degenerate` says that a gap is at most 64 eps of the largest value; the derivative of the vectors leaves such pairs out.
    Raises TypeError for arguments that are no dense tensors of a supported dtype; ValueError for other shapes.

    >>> import torch
    >>> symmetric_eigen(torch.tensor([[2.0, 1.0], [1.0, 2.0]])).values.round(decimals=4)
    tensor([1., 3.])
    """
    _check("symmetric_eigen", "a", a)
    values, vectors = _small_operators.eigen(a.reshape(-1, *a.shape[-2:]))
    fixed = _finite(values)
    degenerate = (fixed.diff(dim=-1) <= tolerance(a.dtype) * fixed[:, (0, -1)].abs().amax(-1, keepdim=True)).any(-1)
    batch = a.shape[:-2]
    return SymmetricEigen(values.reshape(a.shape[:-1]), vectors.reshape(a.shape), degenerate.reshape(batch))


def polar(a: Tensor) -> Polar:
    """The polar decomposition a = rotation stretch, with an orthogonal and a symmetric positive semidefinite factor.

    Args:
        a: (..., d, d) with d = 2, 3 or 4.

    Returns: ``Polar(rotation, stretch, degenerate)``; the rotation has the sign of the determinant of a, and is proper where a is singular.
    Raises TypeError for arguments that are no dense tensors of a supported dtype; ValueError for other shapes.

    >>> import torch
    >>> polar(torch.tensor([[0.0, -2.0], [3.0, 0.0]])).stretch
    tensor([[3., 0.],
            [0., 2.]])
    """
    _check("polar", "a", a)
    rotation, stretch = _small_operators.polar_factors(a.reshape(-1, *a.shape[-2:]))
    singular = _finite(_small_operators.eigen(stretch.detach())[0])
    degenerate = singular[:, 0] <= tolerance(a.dtype) * singular[:, -1]
    return Polar(rotation.reshape(a.shape), stretch.reshape(a.shape), degenerate.reshape(a.shape[:-2]))
