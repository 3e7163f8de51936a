"""Rotations of k samples and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from isotypic._register import Gradients
from isotypic.ops import _launch
from isotypic.ops._checks import check_tensors
from isotypic.ops._kernel_operator import kernel_operator


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
    return rotate_sum(rotation, y, 1 / max(k, 1))


# The trilinear form scale sum <x, R_j y_j> has three derivatives, and the derivatives of each are the other two.


def _run(name: str, shape: Sequence[int], *args: Any) -> Tensor:
    first, second, scale = args

    def compute(*tensors: Tensor) -> Tensor:
        result = tensors[0].new_empty(shape)
        if result.numel():
            _launch.launch("rotate_mean", name, *tensors, scale, result, like=result)
        return result

    return _launch.in_float32(compute, first, second)


def _shape_sum(rotation: Tensor, y: Tensor, scale: float) -> Sequence[int]:
    return y.shape[0], y.shape[2], y.shape[3]


def _shape_each(rotation: Tensor, x: Tensor, scale: float) -> Sequence[int]:
    return x.shape[0], rotation.shape[1], x.shape[1], x.shape[2]


def _shape_outer(x: Tensor, y: Tensor, scale: float) -> Sequence[int]:
    return y.shape[0], y.shape[1], y.shape[3], y.shape[3]


def _backward_sum(needs: Sequence[bool], x: Tensor, rotation: Tensor, y: Tensor, scale: float) -> Gradients:
    return rotate_outer(x, y, scale) if needs[0] else None, rotate_each(rotation, x, scale) if needs[1] else None


def _backward_each(needs: Sequence[bool], y: Tensor, rotation: Tensor, x: Tensor, scale: float) -> Gradients:
    return rotate_outer(x, y, scale) if needs[0] else None, rotate_sum(rotation, y, scale) if needs[1] else None


def _backward_outer(needs: Sequence[bool], rotation: Tensor, x: Tensor, y: Tensor, scale: float) -> Gradients:
    return rotate_sum(rotation, y, scale) if needs[0] else None, rotate_each(rotation, x, scale) if needs[1] else None


rotate_sum = kernel_operator(
    "rotate_sum(Tensor rotation, Tensor y, float scale) -> Tensor", shape=_shape_sum, run=_run, samples=(0, 1), backward=_backward_sum
)
rotate_each = kernel_operator(
    "rotate_each(Tensor rotation, Tensor x, float scale) -> Tensor", shape=_shape_each, run=_run, samples=(0, 1), backward=_backward_each
)
rotate_outer = kernel_operator(
    "rotate_outer(Tensor x, Tensor y, float scale) -> Tensor", shape=_shape_outer, run=_run, samples=(0, 1), backward=_backward_outer
)
