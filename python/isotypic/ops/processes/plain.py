"""The operators of neural processes in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops.processes import reference


def _nodes(t: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Points are counted in nodes of the grid."""
    return [torch.arange(n, device=t.device) for n in shape]


def _set_conv(y: Tensor, t: Tensor, s: Tensor, shape: Sequence[int], powers: Sequence[int]) -> Tensor:
    return reference.set_conv(y.to(t.dtype), t, s, _nodes(t, shape), powers).to(y.dtype)


def _set_conv_decode(grid: Tensor, t: Tensor, s: Tensor, powers: Sequence[int]) -> Tensor:
    return reference.set_conv_decode(grid.to(t.dtype), t, s, _nodes(t, grid.shape[2:]), powers).to(grid.dtype)


def _pair_attention(q: Tensor, k: Tensor, v: Tensor, x_q: Tensor | None, x_k: Tensor | None, *rest: Any) -> Tensor:
    *layers, mask, mode, reduce, difference = rest
    mlp = list(zip(layers[::2], layers[1::2], strict=True))
    return reference.pair_attention(q, k, v, x_q, x_k, mlp, mode, reduce, difference, mask)


PLAIN: dict[str, Callable[..., Any]] = {"set_conv": _set_conv, "set_conv_decode": _set_conv_decode, "pair_attention": _pair_attention}
