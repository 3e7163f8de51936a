"""The layers that multiply multivectors: the bilinear layer and the block of a transformer around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isotypic._words import Algebra, GatedActivation
from isotypic.nn.algebra.linear import MultivectorLinear, check_counts, check_reference
from isotypic.nn.algebra.norm import EquiLayerNorm, GradeDropout, ScalarGate
from isotypic.ops.algebra._arguments import resolve
from isotypic.ops.algebra.products import mean_reference, products_and_joins


class GeometricBilinear(nn.Module):
    """Geometric products, and in G(3,0,1) joins, of linear maps of the input, mixed linearly:

        linear(geometric_product(linear mv, linear mv) | equi_join(linear mv, linear mv; reference))

    The linear maps to all factors are one call.

    Args:
        in_mv_channels, out_mv_channels, in_s_channels, out_s_channels: as of `MultivectorLinear`.
        hidden_mv_channels: products and joins together, an even number in G(3,0,1); by default out_mv_channels.
        algebra, subgroup, device, dtype: as of `MultivectorLinear`.

    Input: mv (..., C_in, 16), s (..., S_in) or None, reference (..., 16) whose batch broadcasts with that of mv without its channels, the
    scale of the joins; by default the mean of mv over items and channels. Output: mv (..., C_out, 16), s (..., S_out).

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> GeometricBilinear(2, 4)(torch.randn(5, 2, 16))[0].shape
    torch.Size([5, 4, 16])
    """

    def __init__(
        self,
        in_mv_channels: int,
        out_mv_channels: int,
        in_s_channels: int = 0,
        out_s_channels: int = 0,
        *,
        hidden_mv_channels: int | None = None,
        algebra: Algebra = "pga",
        subgroup: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        hidden = out_mv_channels if hidden_mv_channels is None else hidden_mv_channels
        check_counts("GeometricBilinear", 1, hidden_mv_channels=hidden)
        self.joins = resolve("GeometricBilinear", algebra).degenerate
        if self.joins and hidden % 2:
            raise ValueError(f"GeometricBilinear: hidden_mv_channels must be even for {algebra}, got {hidden}")
        self.algebra, self.hidden_mv_channels = algebra, hidden
        common: dict[str, Any] = {"algebra": algebra, "subgroup": subgroup, "device": device, "dtype": dtype}
        self.linear_in = MultivectorLinear(in_mv_channels, 2 * hidden, in_s_channels, 0, **common)
        self.linear_out = MultivectorLinear(hidden, out_mv_channels, in_s_channels, out_s_channels, **common)
        self._start_near_identity(common)

    @torch.no_grad()
    def _start_near_identity(self, common: dict[str, Any]) -> None:
        """The right factors of the products begin near 1."""
        each = self.hidden_mv_channels // 2 if self.joins else self.hidden_mv_channels
        layer = self.linear_in
        right = MultivectorLinear(layer.in_mv_channels, each, layer.in_s_channels, 0, initialization="almost_unit_scalar", **common)
        layer.weight[each : 2 * each] = right.weight
        if layer.bias is not None and right.bias is not None:
            layer.bias[each : 2 * each] = right.bias
        if layer.s_to_mv is not None and right.s_to_mv is not None:
            for name in ("weight", "bias"):
                rows = getattr(layer.s_to_mv, name).unflatten(0, (2 * self.hidden_mv_channels, -1))
                rows[each : 2 * each] = getattr(right.s_to_mv, name).unflatten(0, (each, -1))

    def forward(self, mv: Tensor, s: Tensor | None = None, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
        factors, _ = self.linear_in(mv, s)
        if not self.joins:
            return self.linear_out(products_and_joins(factors, None, self.algebra), s)
        if reference is None:
            reference = mean_reference(mv if mv.dim() > 2 else mv.unsqueeze(-3))[..., 0, :]
        else:
            check_reference("GeometricBilinear", reference, mv.shape[:-2])
        return self.linear_out(products_and_joins(factors, reference[..., 14].to(factors.dtype), self.algebra), s)

    if TYPE_CHECKING:
        __call__ = forward


class GeometricMLP(nn.Module):
    """The second half of a block: `GeometricBilinear`, a gated nonlinearity and a linear layer.

    All factors of products and joins are one linear map, products and joins are written beside each other into one tensor, the gate and
    each linear map of multivectors are one kernel, and no gradient of a part of a tensor is spread out to the whole. It is not one kernel,
    because scalars and multivectors meet in every linear map; `recompute` is for its memory.

    Args:
        mv_channels, s_channels: of input and output.
        ratio: hidden channels to each channel.
        algebra, subgroup, device, dtype: as of `MultivectorLinear`.
        activation, scalar_activation: as of `ScalarGate`.
        normalize: `EquiLayerNorm` after the bilinear layer.
        dropout: after each of the layers, by grade.
        recompute: keep nothing but the input for the gradient.

    Input: mv (..., C, 16), s (..., S) or None, reference as of `GeometricBilinear`. Output: the same shapes.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> GeometricMLP(2, 3)(torch.randn(5, 2, 16), torch.randn(5, 3))[1].shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        mv_channels: int,
        s_channels: int = 0,
        *,
        ratio: int = 2,
        algebra: Algebra = "pga",
        subgroup: bool = True,
        activation: GatedActivation = "gelu_tanh",
        scalar_activation: GatedActivation | None = None,
        normalize: bool = False,
        dropout: float = 0.0,
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts("GeometricMLP", 1, mv_channels=mv_channels, ratio=ratio)
        common: dict[str, Any] = {"algebra": algebra, "subgroup": subgroup, "device": device, "dtype": dtype}
        self.bilinear = GeometricBilinear(mv_channels, ratio * mv_channels, s_channels, ratio * s_channels, **common)
        self.norm = EquiLayerNorm(algebra=algebra) if normalize else None
        self.gate = ScalarGate(activation, scalar_activation)
        self.linear = MultivectorLinear(ratio * mv_channels, mv_channels, ratio * s_channels, s_channels, **common)
        self.dropout = GradeDropout(dropout)
        self.recompute = recompute

    def forward(self, mv: Tensor, s: Tensor | None = None, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._forward, mv, s, reference, use_reentrant=False)
        return self._forward(mv, s, reference)

    if TYPE_CHECKING:
        __call__ = forward

    def _forward(self, mv: Tensor, s: Tensor | None, reference: Tensor | None) -> tuple[Tensor, Tensor]:
        mv, s = self.bilinear(mv, s, reference)
        if self.norm is not None:
            mv, s = self.norm(mv, s)
        mv, s = self.gate(*self.dropout(mv, s))
        return self.dropout(*self.linear(mv, s))
