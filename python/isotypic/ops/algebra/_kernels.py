"""How the operators on multivectors reach their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._words import Algebra
from isotypic.ops import _launch
from isotypic.ops.algebra import attention_reference, reference


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _launch.HALF else tensor


def _is_run(tensor: Tensor) -> bool:
    """Rows follow each other as channels do."""
    return tensor.shape[0] <= 1 or tensor.stride(0) == tensor.shape[1] * tensor.stride(1)


def _multivectors(tensor: Tensor) -> Tensor:
    """As a kernel reads it: slices of channels as they are, where they fill whole vectors."""
    fits = tensor.stride(2) == 1 and tensor.stride(0) >= 0 and tensor.stride(1) >= 0
    return tensor if fits and (_is_run(tensor) or tensor.shape[1] % 16 == 0) else tensor.contiguous()


def product_into(result: Tensor, a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> None:
    """result may be a slice of channels."""
    if result.numel():
        place = _multivectors(result)
        _launch.launch("geometric_product", "multivector_product", _multivectors(a), _multivectors(b), scale, place, table, like=a)
        if place is not result:
            result.copy_(place)


def product(shape: Sequence[int], a: Tensor, b: Tensor, scale: Tensor | None, table: str) -> Tensor:
    result = a.new_empty(tuple(shape))
    product_into(result, a, b, scale, table)
    return result


WEIGHT_PARTS = 64
"""csrc/ops/multivector_linear.hpp"""


def linear(shape: Sequence[int], x: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor:
    def compute(x: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        y = x.new_empty(tuple(shape))
        if y.numel() and weight.shape[1]:
            _launch.launch("multivector_linear", "multivector_linear", x, weight, shift, y, algebra, like=y)
            return y
        return y.zero_() if shift is None else y.zero_() + reference.spread(shift, (0, 15)[: shift.shape[-1]])

    return _launch.in_float32(compute, x, weight, shift)


def linear_transpose(shape: Sequence[int], y: Tensor, weight: Tensor, shift: Tensor | None, algebra: Algebra) -> Tensor:
    def compute(y: Tensor, weight: Tensor, shift: Tensor | None) -> Tensor:
        x = y.new_empty(tuple(shape))
        if x.numel() and y.numel():
            _launch.launch("multivector_linear", "multivector_linear_transpose", y, weight, shift, x, algebra, like=y)
            return x
        return x.zero_() if shift is None else x.zero_() + reference.spread(shift, (0, 15)[: shift.shape[-1]])

    return _launch.in_float32(compute, y, weight, shift)


def linear_weight(shape: Sequence[int], x: Tensor, y: Tensor, maps: int, algebra: Algebra) -> Tensor:
    def compute(x: Tensor, y: Tensor) -> Tensor:
        weight = x.new_zeros(tuple(shape))
        if weight.numel() and x.shape[0]:
            space = x.new_empty(WEIGHT_PARTS, *weight.shape[:2], 32) if x.is_cuda else None
            _launch.launch("multivector_linear", "multivector_linear_weight", x, y, weight, space, algebra, like=x)
        return weight

    return _launch.in_float32(compute, x, y)


def gate(x: Tensor, factor: Tensor) -> Tensor:
    """(M, 16) times (M,)."""
    y = torch.empty_like(x)
    if y.numel():
        _launch.launch("multivector_gate", "multivector_gate", x, factor, y, like=x)
    return y


def gate_backward(grad: Tensor, x: Tensor, factor: Tensor, slope: Tensor) -> Tensor:
    dx = torch.empty_like(x)
    if dx.numel():
        _launch.launch("multivector_gate", "multivector_gate_backward", grad, x, factor, slope, dx, like=x)
    return dx


NORM_PARTS = 64
"""csrc/ops/multivector_scale.hpp"""


def norm(x: Tensor, weight: Tensor | None, signs: Sequence[float], epsilon: float) -> Tensor:
    y = torch.empty_like(x)
    if y.numel():
        _launch.launch("multivector_norm", "multivector_norm", x, weight, y, signs, epsilon, like=x)
    return y


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor | None, signs: Sequence[float], epsilon: float) -> tuple[Tensor, Tensor]:
    """The gradient of x and that of the weight, (0,) where there is none."""
    dx = torch.empty_like(x)
    dweight = None if weight is None else torch.zeros_like(weight)
    if dx.numel():
        space = x.new_empty(x.shape[0] + NORM_PARTS * x.shape[1] * 16) if x.is_cuda and weight is not None else None
        _launch.launch("multivector_norm", "multivector_norm_backward", grad, x, weight, dx, dweight, space, signs, epsilon, like=x)
    return dx, x.new_empty(0) if dweight is None else dweight


ATTENTION_QUERIES = 16
"""csrc/ops/distance_attention.hpp"""


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
    tensors, weight, mask, ranges, heads, kind = _prepared(args)
    mv, s, lse = (tensors[0].new_empty(tuple(shape)) for shape in shapes)
    if lse.numel():
        settings = _settings(tensors[0], tensors[3], heads, kind)
        everything = [*tensors, mv, s, lse]
        _launch.launch("distance_attention", "distance_attention", everything, weight, mask, ranges, *settings, like=mv)
    return mv.to(args[0].dtype), s.to(args[0].dtype), lse


def attention_backward(g_mv: Tensor, g_s: Tensor, mv: Tensor, s: Tensor, lse: Tensor, *args: Any) -> tuple[Tensor, ...]:
    tensors, weight, mask, ranges, heads, kind = _prepared(args)
    q_mv, q_s = tensors[0], tensors[3]
    make = torch.empty_like if lse.numel() else torch.zeros_like
    found = [make(t, memory_format=torch.contiguous_format) for t in tensors]
    found.append(q_mv.new_zeros(heads, q_mv.shape[2] // heads))
    if lse.numel():
        incoming = [_wide(t).contiguous() for t in (g_mv, g_s, mv, s)]
        tiles = -(-q_mv.shape[1] // ATTENTION_QUERIES)
        space = q_mv.new_empty(q_mv.shape[0] * tiles * q_mv.shape[2]) if q_mv.is_cuda else None
        _launch.launch(
            "distance_attention",
            "distance_attention_backward",
            [*tensors, *incoming[2:], lse.contiguous()],
            [*incoming[:2], *found],
            weight,
            mask,
            ranges,
            space,
            *_settings(q_mv, q_s, heads, kind),
            like=q_mv,
        )
    return tuple(gradient.to(args[0].dtype) for gradient in found)
