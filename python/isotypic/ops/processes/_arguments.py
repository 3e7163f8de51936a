"""Checks of the operators on sets of points, and their words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops._checks import check_tensors
from isotypic.ops._launch import HALF


def check_values(operator: str, y: Tensor, x: Tensor) -> None:
    """That y is (B, N, C) for the positions x."""
    if y.dim() != 3 or y.shape[:2] != x.shape[:2]:
        raise ValueError(f"{operator}: y must have shape (B={x.shape[0]}, N={x.shape[1]}, C), got {tuple(y.shape)}")


def check_places(operator: str, tensors: dict[str, Any], places: dict[str, Any]) -> None:
    """As `check_tensors` of all; the places may be of float32 where the others have 16 bits, as autocast leaves them."""
    check_tensors(operator, tensors)
    name, first = next(iter(tensors.items()))
    for place, x in places.items():
        if isinstance(x, Tensor) and x.dtype == torch.float32 and first.dtype in HALF:
            check_tensors(operator, {place: x})
            if x.device != first.device:
                raise ValueError(f"{operator}: {place} must be on the device of {name}, {first.device}, got {x.device}")
        else:
            check_tensors(operator, {name: first, place: x})


def check_grid(operator: str, grid: Any, x: Tensor) -> tuple[Tensor, ...]:
    """The nodes of 1 to 3 axes, as many as x has coordinates."""
    if isinstance(grid, Tensor) and grid.dim() == 1:
        grid = (grid,)
    if not isinstance(grid, (tuple, list)) or not 1 <= len(grid) <= 3:
        raise TypeError(f"{operator}: grid must be a tuple of 1 to 3 tensors, one for each axis, got {describe(grid)}")
    for axis, nodes in enumerate(grid):
        if not isinstance(nodes, Tensor):
            raise TypeError(f"{operator}: grid[{axis}] must be a torch.Tensor, got {type(nodes).__name__}")
        if nodes.dim() != 1 or not nodes.is_floating_point() or nodes.shape[0] == 0:
            raise ValueError(f"{operator}: grid[{axis}] must be a 1-D floating-point tensor of one node or more, got {describe(nodes)}")
        if nodes.device != x.device:
            raise ValueError(f"{operator}: grid[{axis}] must be on the device of x, {x.device}, got {nodes.device}")
    if x.dim() != 3 or x.shape[2] != len(grid):
        raise ValueError(f"{operator}: x must have shape (B, N, d={len(grid)}), one coordinate for each axis of grid, got {tuple(x.shape)}")
    return tuple(grid)


def describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{len(value)} of them"
    return type(value).__name__


def as_lengthscale(operator: str, lengthscale: Any, x: Tensor, axes: int) -> Tensor:
    """(d,), of the dtype of x. Numbers are checked here; what a tensor holds, where a kernel reads it."""
    if isinstance(lengthscale, Tensor):
        check_tensors(operator, {"x": x, "lengthscale": lengthscale})
        if lengthscale.dim() > 1 or lengthscale.numel() not in (1, axes):
            raise ValueError(f"{operator}: lengthscale must be a number or have shape (d={axes},), got shape {tuple(lengthscale.shape)}")
        return lengthscale.expand(axes)
    values = list(lengthscale) if isinstance(lengthscale, Sequence) and not isinstance(lengthscale, str) else [lengthscale] * axes
    if len(values) != axes or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{operator}: lengthscale must be a number, {axes} numbers or a tensor, got {lengthscale!r}")
    if not all(0 < v < math.inf for v in values):
        raise ValueError(f"{operator}: lengthscale must be positive and finite, got {lengthscale!r}")
    return torch.tensor(values, dtype=x.dtype, device=x.device)
