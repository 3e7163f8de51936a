"""A plain transformer: what the geometric one is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from isotypic.nn.algebra.linear import check_counts
from isotypic.ops.algebra.attention import key_ranges
from isotypic.ops.algebra.attention_reference import allowed


class TransformerBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        mlp_ratio: int,
        multi_query: bool,
        dropout: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.num_heads, self.heads_of_keys = num_heads, 1 if multi_query else num_heads
        width = channels // num_heads
        place = {"device": device, "dtype": dtype}
        self.norm_attention = nn.LayerNorm(channels, **place)  # type: ignore[arg-type]
        self.qkv = nn.Linear(channels, (num_heads + 2 * self.heads_of_keys) * width, **place)  # type: ignore[arg-type]
        self.out = nn.Linear(channels, channels, **place)  # type: ignore[arg-type]
        self.norm_mlp = nn.LayerNorm(channels, **place)  # type: ignore[arg-type]
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels, **place),  # type: ignore[arg-type]
            nn.GELU(),
            nn.Linear(mlp_ratio * channels, channels, **place),  # type: ignore[arg-type]
        )
        self.dropout = nn.Dropout(dropout)

    def attention(self, x: Tensor, attends: Tensor | None) -> Tensor:
        heads = self.num_heads + 2 * self.heads_of_keys
        q, k, v = self.qkv(x).unflatten(-1, (heads, -1)).transpose(1, 2).split([self.num_heads] + 2 * [self.heads_of_keys], 1)
        if self.heads_of_keys != self.num_heads:
            k, v = k.expand_as(q), v.expand_as(q)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=attends)
        if attends is not None:  # zeros where nothing is attended to
            y = y.masked_fill(~attends.any(-1, keepdim=True), 0.0)
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, attends: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), attends))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class Transformer(nn.Module):
    """A transformer with normalisation before its layers and torch's attention, without any symmetry but that of permutations.

    Args:
        in_channels, out_channels, hidden_channels: of the items; num_heads divides hidden_channels.
        num_blocks: of the transformer. num_heads: of its attention.
        mlp_ratio: hidden channels of the MLP to each channel.
        multi_query: whether all heads share keys and values.
        dropout: of the two branches of a block.
        checkpoint: keep of each block nothing but its input for the gradient.
        device, dtype: of the parameters.

    Input: x (B, N, in_channels); mask (B, N, N) and lengths as of `ops.distance_attention`. Output: (B, N, out_channels). Items behind
    `lengths` do not matter and come out as zeros.

    A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

    >>> Transformer(3, 2, 16, num_blocks=2, num_heads=4)(torch.randn(2, 5, 3)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        num_blocks: int,
        num_heads: int = 8,
        *,
        mlp_ratio: int = 4,
        multi_query: bool = False,
        dropout: float = 0.0,
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        counts = {"in_channels": in_channels, "out_channels": out_channels, "hidden_channels": hidden_channels}
        check_counts("Transformer", 1, **counts, num_heads=num_heads, mlp_ratio=mlp_ratio)
        check_counts("Transformer", 0, num_blocks=num_blocks)
        if hidden_channels % num_heads:
            raise ValueError(f"Transformer: hidden_channels={hidden_channels} must be divisible by num_heads={num_heads}")
        place = {"device": device, "dtype": dtype}
        self.in_channels, self.checkpoint = in_channels, checkpoint
        self.linear_in = nn.Linear(in_channels, hidden_channels, **place)  # type: ignore[arg-type]
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden_channels, num_heads, mlp_ratio, multi_query, dropout, device, dtype) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_channels, **place)  # type: ignore[arg-type]
        self.linear_out = nn.Linear(hidden_channels, out_channels, **place)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"Transformer: x must be a torch.Tensor, got {type(x).__name__}")
        if x.dim() != 3 or x.shape[2] != self.in_channels:
            raise ValueError(f"Transformer: x must have shape (B, N, {self.in_channels}), got {tuple(x.shape)}")
        ranges = key_ranges(lengths, x, x)
        attends = allowed(mask, ranges, x.shape[1])
        padding = None
        if ranges is not None and lengths is not None and lengths.shape == (x.shape[0],):
            padding = (torch.arange(x.shape[1], device=x.device) >= ranges[:, :1, 1]).unsqueeze(-1)
            x = x.masked_fill(padding, 0.0)
        x = self.linear_in(x)
        for block in self.blocks:
            keep = not self.checkpoint or not torch.is_grad_enabled()
            x = block(x, attends) if keep else recomputed(block, x, attends, use_reentrant=False)
        x = self.linear_out(self.norm(x))
        return x if padding is None else x.masked_fill(padding, 0.0)

    if TYPE_CHECKING:
        __call__ = forward
