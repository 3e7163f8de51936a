"""Translation-equivariant attention and the blocks that are made of it."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from isotypic._symbolic_trace import leaf
from isotypic._words import Difference, PairMode, PairReduction
from isotypic.ops.processes.pair_attention import check_settings, pair_attention


def pointwise(*sizes: int) -> nn.Sequential:
    """An MLP on the last axis with GELU between its layers."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.GELU(), nn.Linear(before, after)] if layers else [nn.Linear(before, after)]
    return nn.Sequential(*layers)


@leaf
class PairAttention(nn.Module):
    """Multi-head attention from queries at x_q to keys at x_k through `isotypic.ops.pair_attention`.

    Args:
        channels: of queries, keys and results.
        heads: divides `channels`.
        dim_x: number of coordinates.
        width: of the MLP on pairs.
        mode, reduce, difference: as for `isotypic.ops.pair_attention`.

    Input: z_q (B, N_q, channels), z_k (B, N_k, channels), x_q (B, N_q, dim_x), x_k (B, N_k, dim_x), mask. Output: (B, N_q, channels)
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        dim_x: int,
        width: int = 128,
        mode: PairMode = "mix",
        reduce: PairReduction = "softmax",
        difference: Difference = "vector",
    ) -> None:
        super().__init__()
        check_settings("PairAttention", mode, reduce, difference)
        self.heads, self.mode, self.reduce, self.difference = heads, mode, reduce, difference
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        inputs = {"vector": dim_x, "distance2": 1, "none": 0}[difference] + (heads if mode == "mix" else 0)
        self.mlp = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, heads))

    def forward(self, z_q: Tensor, z_k: Tensor, x_q: Tensor | None, x_k: Tensor | None, mask: Tensor | None = None) -> Tensor:
        return self.out(self.attend(z_q, z_k, x_q, x_k, mask))

    def attend(self, z_q: Tensor, z_k: Tensor, x_q: Tensor | None, x_k: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """The values of all heads, (B, N_q, channels), without the output layer."""
        q = self.query(z_q).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(z_k).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mlp = [(layer.weight, layer.bias) for layer in self.mlp if isinstance(layer, nn.Linear)]
        mixed = pair_attention(q, k, v, x_q, x_k, mlp, mode=self.mode, reduce=self.reduce, difference=self.difference, mask=mask)
        return mixed.transpose(1, 2).flatten(2)


@leaf
class PairBlock(nn.Module):
    """Attention and an MLP, each with a layer norm before and the input added after."""

    def __init__(
        self, channels: int, heads: int, dim_x: int, width: int = 128, mode: PairMode = "mix", difference: Difference = "vector"
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = PairAttention(channels, heads, dim_x, width, mode, difference=difference)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = pointwise(channels, 2 * channels, channels)

    def forward(self, z_q: Tensor, z_k: Tensor, x_q: Tensor | None, x_k: Tensor | None, mask: Tensor | None = None) -> Tensor:
        z_q = z_q + self.attention(self.norm(z_q), self.norm(z_k), x_q, x_k, mask)
        return z_q + self.mlp(self.norm_mlp(z_q))
