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
            extension.multivector_product(_multivectors(a), _multivectors(b), scale, result, table)
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


def _items(tensor: Tensor) -> Tensor:
    """As a kernel reads it: items and samples may lie anywhere, channels next to each other."""
    inside = tensor[0, 0] if tensor.shape[0] and tensor.shape[1] else tensor
    return tensor if inside.is_contiguous() and min(tensor.stride()) >= 0 else tensor.contiguous()


def _settings(q_mv: Tensor, q_s: Tensor, heads: int, kind: str) -> tuple[Any, ...]:
    signs = [float(sign) for sign in attention_reference.inner_signs(kind)]
    count = attention_reference.features(kind, q_mv.shape[2] // heads, q_s.shape[2] // heads)
    return heads, signs, attention_reference.KINDS[kind][2], max(count, 1) ** -0.5


def _prepared(args: tuple[Any, ...]) -> tuple[list[Tensor], Tensor | None, Tensor | None, Tensor | None, int, str]:
    *tensors, weight, mask, ranges, heads, kind = args
    cuda = tensors[0].is_cuda
    wide = [_wide(tensor).contiguous() if cuda else _items(_wide(tensor)) for tensor in tensors]
    weight = None if weight is None else _wide(weight).contiguous()
    return (
        wide,
        weight,
        None if mask is None else mask.contiguous(),
        None if ranges is None else ranges.contiguous(),
        heads,
        kind,
    )


def attention(shapes: Sequence[Sequence[int]], *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    extension = _launch.extension_for("distance_attention", args[0])
    tensors, weight, mask, ranges, heads, kind = _prepared(args)
    mv, s, lse = (tensors[0].new_empty(tuple(shape)) for shape in shapes)
    if lse.numel():
        with _launch.device_of(mv):
            extension.distance_attention([*tensors, mv, s, lse], weight, mask, ranges, *_settings(tensors[0], tensors[3], heads, kind))
    return mv.to(args[0].dtype), s.to(args[0].dtype), lse


def attention_backward(g_mv: Tensor, g_s: Tensor, mv: Tensor, s: Tensor, lse: Tensor, *args: Any) -> tuple[Tensor, ...]:
    extension = _launch.extension_for("distance_attention", args[0])
    tensors, weight, mask, ranges, heads, kind = _prepared(args)
    q_mv, k_mv, v_mv, q_s, _, v_s = tensors
    found = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
    found.append(q_mv.new_zeros(heads, q_mv.shape[2] // heads))
    if lse.numel():
        incoming = [_wide(t).contiguous() for t in (g_mv, g_s, mv, s)]
        counts = (*q_mv.shape[:1], heads, q_mv.shape[1], *k_mv.shape[1:2], *(t.shape[2] for t in (q_mv, q_s, v_mv, v_s)))
        space = q_mv.new_empty(extension.distance_attention_workspace(*counts)) if q_mv.is_cuda else None
        with _launch.device_of(q_mv):
            extension.distance_attention_backward(
                [*tensors, *incoming[2:], lse.contiguous()],
                [*incoming[:2], *found],
                weight,
                mask,
                ranges,
                space,
                *_settings(q_mv, q_s, heads, kind),
            )
    return tuple(gradient.to(args[0].dtype) for gradient in found)
