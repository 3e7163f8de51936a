"""Neural processes that pool the context: relational ones, which see differences of positions, and the plain one, which sees positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isotypic._words import RelationalDifference
from isotypic.models._point_sets import PointSet, Targets
from isotypic.models.te_tnp import TokenProcess
from isotypic.nn.processes.attention import PairAttention, pointwise


class CNP(TokenProcess):
    """The conditional neural process: the mean of MLP([x_n, y_n]) over the context, and an MLP of it and x_t. It has no symmetry.

    Args:
        dim_x, dim_y, dim_features, min_variance: as for `ConvCNP`.
        channels: of the representation; num_blocks: number of hidden layers of encoder and decoder.

    M. Garnelo et al., "Conditional Neural Processes", 2018.

    >>> import torch
    >>> CNP(dim_x=1, dim_y=1, channels=16)(torch.rand(3, 10, 1), torch.randn(3, 10, 1), torch.rand(3, 5, 1))[0].shape
    torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 128,
        num_blocks: int = 3,
        *,
        dim_features: int = 0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__(dim_x, dim_y, channels, dim_features, min_variance, positions=True, num_blocks=num_blocks)
        hidden = (channels,) * num_blocks
        self.encoder = nn.Sequential(nn.GELU(), pointwise(*hidden, channels))
        self.head = pointwise(channels + dim_x + dim_features, *hidden, 2 * self.dim_out)

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        tokens, _, mask = self.tokens(contexts)
        encoded = self.encoder(tokens)
        weights = encoded.new_ones(encoded.shape[:2]) if mask is None else mask.to(encoded.dtype)
        pooled = (encoded * weights[..., None]).sum(1) / weights.sum(1).clamp(min=1)[:, None]
        parts = [pooled[:, None].expand(-1, targets.x.shape[1], -1), targets.x.to(pooled.dtype)]
        return self.head(torch.cat(parts if targets.features is None else [*parts, targets.features], -1))


class RCNP(TokenProcess):
    """The relational conditional neural process: for each target a sum over the context of a function of x_t - x_n and y_n.

        r_t = sum_n a(x_t - x_n, y_n) v(y_n) / (1 + N)     with an MLP a to each head and linear v,     (mean, variance) = MLP(r_t)

    Equivariant under translations, and under rotations and reflections too with difference="distance2".

    Args:
        dim_x, dim_y, dim_features, min_variance: as for `ConvCNP`.
        channels, heads: of the representation; width: of the MLP on pairs; num_blocks: number of hidden layers of the decoder.
        difference: "vector" (x_t - x_n) or "distance2" (|x_t - x_n|^2).

    D. Huang et al., "Practical Equivariances via Relational Conditional Neural Processes", 2023.

    >>> import torch
    >>> RCNP(dim_x=2, dim_y=1, channels=16, heads=2)(torch.rand(3, 10, 2), torch.randn(3, 10, 1), torch.rand(3, 5, 2))[0].shape
    torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 128,
        heads: int = 16,
        num_blocks: int = 3,
        *,
        width: int = 128,
        difference: RelationalDifference = "vector",
        dim_features: int = 0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__(dim_x, dim_y, channels, dim_features, min_variance, heads=heads, num_blocks=num_blocks, width=width)
        if difference not in ("vector", "distance2"):
            raise ValueError(f"RCNP: difference must be 'vector' or 'distance2', got {difference!r}")
        self.relation = PairAttention(channels, heads, dim_x, width, "mix", "sum", difference)
        self.head = pointwise(channels, *(channels,) * num_blocks, 2 * self.dim_out)

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        tokens, x, mask = self.tokens(contexts)
        count = tokens.new_full((tokens.shape[0], 1), tokens.shape[1]) if mask is None else mask.sum(1, keepdim=True).to(tokens.dtype)
        queries = self.tokens.targets(targets, self.dim_out)
        attended = self.relation.attend(queries, tokens, targets.x, x, mask) / (1 + count[..., None])
        return self.head(queries + self.relation.out(attended))


class TNP(TokenProcess):
    """The transformer neural process: ordinary attention on tokens that carry their positions. It has no symmetry.

    Args:
        dim_x, dim_y, channels, heads, num_blocks, dim_features, min_variance: as for `TETNP`; there is no `width` and no `mode`.

    T. Nguyen and A. Grover, "Transformer Neural Processes", 2022; L. Feng et al., "Latent Bottlenecked Attentive Neural Processes", 2023
    (the targets attend to the context and not to each other).

    >>> import torch
    >>> TNP(dim_x=1, dim_y=1, channels=16, heads=2, num_blocks=2)(torch.rand(3, 9, 1), torch.randn(3, 9, 1), torch.rand(3, 5, 1))[0].shape
    torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 128,
        heads: int = 8,
        num_blocks: int = 5,
        *,
        dim_features: int = 0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__(dim_x, dim_y, channels, dim_features, min_variance, heads=heads, positions=True, num_blocks=num_blocks)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(num_blocks))
        self.head = self.normalized_head(channels)

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        z, _, mask = self.tokens(contexts)
        z_t = self.tokens.targets(targets, self.dim_out)
        for i, block in enumerate(self.blocks):
            if i == len(self.blocks) - 1:
                z_t = block(z_t, z, mask)
            else:
                z, z_t = block(torch.cat([z, z_t], 1), z, mask).split([z.shape[1], z_t.shape[1]], 1)
        return self.head(z_t)


class Block(nn.Module):
    """Ordinary multi-head attention and an MLP, each with a layer norm before and the input added after; zero without keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = pointwise(channels, 2 * channels, channels)

    def forward(self, z_q: Tensor, z_k: Tensor, mask: Tensor | None) -> Tensor:
        q = self.query(self.norm(z_q)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(self.norm(z_k)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is None:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v) if z_k.shape[1] else torch.zeros_like(q)
        else:
            empty = ~mask.any(1)[:, None, None, None]
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None] | empty).masked_fill(empty, 0)
        z_q = z_q + self.out(mixed.transpose(1, 2).flatten(2))
        return z_q + self.mlp(self.norm_mlp(z_q))
