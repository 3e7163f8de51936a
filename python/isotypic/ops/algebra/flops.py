"""Flops of the operators on multivectors: the entries of their tables that are not zero."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from isotypic._flops import flops
from isotypic._words import Algebra
from isotypic.ops.algebra import attention, attention_reference, linear, products, scale
from isotypic.ops.algebra.signature import algebra as signature

Shape = Sequence[int]

# Multiply-adds of (x_q w_k - x_k w_q)^2 for a channel, and its scale.
DISTANCE = 3 * 2 + 3 + 1


@lru_cache
def terms(table: str) -> int:
    """Of a product by its table's name, "pga geometric", "pga join /x": its adjoints have as many."""
    algebra, product = table.split(" ")[:2]
    return int(np.count_nonzero(getattr(signature(algebra), product)))


@lru_cache
def entries(algebra: Algebra, maps: int) -> int:
    """Of the first so many linear maps."""
    return int(np.count_nonzero(signature(algebra).linear[:maps]))


@flops(products.multivector_product)
def _product(a: Shape, b: Shape, scale: Shape | None, table: str, *, out_shape: Shape) -> int:
    return 2 * a[0] * a[1] * terms(table)


@flops(products.bilinear)
def _bilinear(factors: Shape, scale: Shape | None, algebra: Algebra, *, out_shape: Shape) -> int:
    kinds = ("geometric",) if scale is None else ("geometric", "join")
    return 2 * factors[0] * (factors[1] // (2 * len(kinds))) * sum(terms(f"{algebra} {kind}") for kind in kinds)


@flops(products.bilinear_backward)
def _bilinear_backward(grad: Shape, factors: Shape, scale: Shape | None, algebra: Algebra, *, out_shape: Shape) -> int:
    return 2 * _bilinear(factors, scale, algebra, out_shape=out_shape)


@flops(scale.gate)
@flops(scale.norm)
def _pass_over_memory(x: Shape, *_: Any, out_shape: Shape) -> int:
    return 0


@flops(linear.linear)
def _linear(x: Shape, weight: Shape, shift: Any, algebra: Algebra, *, out_shape: Shape) -> int:
    return 2 * x[0] * weight[0] * weight[1] * entries(algebra, weight[2])


@flops(linear.linear_scalars)
def _linear_scalars(x: Shape, weight: Shape, shift: Any, algebra: Algebra, *, out_shape: Any) -> int:
    return _linear(x, weight, shift, algebra, out_shape=out_shape)


@flops(linear.transpose)
def _transpose(y: Shape, weight: Shape, shift: Any, algebra: Algebra, *, out_shape: Shape) -> int:
    return 2 * y[0] * weight[0] * weight[1] * entries(algebra, weight[2])


@flops(linear.weight_gradient)
def _weight_gradient(x: Shape, y: Shape, maps: int, algebra: Algebra, *, out_shape: Shape) -> int:
    return 2 * x[0] * x[1] * y[1] * entries(algebra, maps)


def attention_terms(kind: str, channels: int, scalars: int) -> int:
    """Multiply-adds of a logit, from so many channels of a head."""
    inner = sum(map(abs, attention_reference.inner_signs(kind)))
    return channels * (inner + (DISTANCE if attention_reference.KINDS[kind][2] else 0)) + scalars


def _of_pairs(q_mv: Shape, k_mv: Shape, v_mv: Shape, q_s: Shape, k_s: Shape, v_s: Shape, heads: int, kind: str) -> tuple[int, int, int]:
    """Pairs of query and key over all heads, multiply-adds of a logit, and of adding a value. Pairs that are masked count too."""
    shared = k_mv[2] * heads == q_mv[2] and k_s[2] * heads == q_s[2]
    of_keys = 1 if shared else heads
    values = (16 * v_mv[2] + v_s[2]) // of_keys
    return q_mv[0] * q_mv[1] * k_mv[1] * heads, attention_terms(kind, q_mv[2] // heads, q_s[2] // heads), values


@flops(attention.attention)
def _attention(*arguments: Any, out_shape: Any) -> int:
    pairs, logits, values = _of_pairs(*arguments[:6], *arguments[9:11])
    return 2 * pairs * (logits + values)


@flops(attention.attention_backward)
def _attention_backward(*arguments: Any, out_shape: Any) -> int:
    """Logits again and their gradients in queries and keys; gradients in the weights and in the values."""
    pairs, logits, values = _of_pairs(*arguments[5:11], *arguments[14:16])
    return 2 * pairs * (3 * logits + 2 * values)
