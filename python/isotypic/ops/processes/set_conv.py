"""The set convolution and its decoder: public functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops._checks import check_flag, check_tensors
from isotypic.ops.processes import reference
from isotypic.ops.processes._arguments import as_lengthscale, check_grid, check_points


def set_conv(x: Tensor, y: Tensor, grid: Sequence[Tensor], lengthscale: Any, *, density: bool = True) -> Tensor:
    """A set of points, smoothed onto a grid: E[c](g) = sum_n y_nc psi(g - x_n), psi(r) = exp(-|r / lengthscale|^2 / 2).

    Args:
        x: (B, N, d), positions, d = 1, 2 or 3.
        y: (B, N, C), values, of the dtype of x.
        grid: d 1-D tensors of equally spaced nodes, floating point. They are constants: no gradient reaches them.
        lengthscale: a positive number, one for each axis, or a tensor of shape () or (d,), in the units of x.
        density: put a channel of ones before those of y, so that the first channel of the result is the density of the points.

    Returns: (B, 1 + C, *shape), or (B, C, *shape) without the density.
    """
    check_tensors("set_conv", {"x": x, "y": y})
    nodes = check_grid("set_conv", grid, x)
    check_points("set_conv", "y", y, "N", x.shape[0], x.shape[1])
    check_flag("set_conv", "density", density)
    scale = as_lengthscale("set_conv", lengthscale, x, len(nodes))
    values = torch.cat([torch.ones_like(y[..., :1]), y], -1) if density else y
    return reference.set_conv(values, x, scale, nodes)


def set_conv_decode(grid_values: Tensor, grid: Sequence[Tensor], x: Tensor, lengthscale: Any) -> Tensor:
    """A field on a grid, read at points: D_nc = sum_g F_c(g) psi(g - x_n), the adjoint of `set_conv`, without normalisation.

    Args:
        grid_values: (B, C, *shape).
        grid, x, lengthscale: as for `set_conv`, with x (B, M, d).

    Returns: (B, M, C).
    """
    check_tensors("set_conv_decode", {"grid_values": grid_values, "x": x})
    nodes = check_grid("set_conv_decode", grid, x)
    shape = tuple(n.shape[0] for n in nodes)
    if grid_values.dim() != 2 + len(nodes) or grid_values.shape[0] != x.shape[0] or tuple(grid_values.shape[2:]) != shape:
        sizes = ", ".join(map(str, shape))
        raise ValueError(f"set_conv_decode: grid_values must have shape (B={x.shape[0]}, C, {sizes}), got {tuple(grid_values.shape)}")
    scale = as_lengthscale("set_conv_decode", lengthscale, x, len(nodes))
    return reference.set_conv_decode(grid_values, x, scale, nodes)
