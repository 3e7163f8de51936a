"""How the operators on multivectors reach their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops import _launch
from isotypic.ops.algebra import attention_reference, reference


def _wide(tensor: Tensor | None) -> Tensor | None:
    return tensor.float() if tensor is not None and tensor.is_floating_point() and tensor.dtype.itemsize == 2 else tensor


def _is_run(tensor: Tensor) -> bool:
    """Rows follow each other as channels do."""
    return tensor.shape[0] <= 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)


def _multivectors(tensor: Tensor) -> Tensor:
    """As a kernel reads it: slices of channels as they are, where they fill whole vectors."""
    fits = tensor.stride(2) == 1 and tensor.stride(0) >= 0 and tensor.stride(1) >= 0
    return tensor if fits and (_is_run(tensor) or tensor.shape[1] % 16 == 0) else tensor.contiguous()


def product(shape: Sequence[int], a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Tensor:
    extension = _launch.extension_for("geometric_product", a)
    result = torch.empty(tuple(shape), dtype=a.dtype, device=a.device)
    if result.numel():
        with _launch.device_of(a):
            extension.multivector_product(
                _multivectors(a), _multivectors(b), scale, result, table
            )
    return result


WEIGHT_PARTS = 64
"""csrc/ops/multivector_linear.hpp"""


def _linear(name: str, shape: Sequence[int], first: Tensor, second: Tensor, *rest: Any) -> Tensor:
    """A kernel that takes two tensors, what else there is, the result and the algebra."""
    extension = _launch.extension_for("multivector_linear", first)
    *others, algebra = rest

    def compute(*tensors: Tensor) -> Tensor:
        result = tensors[0].new_empty(tuple(shape))
        if 0 in (*tensors[0].shape, *tensors[1].shape):
            return result.zero_()
        with _launch.device_of(result):
            getattr(extension, name)(*tensors, *([None] if None in others else []), result, algebra)
        return result

    return _launch.in_float32(compute, first, second, *(t for t in others if t is not None))


def linear(shape: Sequence[int], x: Tensor, weight: Tensor, shift: Tensor | None, algebra: str) -> Tensor:
    if not weight.shape[1]:  # nothing to sum
        empty = x.new_zeros(tuple(shape))
        return empty if shift is None else empty + reference.spread(shift, (0, 15)[: shift.shape[-1]])
    return _linear("multivector_linear", shape, x, weight, shift, algebra)


def linear_transpose(shape: Sequence[int], y: Tensor, weight: Tensor, algebra: str) -> Tensor:
    return _linear("multivector_linear_transpose", shape, y, weight, algebra)


def linear_weight(shape: Sequence[int], x: Tensor, y: Tensor, maps: int, algebra: str) -> Tensor:
    extension = _launch.extension_for("multivector_linear", x)

    def compute(*tensors: Tensor) -> Tensor:
        result = tensors[0].new_zeros(tuple(shape))
        if result.numel() and tensors[0].shape[0]:
            space = tensors[0].new_empty(WEIGHT_PARTS, *result.shape[:2], 32) if result.is_cuda else None
            with _launch.device_of(result):
                extension.multivector_linear_weight(*tensors, result, space, algebra)
        return result

    return _launch.in_float32(compute, x, y)


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
