"""The geometric algebra transformer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from isotypic._words import Algebra
from isotypic.nn.algebra.attention import cleared
from isotypic.nn.algebra.block import GATrBlock
from isotypic.nn.algebra.linear import MultivectorLinear, check_counts, check_pair, check_reference
from isotypic.ops._checks import DTYPES
from isotypic.ops.algebra._arguments import resolve
from isotypic.ops.algebra.attention import key_ranges, padding


class GATr(nn.Module):
    """Geometric algebra transformer: a linear map, `nn.GATrBlock`s, a linear map, on sets of items with multivectors and scalars.

    With algebra "pga", G(3,0,1), it commutes with E(3) as that acts on multivectors (`pga.sandwich`), mirrors included; a mirror takes an
    embedded point to minus the embedding of the mirrored one, so that point clouds embedded anew see rotations and translations only. With
    "sta", G(1,3), with the Lorentz group, and is then the network of `lgatr`, whose weights `nn.from_lgatr` takes.

    Args:
        in_mv_channels, out_mv_channels, hidden_mv_channels: of multivectors.
        in_s_channels, out_s_channels, hidden_s_channels: of scalars, may be 0.
        num_blocks: of the transformer. num_heads: of its attention.
        algebra: "pga" or "sta".
        checkpoint: keep of each block nothing but its input for the gradient.
        block: further arguments of `nn.GATrBlock`: dropout, multi_query, attention_ratio, mlp_ratio, subgroup, recompute, ...
        device, dtype: of the parameters.

    Input: mv (..., N, C_in, 16) and s (..., N, S_in) or None; mask (B, N, N) and lengths as of `ops.distance_attention`, with B the product
    of the axes before N; reference (..., 16), the scale of the joins, by default the mean of mv over the items of a sample and the
    channels.
    Output: mv (..., N, C_out, 16), s (..., N, S_out). Padding, which is items behind `lengths` and, by a mask, items that attend to nothing
    and that nothing attends to, does not matter, whatever it holds, and comes out as zeros.
    Raises ValueError for counts that are no network and inputs of another shape; TypeError for dtypes that are not those of the parameters.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023. J. Spinner et al., "Lorentz-Equivariant
    Geometric Algebra Transformers for High-Energy Physics", NeurIPS 2024.

    >>> mv, s = GATr(1, 1, 4, 2, 3, 8, num_blocks=2, num_heads=2)(torch.randn(2, 5, 1, 16), torch.randn(2, 5, 2))
    >>> mv.shape, s.shape
    (torch.Size([2, 5, 1, 16]), torch.Size([2, 5, 3]))
    """

    def __init__(
        self,
        in_mv_channels: int,
        out_mv_channels: int,
        hidden_mv_channels: int,
        in_s_channels: int,
        out_s_channels: int,
        hidden_s_channels: int,
        num_blocks: int,
        num_heads: int = 8,
        algebra: Algebra = "pga",
        *,
        checkpoint: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **block: Any,
    ) -> None:
        super().__init__()
        check_counts("GATr", 0, num_blocks=num_blocks)
        self.joins = resolve("GATr", algebra).degenerate
        self.algebra, self.checkpoint = algebra, checkpoint
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        linear: dict[str, Any] = {"algebra": algebra, "subgroup": block.get("subgroup", True), **place}
        self.in_mv_channels, self.in_s_channels = in_mv_channels, in_s_channels
        self.linear_in = MultivectorLinear(in_mv_channels, hidden_mv_channels, in_s_channels, hidden_s_channels, **linear)
        self.blocks = nn.ModuleList(
            GATrBlock(hidden_mv_channels, hidden_s_channels, num_heads=num_heads, algebra=algebra, **block, **place)
            for _ in range(num_blocks)
        )
        self.linear_out = MultivectorLinear(hidden_mv_channels, out_mv_channels, hidden_s_channels, out_s_channels, **linear)

    def forward(
        self,
        mv: Tensor,
        s: Tensor | None = None,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        s = check_pair("GATr", mv, s, self.in_mv_channels, self.in_s_channels)
        if mv.dim() < 3:
            raise ValueError(f"GATr: mv must have shape (..., N, C={self.in_mv_channels}, 16), got {tuple(mv.shape)}")
        if mv.dtype not in DTYPES:
            raise TypeError(f"GATr: mv must be of a supported dtype, got {mv.dtype}")
        shape, batch = mv.shape[:-2], mv.shape[:-3]
        mv, s = mv.reshape(math.prod(batch), *mv.shape[-3:]), s.reshape(math.prod(batch), *s.shape[-2:])
        unused = padding(mv, mv, mask, lengths, itself=True)
        mv, s = cleared(mv, s, unused)
        if not self.joins:
            reference = None
        elif reference is None:
            packed = None if lengths is None or lengths.shape == (mv.shape[0],) else key_ranges(lengths, mv, mv)
            reference = item_mean(mv, unused, packed)
        else:
            check_reference("GATr", reference, batch, shape)
            each = reference if reference.dim() > len(batch) + 1 else reference.unsqueeze(-2)  # of items, or one for all
            reference = each.expand(*batch, each.shape[-2], 16).reshape(math.prod(batch), each.shape[-2], 16)
        mv, s = self.linear_in(mv, s)
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                mv, s = recomputed(block, mv, s, reference, mask=mask, lengths=lengths, use_reentrant=False)
            else:
                mv, s = block(mv, s, reference, mask=mask, lengths=lengths)
        mv, s = self.linear_out(mv, s)
        mv, s = cleared(mv, s, unused)
        return mv.reshape(*shape, *mv.shape[-2:]), s.reshape(*shape, s.shape[-1])

    if TYPE_CHECKING:
        __call__ = forward


def item_mean(mv: Tensor, unused: Tensor | None, ranges: Tensor | None) -> Tensor:
    """(B, N, C, 16) -> (B, N or 1, 16): the mean over channels and over the items of a sample, or of the sequence that an item is in
    (ranges of packed ones), without the unused ones, which are zero."""
    items = mv.mean(2)
    used = items.new_ones(*items.shape[:2], 1) if unused is None else (~unused).to(items.dtype).unsqueeze(-1)
    if ranges is None:
        return (items / used.sum(1, keepdim=True).clamp_min(1)).sum(1, keepdim=True)
    # Sums up to each item, in float64 so that differences of them keep their digits. What is not finite is summed by itself, because after
    # it no difference would be.
    finite = items.isfinite().all(-1, keepdim=True)
    columns = torch.cat([torch.where(finite, items, 0.0), used, (~finite).to(items.dtype)], -1).double()
    sums = torch.cat([columns.new_zeros(items.shape[0], 1, 18), columns.cumsum(1)], 1)
    first, last = (ranges[..., i : i + 1].long().expand(-1, -1, 18) for i in range(2))
    total = sums.gather(1, last) - sums.gather(1, first)
    mean = total[..., :16] / total[..., 16:17].clamp_min(1)
    return mean.masked_fill(total[..., 17:] > 0, torch.nan).to(mv.dtype)
