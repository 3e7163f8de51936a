"""Checks of the arguments of the weight-space operators, and the wording of what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._words import Pool, Symmetry
from isotypic.ops._checks import check_tensors
from isotypic.ops.weights.layout import MOST_LAYERS, POOLS, WeightLayout, weight_layout


def layout(operator: str, widths: Sequence[int], symmetry: Symmetry, basis: Tensor | None, name: str) -> WeightLayout:
    """The layout of a call, with errors that name the operator. ``basis``, called ``name``, is (q, d_0) or None."""
    try:
        widths = tuple(widths)
    except TypeError:
        raise ValueError(f"{operator}: widths must be a sequence of integers, got {widths!r}") from None
    rank = 0
    if basis is not None:
        _check_matrix(operator, name, basis, widths)
        rank = basis.shape[0]
    try:
        found = weight_layout(widths, symmetry, rank)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{operator}: {str(error).removeprefix('weight_layout: ')}") from None
    if len(found.layers) > MOST_LAYERS:
        raise ValueError(f"{operator}: widths must be of at most {MOST_LAYERS} layers, got {len(found.layers)}")
    return found


def _check_matrix(operator: str, name: str, basis: Any, widths: Sequence[int]) -> None:
    if not isinstance(basis, Tensor):
        raise TypeError(f"{operator}: {name} must be a torch.Tensor, got {type(basis).__name__}")
    if basis.dim() != 2 or basis.shape[0] < 1 or basis.shape[1] != widths[0]:
        raise ValueError(f"{operator}: {name} must have shape (q >= 1, d_0={widths[0]}), got {tuple(basis.shape)}")


def check_pool(operator: str, pool: Pool, basis: Tensor | None, name: str) -> None:
    if pool not in POOLS:
        raise ValueError(f"{operator}: pool must be one of {', '.join(POOLS)}, got {pool!r}")
    if pool == "max" and basis is not None:
        raise ValueError(f"{operator}: {name} must be None with pool='max', got a tensor of shape {tuple(basis.shape)}")


def check_shape(operator: str, name: str, tensor: Tensor, shape: dict[str, int | None]) -> None:
    """That a tensor has the sizes of ``shape``, by the names of its axes; None stands for any size."""
    fits = tensor.dim() == len(shape) and all(size is None or got == size for got, size in zip(tensor.shape, shape.values(), strict=True))
    if not fits:
        expected = ", ".join(axis if size is None else f"{axis}={size}" for axis, size in shape.items())
        raise ValueError(f"{operator}: {name} must have shape ({expected}{',' if len(shape) == 1 else ''}), got {tuple(tensor.shape)}")


def check_weights(operator: str, x: Tensor, layout: WeightLayout) -> None:
    if x.dim() != 3 or x.shape[1] != layout.entries:
        raise ValueError(
            f"{operator}: x must have shape (B, P={layout.entries}, C), got {tuple(x.shape)}; an MLP of widths {list(layout.widths)} has "
            f"{layout.entries} weights and biases"
        )


def check_sizes(operator: str, sizes: Any, x: Tensor, layout: WeightLayout) -> None:
    """The kernels check the values, on a CPU."""
    if sizes is None:
        return
    if not isinstance(sizes, Tensor):
        raise TypeError(f"{operator}: sizes must be a torch.Tensor, got {type(sizes).__name__}")
    if sizes.dtype != torch.int64:
        raise TypeError(f"{operator}: sizes must have dtype int64, got {str(sizes.dtype).removeprefix('torch.')}")
    if sizes.device != x.device:
        raise ValueError(f"{operator}: sizes must be on the device of x, {x.device}, got {sizes.device}")
    check_shape(operator, "sizes", sizes, {"B": x.shape[0], "M+1": len(layout.widths)})


def check_dense(operator: str, tensors: dict[str, Any], **optional: Any) -> None:
    """Tensors of one dtype on one device; the optional ones may be None."""
    check_tensors(operator, tensors | {name: tensor for name, tensor in optional.items() if tensor is not None})
