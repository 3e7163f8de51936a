"""What acts on each multivector or each item alone: normalisation, the gated nonlinearity, dropout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic._words import Algebra, GatedActivation
from isotypic.nn._arguments import number
from isotypic.nn.algebra.linear import check_counts, check_pair
from isotypic.ops._checks import without_autocast
from isotypic.ops.algebra import scale
from isotypic.ops.algebra._arguments import resolve
from isotypic.ops.algebra.scale import ACTIVATIONS


class EquiLayerNorm(nn.Module):
    """Normalisation over channels, mv / sqrt(max(mean_c sum_grades |<mv_c, mv_c>|, epsilon)); scalars by torch's layer norm.

    In G(3,0,1) the inner product is not negative, and components with e0 do not count in it, hence an epsilon that is not small.

    Args:
        mv_channels, s_channels: needed with affine alone.
        algebra: "pga" or "sta".
        affine: a learned factor for each grade of each channel and for each scalar; the layer then keeps its symmetry.
        epsilon: least mean square.
        device, dtype: of the parameters.

    Input: mv (..., C, 16), s (..., S) or None. Output: the same shapes.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> EquiLayerNorm()(torch.randn(5, 2, 16), torch.randn(5, 3))[0].shape
    torch.Size([5, 2, 16])
    """

    def __init__(
        self,
        mv_channels: int = 0,
        s_channels: int = 0,
        *,
        algebra: Algebra = "pga",
        affine: bool = False,
        epsilon: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_counts("EquiLayerNorm", 0, mv_channels=mv_channels, s_channels=s_channels)
        number("EquiLayerNorm", 0.0, epsilon=epsilon)
        self.algebra, self.epsilon, self.affine = algebra, epsilon, affine
        resolve("EquiLayerNorm", algebra)
        self._counts: tuple[int | None, int | None] = (mv_channels, s_channels or None) if affine else (None, None)
        self.weight_mv = nn.Parameter(torch.ones(mv_channels, 5, device=device, dtype=dtype)) if affine else None
        self.weight_s = nn.Parameter(torch.ones(s_channels, device=device, dtype=dtype)) if affine and s_channels else None

    def forward(self, mv: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = check_pair("EquiLayerNorm", mv, s, *self._counts)
        with without_autocast(mv.device.type):
            weight = None if self.weight_mv is None else self.weight_mv.to(mv.dtype)
            items = mv.reshape(math.prod(mv.shape[:-2]), *mv.shape[-2:])
            out = scale.norm(items, weight, self.epsilon, self.algebra).reshape(mv.shape)
            out_s = F.layer_norm(s, s.shape[-1:]) if s.shape[-1] else s
            return out, out_s if self.weight_s is None else out_s * self.weight_s.to(out_s.dtype)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"algebra={self.algebra!r}, affine={self.affine}, epsilon={self.epsilon}"


class ScalarGate(nn.Module):
    """Each multivector times a nonlinear function of its scalar component, mv f(mv_0), and the function of the scalars.

    Args:
        activation: "gelu_tanh", "gelu", "relu", "sigmoid", "tanh" or "silu".
        scalar_activation: of the scalars; by default the same.

    Input: mv (..., C, 16), s (..., S) or None. Output: the same shapes.

    >>> ScalarGate("relu")(-torch.ones(1, 1, 16))[0].any()
    tensor(False)
    """

    def __init__(self, activation: GatedActivation = "gelu_tanh", scalar_activation: GatedActivation | None = None) -> None:
        super().__init__()
        self.activation, self.scalar_activation = activation, activation if scalar_activation is None else scalar_activation
        for name in (self.activation, self.scalar_activation):
            if name not in ACTIVATIONS:
                raise ValueError(f"ScalarGate: activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {name!r}")

    def forward(self, mv: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = check_pair("ScalarGate", mv, s)
        with without_autocast(mv.device.type):
            gated = scale.gate(mv.reshape(math.prod(mv.shape[:-1]), 16), self.activation).reshape(mv.shape)
        return gated, ACTIVATIONS[self.scalar_activation][0](s)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"{self.activation!r}, {self.scalar_activation!r}"


class GradeDropout(nn.Module):
    """Dropout that keeps the symmetry: each grade of each multivector is kept whole or dropped whole, each scalar by itself.

    Args:
        p: probability of dropping.

    Input: mv (..., C, 16), s (..., S) or None. Output: the same shapes.

    >>> GradeDropout(0.5).eval()(torch.ones(1, 1, 16))[0].sum()
    tensor(16.)
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        number("GradeDropout", 0.0, 1.0, p=p)
        self.p = p

    def forward(self, mv: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = check_pair("GradeDropout", mv, s)
        if not self.training or not self.p:
            return mv, s
        kept = F.dropout(torch.ones_like(mv[..., :5]), self.p)
        kept = torch.cat([kept[..., g : g + 1].expand(*kept.shape[:-1], n) for g, n in enumerate((1, 4, 6, 4, 1))], -1)
        return mv * kept, F.dropout(s, self.p)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return f"p={self.p}"
