"""The operators of neural processes in plain torch, as close to their formulas as it gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic._words import Difference, PairMode, PairReduction

Mlp = Sequence[tuple[Tensor, Tensor]]


def axis_weights(x: Tensor, grid: Sequence[Tensor], lengthscale: Tensor, powers: Sequence[int] | None = None) -> list[Tensor]:
    """(B, N, n_k) for each axis k: r^p exp(-r^2 / 2) with r = (g_k - x_k) / lengthscale_k."""
    weights = []
    for axis, nodes in enumerate(grid):
        r = (nodes.to(x) - x[..., axis, None]) / lengthscale[axis]
        weight = (-0.5 * r.square()).exp()
        weights.append(weight * r ** powers[axis] if powers and powers[axis] else weight)
    return weights


_ENCODE = {1: "bnc,bni->bci", 2: "bnc,bni,bnj->bcij", 3: "bnc,bni,bnj,bnk->bcijk"}
_DECODE = {1: "bci,bni->bnc", 2: "bcij,bnj,bni->bnc", 3: "bcijk,bnk,bnj,bni->bnc"}


def set_conv(y: Tensor, x: Tensor, lengthscale: Tensor, grid: Sequence[Tensor], powers: Sequence[int] | None = None) -> Tensor:
    """(B, C, *shape): sum_n y_nc prod_k r_k^p_k exp(-r_k^2 / 2)."""
    return torch.einsum(_ENCODE[len(grid)], y, *axis_weights(x, grid, lengthscale, powers))


def set_conv_decode(values: Tensor, x: Tensor, lengthscale: Tensor, grid: Sequence[Tensor], powers: Sequence[int] | None = None) -> Tensor:
    """(B, N, C): the adjoint of `set_conv` in y."""
    weights = axis_weights(x, grid, lengthscale, powers)
    return torch.einsum(_DECODE[len(grid)], values, *reversed(weights))


def pair_mlp(pairs: Tensor, mlp: Mlp) -> Tensor:
    (w1, b1), (w2, b2), (w3, b3) = mlp
    return F.linear(F.relu(F.linear(F.relu(F.linear(pairs, w1, b1)), w2, b2)), w3, b3)


def pair_scores(q: Tensor, k: Tensor, x_q: Tensor | None, x_k: Tensor | None, mlp: Mlp, mode: PairMode, difference: Difference) -> Tensor:
    """(B, H, N_q, N_k): a_ij, of every pair."""
    scores = q @ k.mT / math.sqrt(max(q.shape[-1], 1))
    inputs = []
    if difference != "none":
        assert x_q is not None and x_k is not None
        vector = x_q[:, :, None] - x_k[:, None]
        inputs.append(vector if difference == "vector" else vector.square().sum(-1, keepdim=True))
    if mode == "mix":
        inputs.append(scores.permute(0, 2, 3, 1))
    mixed = pair_mlp(torch.cat(inputs, -1), mlp).permute(0, 3, 1, 2)
    return mixed if mode == "mix" else scores + mixed


def pair_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x_q: Tensor | None,
    x_k: Tensor | None,
    mlp: Mlp,
    mode: PairMode = "mix",
    reduce: PairReduction = "softmax",
    difference: Difference = "vector",
    mask: Tensor | None = None,
) -> Tensor:
    """(B, H, N_q, D): sum_j of softmax_j(a_ij) v_j or of a_ij v_j, over the pairs that the mask (B, 1 or N_q, N_k) has True for."""
    a = pair_scores(q, k, x_q, x_k, mlp, mode, difference)
    if reduce == "sum":
        return (a if mask is None else a.masked_fill(~mask[:, None], 0)) @ v
    if not k.shape[2]:
        return (a * 0) @ v
    return attention_weights(a, mask) @ v


def attention_weights(a: Tensor, mask: Tensor | None) -> Tensor:
    """softmax over the keys that the mask keeps; zero in a row without keys, with a gradient of zero."""
    if mask is None:
        return a.softmax(-1)
    empty = ~mask.any(-1, keepdim=True)[:, None]
    return a.masked_fill(~(mask[:, None] | empty), -torch.inf).softmax(-1).masked_fill(empty, 0)
