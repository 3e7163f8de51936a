"""Attention whose scores are an MLP of each pair: public function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops._checks import check_tensors
from isotypic.ops.processes import reference

MODES, REDUCTIONS, DIFFERENCES = ("mix", "bias"), ("softmax", "sum"), ("vector", "distance2", "none")


def pair_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x_q: Tensor | None,
    x_k: Tensor | None,
    mlp: Sequence[tuple[Tensor, Tensor]],
    *,
    mode: str = "mix",
    reduce: str = "softmax",
    difference: str = "vector",
    mask: Tensor | None = None,
) -> Tensor:
    """Attention that mixes heads and sees differences of positions, with O(N) memory.

        s_ij = q_i . k_j / sqrt(D)  for each head          a_ij = MLP([x_i - x_j, s_ij])  ("mix")  or  s_ij + MLP(x_i - x_j)  ("bias")
        out_i = sum_j softmax_j(a_ij) v_j                  or sum_j a_ij v_j  ("sum")

    Args:
        q, k, v: (B, H, N_q, D), (B, H, N_k, D), (B, H, N_k, D).
        x_q, x_k: (B, N_q, d), (B, N_k, d), positions; None with difference="none".
        mlp: three pairs (weight, bias) as of `nn.Linear`, with ReLU between them: the input is [difference, the scores of all heads] in the
            mode "mix" and the difference in "bias", the output one number a head.
        mode: "mix" or "bias".
        reduce: "softmax" or "sum".
        difference: "vector" (x_i - x_j), "distance2" (|x_i - x_j|^2) or "none".
        mask: boolean, (B, N_k) or (B, N_q, N_k); a query attends where it is True. Without keys the result is zero.

    Returns: (B, H, N_q, D).
    """
    arguments = check_pairs(q, k, v, x_q, x_k, mlp, mode, reduce, difference, mask)
    return reference.pair_attention(q, k, v, *arguments, mlp, mode, reduce, difference, expand_mask(mask))


def expand_mask(mask: Tensor | None) -> Tensor | None:
    return mask[:, None] if mask is not None and mask.dim() == 2 else mask


def check_pairs(
    q: Any, k: Any, v: Any, x_q: Any, x_k: Any, mlp: Any, mode: Any, reduce: Any, difference: Any, mask: Any
) -> tuple[Tensor | None, Tensor | None]:
    """The positions that the call needs; raises for what does not fit."""
    for name, value, known in (("mode", mode, MODES), ("reduce", reduce, REDUCTIONS), ("difference", difference, DIFFERENCES)):
        if value not in known:
            raise ValueError(f"pair_attention: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    if mode == "bias" and difference == "none":
        raise ValueError("pair_attention: difference must be 'vector' or 'distance2' in the mode 'bias', whose MLP sees nothing else")
    tensors = {"q": q, "k": k, "v": v}
    if difference != "none":
        tensors |= {"x_q": x_q, "x_k": x_k}
    if not isinstance(mlp, (tuple, list)) or len(mlp) != 3 or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in mlp):
        raise TypeError(
            f"pair_attention: mlp must be three pairs of weight and bias, got {mlp if isinstance(mlp, str) else type(mlp).__name__}"
        )
    for i, (weight, bias) in enumerate(mlp):
        tensors |= {f"mlp[{i}].weight": weight, f"mlp[{i}].bias": bias}
    check_tensors("pair_attention", tensors)
    if q.dim() != 4:
        raise ValueError(f"pair_attention: q must have shape (B, H, N_q, D), got {tuple(q.shape)}")
    batch, heads, queries, width = q.shape
    if k.dim() != 4 or (k.shape[0], k.shape[1], k.shape[3]) != (batch, heads, width):
        raise ValueError(f"pair_attention: k must have shape (B={batch}, H={heads}, N_k, D={width}), got {tuple(k.shape)}")
    if v.shape != k.shape:
        raise ValueError(f"pair_attention: v must have the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    inputs = heads if mode == "mix" else 0
    if difference != "none":
        for name, x, count in (("x_q", x_q, queries), ("x_k", x_k, k.shape[2])):
            if x.dim() != 3 or x.shape[:2] != (batch, count) or x.shape[2] != x_q.shape[-1]:
                raise ValueError(f"pair_attention: {name} must have shape (B={batch}, {count}, d={x_q.shape[-1]}), got {tuple(x.shape)}")
        inputs += x_q.shape[2] if difference == "vector" else 1
    (w1, b1), (w2, b2), (w3, b3) = mlp
    hidden = (w1.shape[0] if w1.dim() else 0, w2.shape[0] if w2.dim() else 0)
    expected = (("mlp[0]", w1, b1, (hidden[0], inputs)), ("mlp[1]", w2, b2, hidden[::-1]), ("mlp[2]", w3, b3, (heads, hidden[1])))
    for name, weight, bias, shape in expected:
        if tuple(weight.shape) != shape:
            raise ValueError(f"pair_attention: {name}.weight must have shape {shape}, got {tuple(weight.shape)}")
        if tuple(bias.shape) != shape[:1]:
            raise ValueError(f"pair_attention: {name}.bias must have shape {shape[:1]}, got {tuple(bias.shape)}")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"pair_attention: mask must be a boolean tensor, got {got}")
        if tuple(mask.shape) not in ((batch, k.shape[2]), (batch, queries, k.shape[2])):
            shapes = f"(B={batch}, N_k={k.shape[2]}) or (B={batch}, N_q={queries}, N_k={k.shape[2]})"
            raise ValueError(f"pair_attention: mask must have shape {shapes}, got {tuple(mask.shape)}")
        if mask.device != q.device:
            raise ValueError(f"pair_attention: mask must be on the device of q, {q.device}, got {mask.device}")
    return (None, None) if difference == "none" else (x_q, x_k)
