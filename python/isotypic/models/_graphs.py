"""What networks on padded graphs and clouds of points share: input checks, masks, and the parts of perceptrons and transformers."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic.nn._arguments import check_tensor, same_dtype

Output = Literal["node", "graph"]


def check_output(owner: str, output: str) -> None:
    if output not in ("node", "graph"):
        raise ValueError(f"{owner}: output must be 'node' or 'graph', got {output!r}")


def check_nodes(owner: str, name: str, value: Tensor, shape: tuple[int | None, ...], named: str, parameter: Tensor) -> None:
    """Raises unless a tensor has the shape (None: any extent), which `named` says in words, and the dtype of a parameter."""
    check_tensor(owner, name, value, floating=True)
    if value.dim() != len(shape) or any(want is not None and got != want for got, want in zip(value.shape, shape, strict=True)):
        raise ValueError(f"{owner}: {name} must have shape {named}, got {tuple(value.shape)}")
    same_dtype(owner, name, value, parameter)


def node_mask(owner: str, lengths: Tensor | None, like: Tensor) -> Tensor:
    """(B, n) bool: which entries of a padded batch like (B, n, ...) are nodes; lengths (B) integers from 0 to n, None for all of them."""
    batch, nodes = like.shape[:2]
    if lengths is None:
        return like.new_ones(batch, nodes, dtype=torch.bool)
    check_tensor(owner, "lengths", lengths)
    if lengths.dtype not in (torch.int32, torch.int64) or lengths.shape != (batch,):
        raise ValueError(f"{owner}: lengths must be integers of shape (B={batch},), got {lengths.dtype} {tuple(lengths.shape)}")
    if not torch.compiler.is_compiling() and batch and (int(lengths.min()) < 0 or int(lengths.max()) > nodes):
        raise ValueError(f"{owner}: lengths must be from 0 to n={nodes}, got {int(lengths.min())} to {int(lengths.max())}")
    return torch.arange(nodes, device=like.device) < lengths.to(like.device)[:, None]


def cleared(values: Tensor, mask: Tensor) -> Tensor:
    """The values (B, n, ...) with 0 in place of whatever padding holds, NaN included."""
    inside = mask.view(*mask.shape, *(1,) * (values.dim() - mask.dim()))
    return torch.where(inside, values, torch.zeros((), dtype=values.dtype, device=values.device))


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, channels / heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])
        return self.proj(y.transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm x), then x + MLP(norm x); tensors are named and laid out as in the common checkpoints of vision transformers."""

    def __init__(self, channels: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = _Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = _MLP(channels, ratio * channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, tokens, C); mask (B, tokens) bool, False for tokens that none attends to."""
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))
