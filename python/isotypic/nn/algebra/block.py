"""One block of a geometric algebra transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic._words import Algebra, GatedActivation
from isotypic.nn.algebra.attention import GATrAttention, cleared, items
from isotypic.nn.algebra.linear import check_pair
from isotypic.nn.algebra.mlp import GeometricMLP
from isotypic.nn.algebra.norm import EquiLayerNorm
from isotypic.ops.algebra.attention import padding


class GATrBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), on multivectors and scalars.

    By default the block is the published one: in G(3,0,1) multi-query attention with heads of 2 C / H channels and a hidden layer of 2 C;
    in G(1,3) that of `lgatr`, with heads of C / H channels and keys of their own, a hidden layer of 4 C, normalised queries, keys, values
    and products, and learned factors in the norms.

    Args:
        mv_channels, s_channels: of input and output.
        num_heads: of the attention.
        algebra, subgroup, device, dtype: as of `MultivectorLinear`.
        multi_query, attention_ratio, mlp_ratio, head_scale, normalize, affine, activation: None takes the default of the algebra.
        trivectors: as of `ops.distance_attention`.
        dropout: by grade.
        scalar_activation: of the scalars in the MLP, as of `ScalarGate`; by default the same.
        recompute: keep of the MLP nothing but its input for the gradient.

    Input: mv (..., N, C, 16), s (..., N, S) or None; reference (..., 16) of the joins, mask and lengths as of `ops.distance_attention`.
    Output: the shapes of mv and s. Padding as of `nn.GATrAttention`: it does not matter, and comes out as zeros.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> GATrBlock(2, 4, num_heads=2)(torch.randn(1, 5, 2, 16), torch.randn(1, 5, 4))[1].shape
    torch.Size([1, 5, 4])
    """

    def __init__(
        self,
        mv_channels: int,
        s_channels: int = 0,
        *,
        num_heads: int = 8,
        algebra: Algebra = "pga",
        subgroup: bool = True,
        multi_query: bool | None = None,
        attention_ratio: int | None = None,
        mlp_ratio: int | None = None,
        head_scale: bool = False,
        normalize: bool | None = None,
        affine: bool | None = None,
        activation: GatedActivation = "gelu_tanh",
        scalar_activation: GatedActivation | None = None,
        trivectors: bool = True,
        dropout: float = 0.0,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        published = algebra == "pga"
        multi_query = published if multi_query is None else multi_query
        normalize = not published if normalize is None else normalize
        affine = not published if affine is None else affine
        attention_ratio = (2 if published else 1) if attention_ratio is None else attention_ratio
        mlp_ratio = (2 if published else 4) if mlp_ratio is None else mlp_ratio
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        common: dict[str, Any] = {"algebra": algebra, "subgroup": subgroup, "dropout": dropout, "normalize": normalize, **place}
        norm: dict[str, Any] = {"algebra": algebra, "affine": affine, **place}
        self.mv_channels, self.s_channels = mv_channels, s_channels
        self.norm_attention = EquiLayerNorm(mv_channels, s_channels, **norm)
        self.attention = GATrAttention(
            mv_channels,
            s_channels,
            num_heads=num_heads,
            ratio=attention_ratio,
            multi_query=multi_query,
            bias=published,
            head_scale=head_scale,
            trivectors=trivectors,
            **common,
        )
        self.norm_mlp = EquiLayerNorm(mv_channels, s_channels, **norm)
        self.mlp = GeometricMLP(
            mv_channels,
            s_channels,
            ratio=mlp_ratio,
            activation=activation,
            scalar_activation=scalar_activation,
            recompute=recompute,
            **common,
        )

    def forward(
        self,
        mv: Tensor,
        s: Tensor | None = None,
        reference: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        s = check_pair("GATrBlock", mv, s, self.mv_channels, self.s_channels)
        if mv.dim() < 3:
            raise ValueError(f"GATrBlock: mv must have shape (..., N, C={self.mv_channels}, 16), got {tuple(mv.shape)}")
        unused = padding(items(mv), items(mv), mask, lengths, itself=True)
        mv, s = cleared(mv, s, unused)
        h_mv, h_s = self.attention(*self.norm_attention(mv, s), mask=mask, lengths=lengths)
        mv, s = mv + h_mv, s + h_s
        h_mv, h_s = self.mlp(*self.norm_mlp(mv, s), reference)
        return cleared(mv + h_mv, s + h_s, unused)

    if TYPE_CHECKING:
        __call__ = forward
