"""The equivariant linear layer between multivectors and scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import ops
from isotypic._words import Algebra, Initialization
from isotypic.nn._arguments import check_dtype, check_tensor, same_dtype
from isotypic.ops._checks import is_integer
from isotypic.ops.algebra._arguments import resolve
from isotypic.ops.algebra.linear import multivector_linear_scalars

INITIALIZATIONS = ("default", "small", "almost_unit_scalar")


def check_counts(owner: str, least: int, **counts: Any) -> None:
    for name, count in counts.items():
        if not is_integer(count) or count < least:
            raise ValueError(f"{owner}: {name} must be an integer of at least {least}, got {count!r}")


def check_pair(owner: str, mv: Any, s: Any, mv_channels: int | None = None, s_channels: int | None = None) -> Tensor:
    """Multivectors (..., C, 16) and scalars (..., S) of one batch; the scalars, empty ones where None stands for none."""
    check_tensor(owner, "mv", mv, floating=True)
    if mv.dim() < 2 or mv.shape[-1] != 16 or (mv_channels is not None and mv.shape[-2] != mv_channels):
        expected = "C" if mv_channels is None else f"C={mv_channels}"
        raise ValueError(f"{owner}: mv must have shape (..., {expected}, 16), got {tuple(mv.shape)}")
    if s is None:
        if s_channels:
            raise ValueError(f"{owner}: s must have shape (..., S={s_channels}), got None")
        return mv.new_empty(*mv.shape[:-2], 0)
    check_tensor(owner, "s", s, floating=True)
    if s.dim() != mv.dim() - 1 or s.shape[:-1] != mv.shape[:-2] or (s_channels is not None and s.shape[-1] != s_channels):
        expected = ", ".join(map(str, (*mv.shape[:-2], "S" if s_channels is None else s_channels)))
        raise ValueError(f"{owner}: s must have shape ({expected}), got {tuple(s.shape)}")
    return s


def check_reference(owner: str, reference: Any, *batches: Sequence[int]) -> None:
    """A reference of joins (..., 16) whose batch expands to one of the given ones."""
    check_tensor(owner, "reference", reference, floating=True)
    found = reference.shape[:-1]
    for batch in batches if reference.dim() and reference.shape[-1] == 16 else ():
        if len(found) <= len(batch) and all(a in (1, b) for a, b in zip(reversed(found), reversed(batch), strict=False)):
            return
    expected = " or ".join(str((*batch, 16)) for batch in batches)
    raise ValueError(f"{owner}: reference must expand to shape {expected}, got {tuple(reference.shape)}")


class MultivectorLinear(nn.Module):
    """All equivariant linear maps between multivectors and scalars; see `ops.multivector_linear`.

        mv[o] = sum_ca weight[o, c, a] L_a mv[c] + (linear in s) in component 0        s = linear in (component 0 of mv, s)

    In G(1,3) with the subgroup's maps, component 15 is a scalar too and takes part with component 0.

    Args:
        in_mv_channels, out_mv_channels: of multivectors.
        in_s_channels, out_s_channels: of scalars, may be 0.
        algebra: "pga", G(3,0,1), or "sta", G(1,3).
        bias: whether scalars and the scalar components get one.
        subgroup: for "sta": equivariant under proper orthochronous Lorentz transformations (10 maps) or under all of them (5).
        initialization: "default"; "small", a tenth of it, for the end of a residual branch; "almost_unit_scalar", multivectors near 1.
        device, dtype: of the parameters.

    Input: mv (..., C_in, 16), s (..., S_in) or None where S_in is 0. Output: mv (..., C_out, 16), s (..., S_out).
    Raises ValueError for counts that are no layer and inputs of another shape; TypeError for dtypes that are not those of the parameters.

    J. Brehmer, P. de Haan, S. Behrends, T. Cohen, "Geometric Algebra Transformer", NeurIPS 2023.

    >>> mv, s = MultivectorLinear(2, 4, 3, 5)(torch.zeros(7, 2, 16), torch.zeros(7, 3))
    >>> mv.shape, s.shape
    (torch.Size([7, 4, 16]), torch.Size([7, 5]))
    """

    def __init__(
        self,
        in_mv_channels: int,
        out_mv_channels: int,
        in_s_channels: int = 0,
        out_s_channels: int = 0,
        *,
        algebra: Algebra = "pga",
        bias: bool = True,
        subgroup: bool = True,
        initialization: Initialization = "default",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        owner = "MultivectorLinear"
        check_counts(owner, 1, in_mv_channels=in_mv_channels, out_mv_channels=out_mv_channels)
        check_counts(owner, 0, in_s_channels=in_s_channels, out_s_channels=out_s_channels)
        check_dtype(owner, dtype)
        known = resolve(owner, algebra)
        if initialization not in INITIALIZATIONS:
            raise ValueError(f"{owner}: initialization must be one of {', '.join(map(repr, INITIALIZATIONS))}, got {initialization!r}")
        self.in_mv_channels, self.out_mv_channels = int(in_mv_channels), int(out_mv_channels)
        self.in_s_channels, self.out_s_channels = int(in_s_channels), int(out_s_channels)
        self.algebra, self.subgroup, self.initialization = algebra, subgroup, initialization
        maps = known.maps if known.degenerate or subgroup else 5
        self.scalars = known.scalars if maps != 5 else (0,)
        through, place = len(self.scalars), {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_mv_channels, in_mv_channels, maps, **place))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(out_mv_channels, **place)) if bias and not in_s_channels else None  # type: ignore[arg-type]
        self.s_to_mv = nn.Linear(in_s_channels, through * out_mv_channels, bias=bias, **place) if in_s_channels else None
        self.mv_to_s = nn.Linear(through * in_mv_channels, out_s_channels, bias=bias, **place) if out_s_channels else None
        self.s_to_s = nn.Linear(in_s_channels, out_s_channels, bias=False, **place) if in_s_channels and out_s_channels else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Variance-preserving: uniform in +-1 / sqrt(fan in), with the factors of the published network for each map of G(3,0,1)."""
        size = {"default": 1.0, "small": 0.1, "almost_unit_scalar": 0.5}[self.initialization]
        factors = [1.0, 4.0, 6.0, 2.0, 0.5, 0.5, 1.5, 1.5, 0.5] if self.algebra == "pga" else [1.0] * self.weight.shape[2]
        shared = math.sqrt(0.5) if self.s_to_mv is not None else 1.0
        with torch.no_grad():
            for i, factor in enumerate(factors):
                through = i == 0 or (len(self.scalars) == 2 and i == len(factors) - 1)
                bound = size * math.sqrt(factor) / math.sqrt(self.in_mv_channels) * (shared if through else 1.0)
                nn.init.uniform_(self.weight[..., i], -bound, bound)
            unit = 1.0 if self.initialization == "almost_unit_scalar" else 0.0
            if self.bias is not None:
                self.bias.fill_(unit)
            if self.s_to_mv is not None:
                bound = size * shared / math.sqrt(self.in_s_channels)
                nn.init.uniform_(self.s_to_mv.weight, -bound, bound)
                if self.s_to_mv.bias is not None:
                    bound = 1 / math.sqrt(self.in_s_channels + self.in_mv_channels)
                    nn.init.uniform_(self.s_to_mv.bias, -bound, bound)
                    self.s_to_mv.bias.view(self.out_mv_channels, -1)[:, 0] += unit
            scale = 0.1 if self.initialization == "small" else 1.0
            layers = [layer for layer in (self.mv_to_s, self.s_to_s) if layer is not None]
            for layer in layers:
                bound = scale / math.sqrt(layer.in_features * len(layers))
                nn.init.uniform_(layer.weight, -bound, bound)
            if self.mv_to_s is not None and self.mv_to_s.bias is not None:
                bound = scale / math.sqrt(sum(layer.in_features for layer in layers))
                nn.init.uniform_(self.mv_to_s.bias, -bound, bound)

    def forward(self, mv: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = check_pair("MultivectorLinear", mv, s, self.in_mv_channels, self.in_s_channels)
        same_dtype("MultivectorLinear", "mv", mv, self.weight)
        if self.in_s_channels:
            same_dtype("MultivectorLinear", "s", s, self.weight)
        through = len(self.scalars)
        shift = None
        if self.s_to_mv is not None:
            shift = self.s_to_mv(s).unflatten(-1, (self.out_mv_channels, through))
        elif self.bias is not None:
            shift = F.pad(self.bias.unsqueeze(-1), (0, through - 1))
        if self.mv_to_s is None:
            return ops.multivector_linear(mv, self.weight, self.algebra, shift=shift), s.new_empty(*mv.shape[:-2], 0)
        out_mv, scalars = multivector_linear_scalars(mv, self.weight, self.algebra, shift=shift)
        out_s = self.mv_to_s(scalars)
        return out_mv, out_s if self.s_to_s is None else out_s + self.s_to_s(s)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        counts = f"{self.in_mv_channels}, {self.out_mv_channels}, {self.in_s_channels}, {self.out_s_channels}"
        return f"{counts}, algebra={self.algebra!r}, bias={self.bias is not None or getattr(self.s_to_mv, 'bias', None) is not None}"
