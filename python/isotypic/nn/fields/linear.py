"""Linear layers on regular fields of any finite group: the 1x1 group convolution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic import ops
from isotypic._constants import Constants
from isotypic.groups.planar import PlanarGroup, planar_group
from isotypic.nn._arguments import check_dtype, check_field, check_initialised, parameter, positive
from isotypic.nn.fields import bank
from isotypic.nn.fields._group_key import Grouped, any_group, key_of
from isotypic.nn.fields._lattice_fields import from_lattice_fields, to_lattice_fields
from isotypic.ops.fields.bank import filter_bank


class GroupLinear(Grouped, Constants):
    """The most general linear map between regular fields that commutes with the group, at each position by itself.

    out[o, r] = bias[o] + sum_{c, s} f[c, s] weight[o, c, r^-1 s]

    Args:
        in_fields, out_fields: numbers of regular fields in, C, and out, O.
        group: a name, any `groups.Group`, whatever it acts on, or a `PlanarGroup`, which runs on those of p4 and p4m.
        bias: add one number per field.
        device, dtype: of the parameters.

    Input:  (B, C, |G|) or (B, C, |G|, *spatial)
    Output: (B, O, |G|) or (B, O, |G|, *spatial)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> GroupLinear(3, 4, group="Oh")(torch.zeros(2, 3, 48)).shape
    torch.Size([2, 4, 48])
    """

    bias: nn.Parameter | None
    between: Tensor
    cosets: Tensor
    places: Tensor

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        group: str | finite_groups.Group | PlanarGroup = "p4",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        resolved = any_group("GroupLinear", group)
        positive("GroupLinear", in_fields=in_fields, out_fields=out_fields)
        check_dtype("GroupLinear", dtype)
        self.group, self.order, self.group_name = key_of(resolved), resolved.order, resolved.name
        self.lattice = ""
        if isinstance(resolved, PlanarGroup):  # a field of it is fields of the lattice's subgroup, for which there are kernels
            self.lattice = resolved.lattice
            self.add_constant("between", resolved.between, device)
            self.add_constant("cosets", resolved.cosets, device)
            self.add_constant("places", resolved.cosets.argsort(axis=None), device)
        self.in_fields, self.out_fields = in_fields, out_fields
        self.weight = nn.Parameter(torch.empty((out_fields, in_fields, self.order), device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_fields, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation with fan_in = C |G|; the bias is 0.

        K. He et al., "Delving Deep into Rectifiers", 2015.
        """
        bound = math.sqrt(6 / (self.in_fields * self.order))
        with torch.no_grad():
            self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.lattice:
            check_field("GroupLinear", x, (self.in_fields, self.order), None, self.group_name)
            index = len(self.cosets)
            weight = self.weight.index_select(2, self.between.flatten()).unflatten(2, (index, index, -1))
            weight = weight.transpose(1, 2).reshape(self.out_fields * index, self.in_fields * index, -1)
            bias = None if self.bias is None else self.bias.repeat_interleave(index)
            y = ops.group_linear(to_lattice_fields(x, self.cosets), weight, bias, group=self.lattice)
            return from_lattice_fields(y, self.places, index)
        try:
            return ops.group_linear(x, parameter(self, "weight"), parameter(self, "bias"), group=self.group)
        except (TypeError, ValueError):  # only then, because it would be a good part of a short call
            check_field("GroupLinear", x, (self.in_fields, self.order), None, self.group_name)
            raise

    if TYPE_CHECKING:
        __call__ = forward

    def to_linear(self) -> nn.Linear:
        """The plain linear layer with the same function on flattened fields, (B, C |G|) -> (B, O |G|)."""
        linear = nn.Linear(
            self.in_fields * self.order,
            self.out_fields * self.order,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            linear.weight.copy_(self._planar_bank() if self.lattice else filter_bank(self.weight, group=self.group, field="linear"))
            if self.bias is not None:
                linear.bias.copy_(self.bias.repeat_interleave(self.order))
        return linear.train(self.training)

    def _planar_bank(self) -> Tensor:
        """The matrix (O |G|, C |G|): weight[o, c, r^-1 s] in row (o, r) and column (c, s)."""
        group = planar_group(self.group)
        sources = torch.from_numpy(group.multiply[group.inverse]).to(self.weight.device)
        return self.weight[:, :, sources].transpose(1, 2).flatten(2).flatten(0, 1)

    @classmethod
    def from_linear(cls, linear: nn.Linear, group: str | finite_groups.Group | PlanarGroup) -> GroupLinear:
        """The orthogonal projection (group average) of a linear layer on flattened regular fields onto the equivariant ones.

        Raises ValueError when its features are no multiple of |G|, TypeError when it is no linear layer.
        """
        resolved = any_group("GroupLinear.from_linear", group)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"GroupLinear.from_linear: linear must be an nn.Linear, got {type(linear).__name__}")
        check_initialised("GroupLinear.from_linear", "linear", linear)
        for name, features in (("in_features", linear.in_features), ("out_features", linear.out_features)):
            if features % resolved.order:
                raise ValueError(
                    f"GroupLinear.from_linear: linear.{name}={features} must be a multiple of |G|={resolved.order} to hold regular fields "
                    f"of {resolved.name}"
                )
        layer = cls(
            linear.in_features // resolved.order,
            linear.out_features // resolved.order,
            group=resolved,
            bias=linear.bias is not None,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        with torch.no_grad():
            if isinstance(resolved, PlanarGroup):  # the mean over r of the entries (o, r), (c, r u)
                entries = linear.weight.unflatten(0, (-1, resolved.order)).unflatten(2, (-1, resolved.order))
                columns = torch.from_numpy(resolved.multiply.copy()).to(linear.weight.device)
                layer.weight.copy_(torch.stack([entries[:, r][..., columns[r]] for r in range(resolved.order)]).mean(0))
            else:
                layer.weight.copy_(bank.project(linear.weight, layer.group, "linear"))
            if layer.bias is not None:
                layer.bias.copy_(linear.bias.reshape(-1, resolved.order).mean(dim=1))
        return layer.train(linear.training)

    def extra_repr(self) -> str:
        return f"{self.in_fields}, {self.out_fields}, group={self.group_name}" + ("" if self.bias is not None else ", bias=False")
