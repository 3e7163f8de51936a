"""The maximum over windows of positions. ``csrc/ops/max_pool.hpp`` has the formulas.

    max_pool          (x) -> y, index
    max_pool_scatter  (g, index) -> x
    max_pool_select   (x, index) -> y

x is (O, D, H, W, I), O I planes of three axes, and ``size`` (D, H, W). The last two are linear and adjoint to each other, and the
derivatives of all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops._checks import check_tensors, per_axis
from isotypic.ops._kernel_operator import kernel_operator
from isotypic.ops._launch import launch


def max_pool(x: Tensor, kernel_size: Sequence[int], stride: Sequence[int] | None = None, padding: Sequence[int] | None = None) -> Tensor:
    """The largest value of each window of positions: y[..., j] = max_t x[..., stride j - padding + t] over the 0 <= t < kernel_size inside.

    What `torch.nn.functional.max_pool2d` computes, gradient included: that of a window goes to the first of equal values, and NaN is the
    largest of all. Kept for the gradient are the places of the maxima, in 32 bits, and not x.

    Args:
        x: (..., *spatial), float32, float64, bfloat16 or float16, on a CPU or CUDA device, with any strides.
        kernel_size: 1 to 3 integers, one for each spatial axis; these are the last axes of x.
        stride: the same, kernel_size by default.
        padding: the same, at most half of kernel_size, 0 by default; positions outside are never the largest.

    Returns: (..., *smaller), of sizes (size + 2 padding - kernel_size) // stride + 1. It is contiguous, or channels last in memory where x
        is (B, C, *spatial) and is.
    Raises TypeError for a tensor of another kind; ValueError for wrong sizes; RuntimeError where isotypic has no kernels.

    >>> import torch
    >>> max_pool(torch.tensor([[1.0, 5.0, 2.0, 3.0], [4.0, 0.0, 8.0, 6.0]]), (2, 2))
    tensor([[5., 8.]])
    """
    check_tensors("max_pool", {"x": x})
    if not isinstance(kernel_size, (tuple, list, torch.Size)) or not 1 <= len(kernel_size) <= 3:
        raise ValueError(f"max_pool: kernel_size must be 1 to 3 integers, one for each spatial axis, got {kernel_size!r}")
    axes = len(kernel_size)
    window = per_axis("max_pool", "kernel_size", kernel_size, axes, 1)
    step = window if stride is None else per_axis("max_pool", "stride", stride, axes, 1)
    pad = (0,) * axes if padding is None else per_axis("max_pool", "padding", padding, axes, 0)
    if any(2 * p > w for p, w in zip(pad, window, strict=True)):
        raise ValueError(f"max_pool: padding must be at most half of kernel_size {window}, got {pad}")
    if x.dim() < axes:
        raise ValueError(f"max_pool: x must have {axes} spatial axes, got shape {tuple(x.shape)}")
    planes, size = x.shape[: x.dim() - axes], x.shape[x.dim() - axes :]
    if any(n < 1 or n + 2 * p < w for n, p, w in zip(size, pad, window, strict=True)):
        raise ValueError(f"max_pool: the spatial axes of x must have room for kernel_size {window}, got {tuple(size)} with padding {pad}")
    ones, zeros = (1,) * (3 - axes), (0,) * (3 - axes)
    settings = [*ones, *window], [*ones, *step], [*zeros, *pad], [*ones, *size]
    if len(planes) == 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous():
        last = pooled(x.movedim(1, -1).reshape(planes[0], *ones, *size, planes[1]), *settings)[0]
        return last.reshape(planes[0], *last.shape[4 - axes : 4], planes[1]).movedim(-1, 1)
    y = pooled(x.reshape(math.prod(planes), *ones, *size, 1), *settings)[0]
    return y.reshape(*planes, *y.shape[4 - axes : 4])


# Launches and shapes


def _fake(x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    if x.dim() != 5 or list(x.shape[1:4]) != list(size):
        raise ValueError(f"max_pool: x must have shape (O, D, H, W, I) with (D, H, W) = {tuple(size)}, got {tuple(x.shape)}")
    out = [(n + 2 * p - w) // s + 1 for n, w, s, p in zip(size, window, stride, padding, strict=True)]
    y = x.new_empty(x.shape[0], *out, x.shape[4])
    return y, y.new_empty(y.shape, dtype=torch.int32)


def _launch(x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    y, index = _fake(x, window, stride, padding, size)
    if y.numel():
        launch("max_pool", "max_pool", x.contiguous(), window, stride, padding, y, index, like=x)
    return y, index


def _backward(needs: Sequence[bool], grads: Gradients, index: Tensor, x: None, *settings: Sequence[int]) -> Gradients:
    return (None if grads[0] is None else scattered(grads[0], index, *settings),)


def _jvp(tangents: Gradients, x: Tensor, *settings: Sequence[int]) -> tuple[Tensor | None, None]:
    index = pooled(x.detach(), *settings)[1]
    return None if tangents[0] is None else selected(tangents[0], index, *settings), None


def _vmap(info: Any, in_dims: Sequence[Any], x: Tensor, *settings: Sequence[int]) -> Any:
    y, index = pooled(x.movedim(in_dims[0], 0).flatten(0, 1), *settings)
    batch = (info.batch_size, y.shape[0] // info.batch_size)
    return (y.unflatten(0, batch), index.unflatten(0, batch)), (0, 0)


def _scattered_shape(
    g: Tensor, index: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], size: Sequence[int]
) -> Sequence[int]:
    return g.shape[0], *size, g.shape[4]


def _selected_shape(x: Tensor, index: Tensor, *settings: Sequence[int]) -> Sequence[int]:
    return index.shape


def _backward_scattered(needs: Sequence[bool], grad: Tensor, g: Tensor, index: Tensor, *settings: Sequence[int]) -> Gradients:
    return selected(grad, index, *settings) if needs[0] else None, None


def _backward_selected(needs: Sequence[bool], grad: Tensor, x: Tensor, index: Tensor, *settings: Sequence[int]) -> Gradients:
    return scattered(grad, index, *settings) if needs[0] else None, None


pooled = define(
    "max_pool(Tensor x, int[] window, int[] stride, int[] padding, SymInt[] size) -> (Tensor, Tensor)",
    launch=_launch,
    fake=_fake,
    backward=_backward,
    vmap=_vmap,
    jvp=_jvp,
    forward_only=1,
    saved_outputs=(1,),
)
scattered = kernel_operator(
    "max_pool_scatter(Tensor g, Tensor index, int[] window, int[] stride, int[] padding, SymInt[] size) -> Tensor",
    shape=_scattered_shape,
    samples=(0, 1),
    backward=_backward_scattered,
    settings=slice(3),
    half=True,
)
selected = kernel_operator(
    "max_pool_select(Tensor x, Tensor index, int[] window, int[] stride, int[] padding, SymInt[] size) -> Tensor",
    shape=_selected_shape,
    samples=(0, 1),
    backward=_backward_selected,
    settings=slice(0),
    half=True,
)
