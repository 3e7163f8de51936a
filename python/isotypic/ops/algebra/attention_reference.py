"""Attention between multivectors in plain torch, with the (N, N) weights in memory: the definition, and what derivatives beyond the first
are taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isotypic.ops.algebra.signature import algebra as signature

EPSILON = 1e-3
"""Of the normaliser w / (w^2 + EPSILON) of a trivector with homogeneous part w."""

KINDS = {"pga": ("pga", True, True), "pga published": ("pga", False, True), "sta": ("sta", True, False)}
"""Algebra, whether the component e123 is part of the inner product, whether there is a distance."""


def inner_signs(kind: str) -> list[int]:
    """(16,): what each component's product counts in the logits."""
    algebra, trivectors, _ = KINDS[kind]
    signs = [int(sign) for sign in signature(algebra).inner]
    if not trivectors:
        signs[14] = 0
    return signs


def features(kind: str, channels: int, scalars: int) -> int:
    """The number of features of a query, by whose root the logits are divided: 13, 12 or 16 for each channel, 1 for each scalar."""
    count = sum(map(abs, inner_signs(kind))) + (5 if KINDS[kind][2] else 0)
    return count * channels + scalars


def by_head(x: Tensor, heads: int, last: int) -> Tensor:
    """(B, N, H C, *) -> (B, H, N, C, *), with `last` axes after the channels; keys and values shared by all heads have H = 1."""
    return x.unflatten(2, (heads, -1)).movedim(2, 1) if x.shape[2] else x.unflatten(2, (heads, 0)).movedim(2, 1)


def key_heads(q_mv: Tensor, k_mv: Tensor, q_s: Tensor, k_s: Tensor, heads: int) -> int:
    """The number of heads that keys have, 1 or all."""
    shared = k_mv.shape[2] * heads == q_mv.shape[2] and k_s.shape[2] * heads == q_s.shape[2]
    return 1 if shared else heads


def logits(q_mv: Tensor, k_mv: Tensor, q_s: Tensor, k_s: Tensor, weight: Tensor | None, heads: int, kind: str) -> Tensor:
    """(B, H, N_q, N_k)."""
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    q, k = by_head(q_mv, heads, 1), by_head(k_mv, of_keys, 1)
    signs = torch.tensor(inner_signs(kind), dtype=q.dtype, device=q.device)
    total = torch.einsum("bhqci,bgkci->bhqk", q * signs, k) if of_keys == 1 else torch.einsum("bhqci,bhkci->bhqk", q * signs, k)
    if KINDS[kind][2]:
        # -(n_q n_k)^2 |x_q w_k - x_k w_q|^2 with n = w / (w^2 + EPSILON): what cancels cancels before it is scaled.
        x_q, w_q = q[:, :, :, None, :, 11:14], q[:, :, :, None, :, 14]
        x_k, w_k = k[:, :, None, :, :, 11:14], k[:, :, None, :, :, 14]
        gap = (x_q * w_k[..., None] - x_k * w_q[..., None]).square().sum(-1)
        scale = (w_q / (w_q.square() + EPSILON) * (w_k / (w_k.square() + EPSILON))).square()
        near = gap * scale
        total = total - (near.sum(-1) if weight is None else torch.einsum("bhqkc,hc->bhqk", near, weight))
    s_q, s_k = by_head(q_s, heads, 0), by_head(k_s, of_keys, 0)
    total = total + s_q @ s_k.mT
    return total * features(kind, q.shape[3], s_q.shape[3]) ** -0.5


def allowed(mask: Tensor | None, ranges: Tensor | None, keys: int) -> Tensor | None:
    """(B, 1, N_q, N_k): which keys a query attends to."""
    result = mask
    if ranges is not None:
        index = torch.arange(keys, device=ranges.device, dtype=ranges.dtype)
        inside = (index >= ranges[..., :1]) & (index < ranges[..., 1:])
        result = inside if result is None else result & inside
    return None if result is None else result.unsqueeze(1)


def without_idle(*arguments: Any) -> tuple[Any, ...]:
    """The arguments with zeros for queries that attend to nothing and keys that nothing attends to: NaN times a weight of zero is NaN."""
    *tensors, weight, mask, ranges, heads, kind = arguments
    attends = allowed(mask, ranges, tensors[1].shape[1])
    if attends is None:
        return arguments
    idle = [~attends[:, 0].any(axis) for axis in (-1, -2)]
    fill = [t.masked_fill(idle[i % 3 > 0].reshape(t.shape[0], t.shape[1], *(1,) * (t.dim() - 2)), 0.0) for i, t in enumerate(tensors)]
    return (*fill, weight, mask, ranges, heads, kind)


def attend(
    q_mv: Tensor,
    k_mv: Tensor,
    v_mv: Tensor,
    q_s: Tensor,
    k_s: Tensor,
    v_s: Tensor,
    weight: Tensor | None,
    *,
    mask: Tensor | None,
    ranges: Tensor | None,
    heads: int,
    kind: str,
) -> tuple[Tensor, Tensor]:
    """The values, averaged with the softmax of the logits; zeros for a query that attends to nothing."""
    scores = logits(q_mv, k_mv, q_s, k_s, weight, heads, kind)
    attends = allowed(mask, ranges, k_mv.shape[1])
    if attends is None:
        weights = scores.softmax(-1)
    else:
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~attends, lowest).softmax(-1).masked_fill(~attends, 0.0)
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    v, s = by_head(v_mv, of_keys, 1), by_head(v_s, of_keys, 0)
    rows = weights if of_keys == heads else weights.flatten(1, 2).unsqueeze(1)
    mv = (rows @ v.flatten(-2)).reshape(*weights.shape[:3], *v.shape[3:])
    out = (rows @ s).reshape(*weights.shape[:3], s.shape[3])
    return mv.movedim(1, 2).flatten(2, 3), out.movedim(1, 2).flatten(2, 3)


def log_sum_exp(scores: Tensor, attends: Tensor | None) -> Tensor:
    """(B, H, N_q); infinite for a query that attends to nothing, so that its weights exp(logit - .) are zero."""
    if attends is not None:
        scores = scores.masked_fill(~attends, -torch.inf)
    if not scores.shape[-1]:
        return scores.new_full(scores.shape[:-1], torch.inf)
    result = scores.logsumexp(-1)
    return result.masked_fill(result == -torch.inf, torch.inf)


def _split(arguments: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]:
    """The tensors that have derivatives, and the attention as a function of them."""
    *tensors, weight, mask, ranges, heads, kind = arguments
    function: Callable[..., tuple[Tensor, ...]] = partial(attend, mask=mask, ranges=ranges, heads=heads, kind=kind)
    if weight is None:
        return tuple(tensors), lambda *t: function(*t, None)
    return (*tensors, weight), function


def backward(g_mv: Tensor, g_s: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of the six tensors and of the weight, if any."""
    tensors, function = _split(arguments)
    return torch.func.vjp(function, *tensors)[1]((g_mv, g_s))


def _distance_tangent(q: Tensor, k: Tensor, dq: Tensor, dk: Tensor, weight: Tensor | None, dweight: Tensor | None) -> Tensor:
    """(B, H, N_q, N_k): the derivative of sum_c weight_c (n_q n_k)^2 |r_c|^2 with r = x_q w_k - x_k w_q; all (B, H, N, C, 16)."""

    def parts(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        return x[..., 11:14].unsqueeze(axis), x[..., 14].unsqueeze(axis)

    (x_q, w_q), (dx_q, dw_q), (x_k, w_k), (dx_k, dw_k) = parts(q, 3), parts(dq, 3), parts(k, 2), parts(dk, 2)
    r = x_q * w_k[..., None] - x_k * w_q[..., None]
    dr = dx_q * w_k[..., None] + x_q * dw_k[..., None] - dx_k * w_q[..., None] - x_k * dw_q[..., None]

    def squares(w: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        n = w / (w.square() + EPSILON)
        return n.square(), 2 * n * (EPSILON - w.square()) / (w.square() + EPSILON).square() * dw

    (n_q, dn_q), (n_k, dn_k) = squares(w_q, dw_q), squares(w_k, dw_k)
    gap = r.square().sum(-1)
    moved = (dn_q * n_k + n_q * dn_k) * gap + 2 * n_q * n_k * (r * dr).sum(-1)
    if weight is None:
        return moved.sum(-1)
    total = torch.einsum("bhqkc,hc->bhqk", moved, weight)
    return total if dweight is None else total + torch.einsum("bhqkc,hc->bhqk", n_q * n_k * gap, dweight)


Pair = tuple[Tensor, Tensor]
"""A value and its derivative in a direction."""


def _product(function: Callable[[Tensor, Tensor], Tensor], a: Pair, b: Pair) -> Pair:
    """A bilinear function of two pairs."""
    return function(a[0], b[0]), function(a[1], b[0]) + function(a[0], b[1])


def _each(function: Callable[[Tensor], Tensor], a: Pair) -> Pair:
    """A linear function of a pair."""
    return function(a[0]), function(a[1])


def _pairs(tensors: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> list[Pair]:
    return [(t, torch.zeros_like(t) if d is None else d) for t, d in zip(tensors, tangents, strict=True)]


def _weights(tangents: Sequence[Tensor | None], *arguments: Any) -> Pair:
    """The softmax P of the logits S and its derivative P (dS - sum P dS)."""
    q_mv, k_mv, _, q_s, k_s, _, weight, mask, ranges, heads, kind = arguments
    (_, dq), (_, dk), _, (_, dq_s), (_, dk_s), _ = _pairs(arguments[:6], tangents[:6])
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    signs = torch.tensor(inner_signs(kind), dtype=q_mv.dtype, device=q_mv.device)

    def products(q: Tensor, k: Tensor, q_s: Tensor, k_s: Tensor) -> Tensor:
        q, k = by_head(q, heads, 1) * signs, by_head(k, of_keys, 1)
        return q.flatten(-2) @ k.flatten(-2).mT + by_head(q_s, heads, 0) @ by_head(k_s, of_keys, 0).mT

    moved = products(dq, k_mv, dq_s, k_s) + products(q_mv, dk, q_s, dk_s)
    if KINDS[kind][2]:
        queries, keys = ((by_head(x, of, 1), by_head(dx, of, 1)) for x, dx, of in ((q_mv, dq, heads), (k_mv, dk, of_keys)))
        moved = moved - _distance_tangent(queries[0], keys[0], queries[1], keys[1], weight, tangents[6])
    moved = moved * features(kind, q_mv.shape[2] // heads, q_s.shape[2] // heads) ** -0.5
    scores, attends = logits(q_mv, k_mv, q_s, k_s, weight, heads, kind), allowed(mask, ranges, k_mv.shape[1])
    if attends is not None:
        scores = scores.masked_fill(~attends, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    if attends is not None:
        weights = weights.masked_fill(~attends, 0.0)
    return weights, weights * (moved - (weights * moved).sum(-1, keepdim=True))


def tangent(tangents: Sequence[Tensor | None], *arguments: Any) -> tuple[Tensor, Tensor]:
    """The derivative in a direction: P' V + P V' with the weights P."""
    q_mv, k_mv, v_mv, q_s, k_s, v_s, *_, heads, _ = arguments
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    weights = _weights(tangents, *arguments)
    of_mv, of_s = _pairs((v_mv, v_s), (tangents[2], tangents[5]))
    mv = _product(torch.matmul, weights, _each(lambda t: by_head(t, of_keys, 1).flatten(-2), of_mv))[1]
    s = _product(torch.matmul, weights, _each(lambda t: by_head(t, of_keys, 0), of_s))[1]
    mv = mv.unflatten(-1, (-1, 16)) if mv.shape[-1] else mv.new_empty(*mv.shape[:-1], 0, 16)
    return mv.movedim(1, 2).flatten(2, 3), s.movedim(1, 2).flatten(2, 3)


def backward_tangent(tangents: Sequence[Tensor | None], g_mv: Tensor, g_s: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The derivative of `backward` in a direction of g_mv, g_s, the six tensors and the weight, always with that of the weight's gradient.

    Written out, because a transform cannot be entered while forward mode is inside another one.
    """
    q_mv, k_mv, v_mv, q_s, k_s, _, weight, _, _, heads, kind = arguments
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    channels, scalars, values = q_mv.shape[2] // heads, q_s.shape[2] // heads, v_mv.shape[2] // of_keys
    signs = torch.tensor(inner_signs(kind), dtype=q_mv.dtype, device=q_mv.device)
    weights = _weights(tangents[2:], *arguments)
    given = _pairs((g_mv, g_s, *arguments[:6]), tangents[:8])
    of_all = (heads, heads, heads, of_keys, of_keys, heads, of_keys, of_keys)
    g, g_scalars, q, k, v, qs, ks, vs = (
        _each(lambda t, of=of, last=last: by_head(t, of, last), pair)  # type: ignore[misc]
        for pair, of, last in zip(given, of_all, (1, 0, 1, 1, 1, 0, 0, 0), strict=True)
    )

    def rows(mv: Pair, s: Pair) -> Pair:
        return torch.cat([mv[0].flatten(-2), s[0]], -1), torch.cat([mv[1].flatten(-2), s[1]], -1)

    def keys(x: Tensor) -> Tensor:
        """The sum over heads where they share keys."""
        return x.sum(1, keepdim=True) if of_keys < heads else x

    def items(x: Tensor) -> Tensor:
        """(B, H, N, C, *) -> (B, N, H C, *)."""
        return x.movedim(1, 2).flatten(2, 3)

    g_rows = rows(g, g_scalars)
    along = _product(lambda a, b: a @ b.mT, g_rows, rows(v, vs))
    mean = _each(lambda t: t.sum(-1, keepdim=True), _product(torch.mul, weights, along))
    slope = _product(torch.mul, weights, (along[0] - mean[0], along[1] - mean[1]))
    slope = _each(lambda t: t * features(kind, channels, scalars) ** -0.5, slope)
    of_values = keys(_product(lambda a, b: a.mT @ b, weights, g_rows)[1])
    of_q = _product(lambda a, b: a @ (b * signs).flatten(-2), slope, k)[1].unflatten(-1, (channels, 16))
    of_k = _product(lambda a, b: a.mT @ (b * signs).flatten(-2), slope, q)[1].unflatten(-1, (channels, 16))
    of_weight = q_mv.new_zeros(heads, channels)
    if KINDS[kind][2]:
        near_q, near_k, of_weight = _distance_gradient_tangent(q, k, slope, weight, tangents[8] if weight is not None else None)
        of_q, of_k = of_q + near_q, of_k + near_k
    return (
        items(of_q),
        items(keys(of_k)),
        items(of_values[..., : 16 * values].unflatten(-1, (values, 16))),
        items(_product(torch.matmul, slope, ks)[1]),
        items(keys(_product(lambda a, b: a.mT @ b, slope, qs)[1])),
        items(of_values[..., 16 * values :]),
        of_weight,
    )


def _distance_gradient_tangent(q: Pair, k: Pair, slope: Pair, weight: Tensor | None, dweight: Tensor | None) -> tuple[Tensor, ...]:
    """The derivatives of the gradients of -sum_qk slope sum_c weight_c m_q m_k |r|^2 in q, in k for each head, and in the weight, where
    m = n^2 and r = x_q w_k - x_k w_q."""

    def vector(w: Pair) -> Pair:
        return _each(lambda t: t.unsqueeze(-1), w)

    def squares(w: Pair) -> tuple[Pair, Pair]:
        """m = w^2 / d^2 with d = w^2 + EPSILON and its derivative in w."""
        at, d = w[0], w[0].square() + EPSILON
        first = 2 * at * (EPSILON - at.square()) / d**3
        second = 2 * (EPSILON - 3 * at.square()) / d**3 - 12 * at.square() * (EPSILON - at.square()) / d**4
        return ((at / d).square(), first * w[1]), (first, second * w[1])

    (x_q, w_q), (x_k, w_k) = (
        (_each(lambda t, axis=axis: t[..., 11:14].unsqueeze(axis), x), _each(lambda t, axis=axis: t[..., 14].unsqueeze(axis), x))  # type: ignore[misc]
        for x, axis in ((q, 3), (k, 2))
    )
    (m_q, slope_q), (m_k, slope_k) = squares(w_q), squares(w_k)
    left, right = _product(torch.mul, x_q, vector(w_k)), _product(torch.mul, x_k, vector(w_q))
    r = left[0] - right[0], left[1] - right[1]
    gap = _each(lambda t: t.sum(-1), _product(torch.mul, r, r))
    plain_slope = _each(lambda t: -t.unsqueeze(-1), slope)
    s = plain_slope
    if weight is not None:
        over = weight[:, None, None], torch.zeros_like(weight)[:, None, None] if dweight is None else dweight[:, None, None]
        s = _product(torch.mul, plain_slope, over)
    both = _product(torch.mul, m_q, m_k)
    pull = _product(torch.mul, vector(_each(lambda t: 2 * t, _product(torch.mul, s, both))), r)
    steep = _product(torch.mul, s, gap)

    def gradient(x: Tensor, w: Tensor, axis: int) -> Tensor:
        return torch.nn.functional.pad(torch.cat([x, w.unsqueeze(-1)], -1).sum(axis), (11, 1))

    def homogeneous(x: Pair, of: Pair, m: Pair, sign: int) -> Tensor:
        own = _product(torch.mul, of, _product(torch.mul, steep, m))[1]
        return sign * _product(torch.mul, pull, x)[1].sum(-1) + own

    of_q = gradient(_product(torch.mul, pull, vector(w_k))[1], homogeneous(x_k, slope_q, m_k, -1), 3)
    of_k = gradient(-_product(torch.mul, pull, vector(w_q))[1], homogeneous(x_q, slope_k, m_q, 1), 2)
    return of_q, of_k, _product(torch.mul, plain_slope, _product(torch.mul, both, gap))[1].sum((0, 2, 3))


def second(cotangents: tuple[Tensor, ...], g_mv: Tensor, g_s: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of <cotangents, backward(g_mv, g_s, ...)> in g_mv, g_s and what `backward` has gradients of."""
    tensors, _ = _split(arguments)
    rest = arguments[7:]

    def first(g_mv: Tensor, g_s: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return backward(g_mv, g_s, *tensors, *((None,) if len(tensors) == 6 else ()), *rest)

    return torch.func.vjp(first, g_mv, g_s, *tensors)[1](cotangents)
