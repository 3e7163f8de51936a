"""Attention between multivectors in plain torch, with the (N, N) weights in memory: the definition, and what derivatives beyond the first
are taken from."""

from __future__ import annotations

from collections.abc import Callable
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


def tangent(tangents: tuple[Tensor | None, ...], *arguments: Any) -> tuple[Tensor, Tensor]:
    """The derivative in a direction: P (dS - sum P dS) V + P dV with the weights P and the derivative dS of the logits."""
    q_mv, k_mv, v_mv, q_s, k_s, v_s, weight, mask, ranges, heads, kind = arguments
    dq, dk, dv, dq_s, dk_s, dv_s = (torch.zeros_like(t) if d is None else d for t, d in zip(arguments[:6], tangents[:6], strict=True))
    of_keys = key_heads(q_mv, k_mv, q_s, k_s, heads)
    signs = torch.tensor(inner_signs(kind), dtype=q_mv.dtype, device=q_mv.device)

    def products(q: Tensor, k: Tensor, q_s: Tensor, k_s: Tensor) -> Tensor:
        q, k = by_head(q, heads, 1) * signs, by_head(k, of_keys, 1)
        return q.flatten(-2) @ k.flatten(-2).mT + by_head(q_s, heads, 0) @ by_head(k_s, of_keys, 0).mT

    moved = products(dq, k_mv, dq_s, k_s) + products(q_mv, dk, q_s, dk_s)
    if KINDS[kind][2]:
        queries, keys = (by_head(t, heads, 1) for t in (q_mv, dq)), (by_head(t, of_keys, 1) for t in (k_mv, dk))
        (q, moved_q), (k, moved_k) = queries, keys
        moved = moved - _distance_tangent(q, k, moved_q, moved_k, weight, tangents[6])
    moved = moved * features(kind, q_mv.shape[2] // heads, q_s.shape[2] // heads) ** -0.5
    scores, attends = logits(q_mv, k_mv, q_s, k_s, weight, heads, kind), allowed(mask, ranges, k_mv.shape[1])
    if attends is not None:
        scores = scores.masked_fill(~attends, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    if attends is not None:
        weights = weights.masked_fill(~attends, 0.0)
    change = weights * (moved - (weights * moved).sum(-1, keepdim=True))
    mv = change @ by_head(v_mv, of_keys, 1).flatten(-2) + weights @ by_head(dv, of_keys, 1).flatten(-2)
    s = change @ by_head(v_s, of_keys, 0) + weights @ by_head(dv_s, of_keys, 0)
    mv = mv.unflatten(-1, (-1, 16)) if mv.shape[-1] else mv.new_empty(*mv.shape[:-1], 0, 16)
    return mv.movedim(1, 2).flatten(2, 3), s.movedim(1, 2).flatten(2, 3)


def second(cotangents: tuple[Tensor, ...], g_mv: Tensor, g_s: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The gradients of <cotangents, backward(g_mv, g_s, ...)> in g_mv, g_s and what `backward` has gradients of."""
    tensors, _ = _split(arguments)
    rest = arguments[7:]

    def first(g_mv: Tensor, g_s: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return backward(g_mv, g_s, *tensors, *((None,) if len(tensors) == 6 else ()), *rest)

    return torch.func.vjp(first, g_mv, g_s, *tensors)[1](cotangents)
