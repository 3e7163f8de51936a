"""Transformer neural processes that see positions through their differences only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isotypic._words import PairMode
from isotypic.models._neural_process import NeuralProcess
from isotypic.models._point_sets import PointSet, Targets
from isotypic.nn._arguments import positive
from isotypic.nn.processes.attention import PairBlock, pointwise
from isotypic.nn.processes.site import RelaxSite


class Tokens(nn.Module):
    """Tokens of context points and targets: MLP([y, 0]) and MLP([0, 1]), the flags being those of values that are missing."""

    def __init__(self, dims_y: tuple[int, ...], dim_features: int, channels: int, dim_positions: int = 0) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(pointwise(2 * dim_y + dim_features + dim_positions, channels, channels) for dim_y in dims_y)
        self.dim_positions = dim_positions
        self.out = RelaxSite(channels)

    def inputs(self, y: Tensor, present: Tensor, x: Tensor, features: Tensor | None) -> Tensor:
        parts = [y * present, 1 - present]
        if self.dim_positions:
            parts.append(x.to(y.dtype))
        return torch.cat(parts if features is None else [*parts, features], -1)

    def forward(self, contexts: list[PointSet]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tokens of all context sets (B, N, channels), their positions and mask."""
        tokens = [mlp(self.inputs(c.y, c.present, c.x, c.features)) for mlp, c in zip(self.mlps, contexts, strict=True)]
        x = torch.cat([c.x for c in contexts], 1)
        masks = [torch.ones(c.x.shape[:2], dtype=torch.bool, device=x.device) if c.mask is None else c.mask for c in contexts]
        mask = None if all(c.mask is None for c in contexts) else torch.cat(masks, 1)
        return self.out(torch.cat(tokens, 1), x), x, mask

    def targets(self, targets: Targets, dim_out: int) -> Tensor:
        # Of the dtype of the parameters: positions may be wider.
        zeros = targets.x.new_zeros(*targets.x.shape[:2], dim_out, dtype=self.mlps[0][0].weight.dtype)  # type: ignore[index]
        return self.mlps[0](self.inputs(zeros, zeros, targets.x, targets.features))


class TokenProcess(NeuralProcess):
    """What neural processes on tokens are made with: the checks of their sizes, and the tokens, with positions in them or without."""

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int,
        dim_features: int,
        min_variance: float,
        *,
        heads: int = 1,
        positions: bool = False,
        **counts: int,
    ) -> None:
        super().__init__(dim_x, dim_y, dim_features, min_variance)
        owner = type(self).__name__
        positive(owner, channels=channels, heads=heads, **counts)
        if channels % heads:
            raise ValueError(f"{owner}: channels={channels} must be divisible by heads={heads}")
        self.tokens = Tokens(self.dims_y, dim_features, channels, dim_x if positions else 0)

    def normalized_head(self, channels: int) -> nn.Sequential:
        """Of a transformer, whose blocks normalise what comes in and not what goes out."""
        return nn.Sequential(nn.LayerNorm(channels), pointwise(channels, channels, 2 * self.dim_out))


class TETNP(TokenProcess):
    """The translation-equivariant transformer neural process: attention on pairs, a_ij = MLP([x_i - x_j, scores of all heads]).

    In every block the context attends to itself and the targets attend to the context. The tokens carry no positions, so that
    translations of all positions change nothing.

    Args:
        dim_x, dim_y: numbers of coordinates and values; a tuple dim_y for several context sets, of which the first is predicted.
        channels: of tokens; heads: divides channels; num_blocks: number of blocks.
        width: of the MLP on pairs.
        mode: "mix", or "bias" for scores + MLP(x_i - x_j), which is cheaper.
        dim_features: number of auxiliary inputs at each point.
        min_variance: added to the variance of the Gaussian head.

    Inputs and outputs are those of `NeuralProcess`.

    M. Ashman et al., "Translation Equivariant Transformer Neural Processes", 2024.

    >>> import torch
    >>> model = TETNP(dim_x=1, dim_y=1, channels=16, heads=2, num_blocks=2)
    >>> mean, variance = model(torch.rand(3, 10, 1), torch.randn(3, 10, 1), torch.rand(3, 5, 1))
    >>> mean.shape, bool((variance > 0).all())
    (torch.Size([3, 5, 1]), True)
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 128,
        heads: int = 8,
        num_blocks: int = 5,
        *,
        width: int = 128,
        mode: PairMode = "mix",
        dim_features: int = 0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__(dim_x, dim_y, channels, dim_features, min_variance, heads=heads, num_blocks=num_blocks, width=width)
        self._build(channels, heads, num_blocks, width, mode)
        self.head = self.normalized_head(channels)

    def _build(self, channels: int, heads: int, num_blocks: int, width: int, mode: PairMode) -> None:
        self.blocks = nn.ModuleList(PairBlock(channels, heads, self.dim_x, width, mode) for _ in range(num_blocks))

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        z, x, mask = self.tokens(contexts)
        return self.head(self.attend(z, x, mask, self.tokens.targets(targets, self.dim_out), targets.x))

    def attend(self, z: Tensor, x: Tensor, mask: Tensor | None, z_t: Tensor, x_t: Tensor) -> Tensor:
        """The tokens of the targets, (B, M, channels), after all blocks."""
        count, both, last = z.shape[1], torch.cat([x, x_t], 1), len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            if i == last:  # nobody reads the context after it
                return block(z_t, z, x_t, x, mask)
            z, z_t = block(torch.cat([z, z_t], 1), z, both, x, mask).split([count, z_t.shape[1]], 1)
        raise AssertionError


class PTTETNP(TETNP):
    """A TE-TNP whose context passes through `num_latents` pseudo-tokens, so that time is linear in the number of points.

    Each pseudo-token has a learned offset from the mean of the context positions (of the target positions where there is no context). In
    every block the latents attend to the context, the context to the latents, and the targets to the latents.

    Args:
        num_latents: number of pseudo-tokens.
        dim_x, dim_y, channels, heads, num_blocks, width, mode, dim_features, min_variance: as for `TETNP`.

    Sites of `isotypic.relax`: "tokens.out" on the context and "latents" on the pseudo-tokens, u_m + t(v_m).
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | tuple[int, ...],
        channels: int = 128,
        heads: int = 8,
        num_blocks: int = 5,
        *,
        num_latents: int = 64,
        width: int = 128,
        mode: PairMode = "mix",
        dim_features: int = 0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__(
            dim_x, dim_y, channels, heads, num_blocks, width=width, mode=mode, dim_features=dim_features, min_variance=min_variance
        )
        positive(type(self).__name__, num_latents=num_latents)
        self.num_latents = num_latents
        self.latent_tokens = nn.Parameter(torch.randn(num_latents, channels))
        self.offsets = nn.Parameter(torch.randn(num_latents, dim_x))
        self.latents = RelaxSite(channels)

    def _build(self, channels: int, heads: int, num_blocks: int, width: int, mode: PairMode) -> None:
        steps = ["from_context", "to_targets", "to_context"]
        self.blocks = nn.ModuleList(
            nn.ModuleDict({step: PairBlock(channels, heads, self.dim_x, width, mode) for step in steps[: 3 if i < num_blocks - 1 else 2]})
            for i in range(num_blocks)
        )

    def attend(self, z: Tensor, x: Tensor, mask: Tensor | None, z_t: Tensor, x_t: Tensor) -> Tensor:
        weights = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
        count = weights.sum(1)[:, None]
        centre = torch.where(count > 0, (x * weights[..., None]).sum(1) / count.clamp(min=1), x_t.sum(1) / max(x_t.shape[1], 1))
        x_l = centre[:, None] + self.offsets
        latents = self.latents(self.latent_tokens.expand(x.shape[0], -1, -1), x_l)
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            latents = block["from_context"](latents, z, x_l, x, mask)
            if "to_context" in block:
                z = block["to_context"](z, latents, x, x_l)
            z_t = block["to_targets"](z_t, latents, x_t, x_l)
        return z_t
