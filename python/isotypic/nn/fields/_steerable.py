"""What steerable convolutions share: a weight that is an expression of coefficients, on the kernels of the lattice's subgroup."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isotypic._constants import Constants
from isotypic._register import needs_gradient, plain
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._arguments import check_initialised
from isotypic.nn.fields import _steerable_basis, bank
from isotypic.nn.fields._group_key import Grouped
from isotypic.nn.fields._lattice_fields import permute_bank
from isotypic.ops._checks import without_autocast

Self = TypeVar("Self", bound="Steerable")


class Steerable(Grouped, Constants):
    """Filters psi[a, b, u](y) = sum_n coefficients[a, b, u, n] b_n(y) on a group C_N or D_N and the plane.

    With G the union of the cosets H R^j of the lattice's subgroup H, and t a tap, the convolution of the q fields of H that a regular field
    of G splits into has the weight

        weight[(a, i), (b, j), h](t) = psi[a, b, R^-i h R^j](R^-i t),

    which needs samples of b_n at the taps turned by R^-i alone: what H does to the taps is left to the kernels, and is exact. a are the
    fields out and b those in, and the other way round where the convolution is transposed; without u, b are scalars.
    """

    in_fields: int
    out_fields: int
    bias: nn.Parameter | None
    samples: Tensor
    sources: Tensor
    cosets: Tensor
    places: Tensor

    def __init__(
        self,
        planar: PlanarGroup,
        kernel_size: int,
        fields: tuple[int, int],
        scalar: bool,
        bias: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.group, self.order, self.kernel_size, self.scalar = planar.name, planar.order, kernel_size, scalar
        basis = _steerable_basis.samples(self.group, kernel_size)
        shape = (*fields, *(() if scalar else (self.order,)), basis.shape[1])
        self.coefficients = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(bias, device=device, dtype=dtype)) if bias else None
        self.add_constant("samples", basis, device, dtype)
        self.add_constant("sources", planar.between, device)
        self.add_constant("cosets", planar.cosets, device)
        self.add_constant("places", planar.cosets.argsort(axis=None), device)
        self._evaluated: tuple[Tensor, Tensor] | None = None

    def _initialise(self, terms: float) -> None:
        # Every basis function has norm 1, so that the taps of one filter have the summed variance (functions) * Var(coefficient).
        bound = math.sqrt(6 / terms)
        with torch.no_grad():
            self.coefficients.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.zero_()

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._evaluated = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_evaluated": None}

    def _expand(self, coefficients: Tensor) -> Tensor:
        # Linear algebra of the filters' own size: autocast would only lose digits.
        with without_autocast(coefficients.device.type):
            first, second = coefficients.shape[:2]
            index, _, *size = self.samples.shape
            samples = self.samples.flatten(2).to(coefficients.dtype)  # parameters alone follow a mixed-precision policy
            if self.scalar:
                weight = torch.einsum("abn,int->aibt", coefficients, samples)
                return weight.reshape(first * index, second, *size)
            turned = coefficients.index_select(2, self.sources.flatten()).unflatten(2, self.sources.shape)
            weight = torch.einsum("abisn,int->aibst", turned, samples)
            return weight.reshape(first * index, second * index, self.order // index, *size)

    def lattice_weight(self) -> Tensor:
        """The weight of the p4 or p4m convolution that runs, (O q, C q, |H|, k, k), (O q, C, k, k) when lifting,
        or (C q, O q, |H|, k, k) when transposed.

        It is linear in `coefficients`. In eval mode, without gradients, it is kept on a CPU until the coefficients have other values.
        """
        coefficients = self.coefficients
        traced = torch.compiler.is_compiling() or not plain(coefficients)
        if traced or self.training or needs_gradient(coefficients) or not coefficients.is_cpu:
            return self._expand(coefficients)
        # Values are compared, not versions: a change through `.data` leaves no other trace.
        known = self._evaluated
        if known is None or known[0].dtype != coefficients.dtype or not torch.equal(known[0], coefficients):
            with torch.inference_mode(False), torch.no_grad():
                own = coefficients.detach().clone()
                known = self._evaluated = own, self._expand(own)
        return known[1]

    def _lattice_bias(self) -> Tensor | None:
        return None if self.bias is None else self.bias.repeat_interleave(self.cosets.shape[0])

    def _lattice_layer(self, blocks: Any) -> nn.Module:
        """The plain convolution with the same function on flattened fields; `blocks` is the layer of the lattice's subgroup."""
        blocks.weight = nn.Parameter(self.lattice_weight().detach())
        bias = self._lattice_bias()
        blocks.bias = None if bias is None else nn.Parameter(bias.detach())
        conv: Any = blocks.to_conv()
        with torch.no_grad():
            conv.weight.copy_(permute_bank(conv.weight, self.places, not self.scalar))
        return conv.train(self.training)

    def extra_repr(self) -> str:
        text = f"{self.in_fields}, {self.out_fields}, kernel_size={self.kernel_size}, group={self.group}"
        return text + ("" if self.bias is not None else ", bias=False")

    def _project(self, weight: Tensor, bias: Tensor | None, planar: PlanarGroup) -> None:
        """Coefficients of the filters that are nearest to a bank (first |G|, second |G|, k, k)."""
        with torch.no_grad():
            dense = permute_bank(weight.double(), self.cosets.flatten(), not self.scalar)
            kept = bank.project(dense, planar.lattice, "scalar" if self.scalar else "regular").unflatten(0, (-1, planar.index))
            samples = torch.tensor(_steerable_basis.samples(planar.name, self.kernel_size), device=kept.device)
            design = samples.flatten(2).transpose(1, 2).flatten(0, 1)  # (q taps, functions)
            solve = torch.linalg.pinv(design).unflatten(1, (planar.index, -1))
            if self.scalar:
                self.coefficients.copy_(torch.einsum("aibt,nit->abn", kept.flatten(3), solve))
            else:
                # (first, q, second, |G|, taps) with the elements of the group in their order: psi[a, b, u](R^-i t).
                kept = kept.unflatten(2, (-1, planar.index)).flatten(3, 4).flatten(4)
                kept = kept.gather(3, self.sources.argsort(dim=1)[:, None, :, None].expand_as(kept))
                self.coefficients.copy_(torch.einsum("aibut,nit->abun", kept, solve))
            if self.bias is not None and bias is not None:
                self.bias.copy_(bias.reshape(-1, planar.order).mean(dim=1))


def check_plain(owner: str, conv: Any, kind: type[nn.Module], planar: PlanarGroup, scalar: bool) -> None:
    """Raises unless a plain convolution may be one of flattened fields, with the same kernel on both axes."""
    if not isinstance(conv, kind):
        raise TypeError(f"{owner}: conv must be an nn.{kind.__name__}, got {type(conv).__name__}")
    check_initialised(owner, "conv", conv)
    found: Any = conv
    for name, order in (("in_channels", 1 if scalar else planar.order), ("out_channels", planar.order)):
        channels = getattr(found, name)
        if channels % (order * found.groups):
            raise ValueError(
                f"{owner}: conv.{name}={channels} must be a multiple of |G| * groups = {order} * {found.groups} to hold regular "
                f"fields of {planar.name}"
            )
    for name in ("kernel_size", "stride", "dilation"):
        if len(set(getattr(found, name))) != 1:
            raise ValueError(f"{owner}: conv.{name} must be the same on both axes, got {getattr(found, name)}")
