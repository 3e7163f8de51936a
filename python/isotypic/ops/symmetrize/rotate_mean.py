"""Rotations of k samples and their mean."""

from __future__ import annotations

from torch import Tensor

from isotypic.ops._checks import check_tensors
from isotypic.ops.symmetrize import reference


def rotate_mean(rotation: Tensor, y: Tensor) -> Tensor:
    """The mean over k samples of vectors turned by a matrix of each sample: out[b, i] = (1 / k) sum_j R[b, j] y[b, j, i].

    Args:
        rotation: (B, k, d, d) with d = 2, 3 or 4; any matrices.
        y: (B, k, n, d), of the dtype of `rotation`.

    Returns: (B, n, d); zeros where k = 0.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for shapes that do not fit.

    >>> import torch
    >>> rotate_mean(torch.eye(2).expand(1, 3, 2, 2), torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 1, 2))
    tensor([[[1., 1.]]])
    """
    check_tensors("rotate_mean", {"rotation": rotation, "y": y})
    if rotation.dim() != 4 or rotation.shape[-1] != rotation.shape[-2] or rotation.shape[-1] not in (2, 3, 4):
        raise ValueError(f"rotate_mean: rotation must have shape (B, k, d, d) with d = 2, 3 or 4, got {tuple(rotation.shape)}")
    b, k, d, _ = rotation.shape
    if y.dim() != 4 or y.shape[:2] != (b, k) or y.shape[3] != d:
        raise ValueError(f"rotate_mean: y must have shape (B={b}, k={k}, n, d={d}), got {tuple(y.shape)}")
    return reference.rotate_mean(rotation, y)
