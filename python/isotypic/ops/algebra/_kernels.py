"""How the operators on multivectors reach their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops.algebra import attention_reference, reference


def _wide(tensor: Tensor | None) -> Tensor | None:
    return tensor.float() if tensor is not None and tensor.is_floating_point() and tensor.dtype.itemsize == 2 else tensor


def product(shape: Sequence[int], a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Tensor:
    return reference.product(_wide(a), _wide(b), _wide(scale), table).to(a.dtype)


def linear(shape: Sequence[int], x: Tensor, weight: Tensor, shift: Tensor | None, algebra: str) -> Tensor:
    return reference.multivector_linear(_wide(x), _wide(weight), _wide(shift), algebra).to(x.dtype)


def _maps(weight: Tensor, maps: int, algebra: str) -> Tensor:
    return torch.as_tensor(reference.signature(algebra).linear[:maps], dtype=weight.dtype)


def linear_transpose(shape: Sequence[int], y: Tensor, weight: Tensor, algebra: str) -> Tensor:
    y_, w_ = _wide(y), _wide(weight)
    return torch.einsum("oca,aij,noi->ncj", w_, _maps(w_, w_.shape[2], algebra), y_).to(y.dtype)


def linear_weight(shape: Sequence[int], x: Tensor, y: Tensor, maps: int, algebra: str) -> Tensor:
    x_, y_ = _wide(x), _wide(y)
    return torch.einsum("noi,aij,ncj->oca", y_, _maps(x_, maps, algebra), x_).to(x.dtype)


def attention(shapes: Sequence[Sequence[int]], *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    dtype = args[0].dtype
    args = tuple(_wide(a) if isinstance(a, Tensor) else a for a in args)
    *tensors, weight, mask, ranges, heads, kind = args
    mv, s = attention_reference.attend(*tensors, weight, mask=mask, ranges=ranges, heads=heads, kind=kind)
    scores = attention_reference.logits(tensors[0], tensors[1], tensors[3], tensors[4], weight, heads, kind)
    lse = attention_reference.log_sum_exp(scores, attention_reference.allowed(mask, ranges, tensors[1].shape[1]))
    return mv.to(dtype).contiguous(), s.to(dtype).contiguous(), lse


def attention_backward(g_mv: Tensor, g_s: Tensor, mv: Tensor, s: Tensor, lse: Tensor, *args: Any) -> tuple[Tensor, ...]:
    dtype = args[0].dtype
    g_mv, g_s, *rest = (_wide(a) if isinstance(a, Tensor) else a for a in (g_mv, g_s, *args))
    found = [g.to(dtype).contiguous() for g in attention_reference.backward(g_mv, g_s, *rest)]
    if len(found) == 6:
        found.append(args[0].new_zeros(args[9], args[0].shape[2] // args[9]))
    return tuple(found)
