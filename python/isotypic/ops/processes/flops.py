"""Flops of the operators on sets of points: the nodes that lie in windows, and the layers of each pair's MLP."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from isotypic._flops import flops
from isotypic._register import plain
from isotypic.ops.processes import pair_attention, set_conv

Shape = Sequence[int]


def nodes_in_windows(t: Tensor, s: Tensor, shape: Shape, dtype: torch.dtype) -> int:
    """Over all points; the whole grid for each where the positions have no values, under fake tensors. Where matrix products are faster
    they take all nodes, less than twice as many: those count as the windows do."""
    if t.is_meta or not plain(t, s):
        return t.shape[0] * t.shape[1] * prod(shape)
    reach = set_conv.WINDOW[torch.promote_types(dtype, torch.float32)] * s.abs()
    ends = torch.tensor(shape, dtype=t.dtype, device=t.device) - 1
    first, last = (t - reach).ceil().clamp(min=0), (t + reach).floor().minimum(ends)
    return int((last - first + 1).clamp(min=0).prod(-1).nansum())


@flops(set_conv.encode, tensors=True)
def _encode(y: Tensor, t: Tensor, s: Tensor, shape: Shape, powers: Any, *, out_val: Any) -> int:
    return 2 * y.shape[2] * nodes_in_windows(t, s, shape, y.dtype)


@flops(set_conv.decode, tensors=True)
def _decode(grid: Tensor, t: Tensor, s: Tensor, powers: Any, *, out_val: Any) -> int:
    return 2 * grid.shape[1] * nodes_in_windows(t, s, grid.shape[2:], grid.dtype)


@flops(set_conv.moments, tensors=True)
def _moments(t: Tensor, s: Tensor, y: Tensor, grid: Tensor, first: bool, *, out_val: Any) -> int:
    """At a node a product with each channel of y and its sum with weights r and r^2; the sums of the outer axes are taken once a row."""
    products = y.shape[2] * (2 if first else 1) + 2
    return 2 * products * nodes_in_windows(t, s, grid.shape[2:], torch.promote_types(y.dtype, grid.dtype))


def _of_pairs(q: Shape, k: Shape, layers: Sequence[Shape]) -> tuple[int, int, int]:
    """Pairs, multiply-adds of the MLP of one, and of its scores or values over all heads. Pairs that are masked count too."""
    return q[0] * q[2] * k[2], sum(prod(weight) for weight in layers[::2]), q[1] * q[3]


@flops(pair_attention.attend)
def _attend(q: Shape, k: Shape, v: Shape, x_q: Any, x_k: Any, *rest: Any, out_shape: Any) -> int:
    pairs, mlp, scores = _of_pairs(q, k, rest[:6])
    return 2 * pairs * (mlp + 2 * scores)


@flops(pair_attention.gradient)
def _gradient(grad: Shape, q: Shape, k: Shape, v: Shape, x_q: Any, x_k: Any, *rest: Any, out_shape: Any) -> int:
    """The scores again, and two products for each of theirs; without the result of the forward pass that one before."""
    pairs, mlp, scores = _of_pairs(q, k, rest[:6])
    forward = mlp + 2 * scores if rest[7] is None else 0
    return 2 * pairs * (3 * mlp + 5 * scores + forward)
