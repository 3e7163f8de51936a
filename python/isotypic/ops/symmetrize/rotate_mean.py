"""Rotations of k samples and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _launch
from isotypic.ops._checks import check_tensors
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops.symmetrize._derivatives import fold
from isotypic.ops.symmetrize._small_operators import run


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


# The trilinear form scale sum <x, R_j y_j> has three derivatives, and the derivatives of each are the other two. rotate_both is two of
# them in one pass over y.


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
    if needs[0] and needs[1]:
        return rotate_both(x, rotation, y, scale)
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


def _launch_both(x: Tensor, rotation: Tensor, y: Tensor, scale: float) -> tuple[Tensor, ...]:
    return run("rotate_both", [rotation.shape, y.shape], x, rotation, y, scale)


def _backward_both(needs: Sequence[bool], grads: Any, x: Tensor, rotation: Tensor, y: Tensor, scale: float) -> Gradients:
    through_rotation, through_y = grads
    to_x = to_rotation = to_y = None
    if through_rotation is not None:
        to_x = rotate_sum(through_rotation, y, scale) if needs[0] else None
        to_y = rotate_each(through_rotation, x, scale) if needs[2] else None
    if through_y is not None:
        if needs[0]:
            more = rotate_sum(rotation, through_y, scale)
            to_x = more if to_x is None else to_x + more
        to_rotation = rotate_outer(x, through_y, scale) if needs[1] else None
    return to_x, to_rotation, to_y


def _jvp_both(tangents: Gradients, x: Tensor, rotation: Tensor, y: Tensor, scale: float) -> Any:
    dx, dr, dy = (torch.zeros_like(t) if dt is None else dt for dt, t in zip(tangents, (x, rotation, y), strict=True))
    to_rotation = rotate_outer(dx, y, scale) + rotate_outer(x, dy, scale)
    return to_rotation, rotate_each(dr, x, scale) + rotate_each(rotation, dx, scale)


def _vmap_both(info: Any, in_dims: Sequence[Any], *args: Any) -> Any:
    folded, size = fold(info, in_dims, *args)
    to_rotation, to_y = rotate_both(*folded)
    batch = to_y.shape[0] // size
    return (to_rotation.unflatten(0, (size, batch)), to_y.unflatten(0, (size, batch))), (0, 0)


rotate_both = define(
    "rotate_both(Tensor x, Tensor rotation, Tensor y, float scale) -> (Tensor, Tensor)",
    launch=_launch_both,
    fake=lambda x, rotation, y, scale: (rotation.new_empty(rotation.shape), y.new_empty(y.shape)),
    backward=_backward_both,
    vmap=_vmap_both,
    jvp=_jvp_both,
)
