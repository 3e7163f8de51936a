"""Attention between items that carry multivectors and scalars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import ops
from isotypic._words import Algebra
from isotypic.nn.algebra.linear import MultivectorLinear, check_counts, check_pair
from isotypic.nn.algebra.norm import EquiLayerNorm, GradeDropout
from isotypic.ops.algebra._arguments import resolve
from isotypic.ops.algebra.attention import padding


def cleared(mv: Tensor, s: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """mv (..., N, C, 16) and s (..., N, S) with zeros in rows (B, N), B the product of the axes before N."""
    if rows is None:
        return mv, s
    rows = rows.reshape(mv.shape[:-2])
    return mv.masked_fill(rows[..., None, None], 0.0), s.masked_fill(rows[..., None], 0.0)


def items(mv: Tensor) -> Tensor:
    """(..., N, C, 16) -> (B, N, C, 16)."""
    return mv.reshape(math.prod(mv.shape[:-3]), *mv.shape[-3:])


class GATrAttention(nn.Module):
    """Multi-head attention between multivectors: linear maps to queries, keys and values, `ops.distance_attention`, a linear map.

    Args:
        mv_channels, s_channels: of input and output.
        num_heads: H. A head has ratio * channels / H channels, one at least (four scalars, where there are any).
        ratio: hidden channels of all heads to each channel.
        multi_query: whether all heads share keys and values.
        context_mv_channels, context_s_channels: of what keys and values come from, for cross attention; by default those of the input.
        algebra, subgroup, device, dtype: as of `MultivectorLinear`.
        bias: of the maps to queries, keys and values.
        normalize: whether queries, keys and values are normalised, head by head.
        head_scale: a learned factor for each head.
        trivectors: as of `ops.distance_attention`.
        dropout: of the result, by grade.

    Input: mv (..., N, C, 16), s (..., N, S) or None; context, a pair of the same for cross attention; mask and lengths as of
    `ops.distance_attention`. Output: the shapes of mv and s. Padding, which is what lies behind lengths and, by a mask, items that attend
    to nothing and that nothing attends to, may hold anything, NaN too, and comes out as zeros; so may context that nothing attends to.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> GATrAttention(2, 4, num_heads=2)(torch.randn(1, 5, 2, 16), torch.randn(1, 5, 4))[0].shape
    torch.Size([1, 5, 2, 16])
    """

    def __init__(
        self,
        mv_channels: int,
        s_channels: int = 0,
        *,
        num_heads: int = 8,
        ratio: int = 2,
        multi_query: bool = True,
        context_mv_channels: int | None = None,
        context_s_channels: int | None = None,
        algebra: Algebra = "pga",
        subgroup: bool = True,
        bias: bool = True,
        normalize: bool = False,
        head_scale: bool = False,
        trivectors: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts("GATrAttention", 1, mv_channels=mv_channels, num_heads=num_heads, ratio=ratio)
        self.num_heads, self.multi_query, self.algebra, self.trivectors = num_heads, multi_query, algebra, trivectors
        self.head_mv_channels = max(ratio * mv_channels // num_heads, 1)
        self.head_s_channels = max(ratio * s_channels // num_heads, 4) if s_channels else 0
        common: dict[str, Any] = {"algebra": algebra, "subgroup": subgroup, "device": device, "dtype": dtype}
        heads = 1 if multi_query else num_heads
        q_mv, q_s = num_heads * self.head_mv_channels, num_heads * self.head_s_channels
        kv_mv, kv_s = 2 * heads * self.head_mv_channels, 2 * heads * self.head_s_channels
        self._split_mv, self._split_s = (q_mv, kv_mv // 2, kv_mv // 2), (q_s, kv_s // 2, kv_s // 2)
        self.cross = context_mv_channels is not None
        if self.cross:
            check_counts("GATrAttention", 1, context_mv_channels=context_mv_channels)
            context_s = s_channels if context_s_channels is None else context_s_channels
            self.linear_q = MultivectorLinear(mv_channels, q_mv, s_channels, q_s, bias=bias, **common)
            self.linear_kv = MultivectorLinear(context_mv_channels, kv_mv, context_s, kv_s, bias=bias, **common)  # type: ignore[arg-type]
        else:
            self.linear_qkv = MultivectorLinear(mv_channels, q_mv + kv_mv, s_channels, q_s + kv_s, bias=bias, **common)
        self.linear_out = MultivectorLinear(q_mv, mv_channels, q_s, s_channels, initialization="small", **common)
        self.norm = EquiLayerNorm(algebra=algebra) if normalize else None
        place = {"device": device, "dtype": dtype}
        distances = resolve("GATrAttention", algebra).degenerate
        self.log_weight = nn.Parameter(torch.zeros(num_heads, self.head_mv_channels, **place)) if distances else None  # type: ignore[arg-type]
        self.head_scale = nn.Parameter(torch.ones(num_heads, **place)) if head_scale else None  # type: ignore[arg-type]
        self.dropout = GradeDropout(dropout)

    def _normalized(self, mv: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Over the channels of each head."""
        assert self.norm is not None
        mv = self.norm(mv.unflatten(-2, (-1, self.head_mv_channels)))[0].flatten(-3, -2)
        if self.head_s_channels:
            s = F.layer_norm(s.unflatten(-1, (-1, self.head_s_channels)), (self.head_s_channels,)).flatten(-2)
        return mv, s

    def forward(
        self,
        mv: Tensor,
        s: Tensor | None = None,
        context: tuple[Tensor, Tensor | None] | None = None,
        *,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        s = check_pair("GATrAttention", mv, s)
        if mv.dim() < 3:
            raise ValueError(f"GATrAttention: mv must have shape (..., N, C, 16), got {tuple(mv.shape)}")
        if self.cross != (context is not None):
            expected = "given, as context_mv_channels is" if self.cross else "None without context_mv_channels"
            raise ValueError(f"GATrAttention: context must be {expected}")
        if context is not None:
            if not isinstance(context, tuple | list) or len(context) != 2:
                raise TypeError(f"GATrAttention: context must be a pair of multivectors and scalars, got {type(context).__name__}")
            if isinstance(context[0], Tensor) and (context[0].dim() != mv.dim() or context[0].shape[:-3] != mv.shape[:-3]):
                expected = ", ".join(map(str, (*mv.shape[:-3], "N_k", "C", 16)))
                raise ValueError(f"GATrAttention: context must have multivectors of shape ({expected}), got {tuple(context[0].shape)}")
            q_mv, q_s = self.linear_q(mv, s)
            context = context[0], check_pair("GATrAttention", *context)
            unused = padding(items(mv), items(context[0]), mask, lengths, itself=False)
            context = cleared(*context, unused)
            kv_mv, kv_s = self.linear_kv(*context)
            (k_mv, v_mv), (k_s, v_s) = kv_mv.chunk(2, -2), kv_s.split(self._split_s[1:], -1)
        else:
            unused = padding(items(mv), items(mv), mask, lengths, itself=True)
            mv, s = cleared(mv, s, unused)
            qkv_mv, qkv_s = self.linear_qkv(mv, s)
            q_mv, k_mv, v_mv = qkv_mv.split(self._split_mv, -2)
            q_s, k_s, v_s = qkv_s.split(self._split_s, -1)
        pairs = [(q_mv, q_s), (k_mv, k_s), (v_mv, v_s)]
        if self.norm is not None:
            pairs = [self._normalized(*pair) for pair in pairs]
        count = math.prod(mv.shape[:-3])
        flat = [(m.reshape(count, *m.shape[-3:]), t.reshape(count, *t.shape[-2:])) for m, t in pairs]
        h_mv, h_s = ops.distance_attention(
            *(pair[0] for pair in flat),
            *(pair[1] for pair in flat),
            heads=self.num_heads,
            mask=mask,
            lengths=lengths,
            algebra=self.algebra,
            weight=None if self.log_weight is None else self.log_weight.exp(),
            trivectors=self.trivectors,
        )
        if self.head_scale is not None:
            h_mv = (h_mv.unflatten(2, (self.num_heads, -1)) * self.head_scale[:, None, None]).flatten(2, 3)
            h_s = h_s * self.head_scale.repeat_interleave(self.head_s_channels)
        h_mv = h_mv.reshape(*mv.shape[:-2], *h_mv.shape[-2:])
        h_s = h_s.reshape(*mv.shape[:-2], h_s.shape[-1])
        h_mv, h_s = self.linear_out(h_mv, h_s)
        if not self.cross:
            h_mv, h_s = cleared(h_mv, h_s, unused)
        return self.dropout(h_mv, h_s)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, multi_query={self.multi_query}, algebra={self.algebra!r}"
