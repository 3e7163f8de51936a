"""Transposed group convolutions: the counterparts of `nn.ConvTranspose2d` and `nn.ConvTranspose3d`, with the same settings by keyword."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic import ops
from isotypic.nn._arguments import (
    check_channels,
    check_dtype,
    check_exchanged,
    check_field,
    check_initialised,
    check_support,
    divisible,
    per_axis,
    positive,
    relabelled,
    resolve_group,
)
from isotypic.nn.fields import bank
from isotypic.nn.fields._group_key import Grouped
from isotypic.nn.fields._outside import check_outside, check_taps
from isotypic.ops.fields.bank import filter_bank

Self = TypeVar("Self", bound="_ConvTranspose")


Plain = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
PLAIN: tuple[type[Plain], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _ConvTranspose(Grouped):
    """What transposed convolutions share."""

    dim: ClassVar[int]
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group,
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        output_padding: int | Sequence[int],
        groups: int,
        bias: bool,
        dilation: int | Sequence[int],
        strict: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        resolved = resolve_group(owner, group, self.dim)
        positive(owner, in_fields=in_fields, out_fields=out_fields, groups=groups)
        divisible(owner, groups, in_fields=in_fields, out_fields=out_fields)
        self.kernel_size = per_axis(owner, "kernel_size", kernel_size, self.dim, 1)
        self.stride = per_axis(owner, "stride", stride, self.dim, 1)
        self.padding = per_axis(owner, "padding", padding, self.dim, 0)
        self.output_padding = per_axis(owner, "output_padding", output_padding, self.dim, 0)
        self.dilation = per_axis(owner, "dilation", dilation, self.dim, 1)
        check_exchanged(owner, resolved, stride=self.stride, dilation=self.dilation)
        check_support(owner, resolved, self.kernel_size)
        check_taps(owner, resolved, self.kernel_size, strict)
        check_dtype(owner, dtype)
        self.group, self.order, self.group_name = resolved.key, resolved.order, resolved.name
        self.in_fields, self.out_fields, self.groups, self.strict = in_fields, out_fields, groups, strict
        shape = (in_fields, out_fields // groups, self.order, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_fields, device=device, dtype=dtype)) if bias else None
        self._reads_outside = any(self.padding) and not resolved.preserves_axes
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation over the taps that reach an output: there are fan_in = C |G| |S| / stride^n of them; the bias is 0.

        K. He et al., "Delving Deep into Rectifiers", 2015.
        """
        used = bank.support(self.group, self.kernel_size)
        fan_in = self.in_fields // self.groups * self.order * bank.taps(self.group, self.kernel_size) / math.prod(self.stride)
        bound = math.sqrt(6 / fan_in)
        with torch.no_grad():
            self.weight.uniform_(-bound, bound).mul_(used.to(self.weight.device))
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, y: Tensor) -> Tensor:
        check_field(type(self).__name__, y, (self.in_fields, self.order), self.dim, self.group_name)
        if self._reads_outside:
            check_outside(self, y, self.dim, self.strict)
        return ops.group_conv_transpose(
            y,
            self.weight,
            self.bias,
            group=self.group,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            strict=self.strict,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def to_conv(self) -> Plain:
        """The plain transposed convolution with the same function on flattened fields, (B, C |G|, *spatial) -> (B, O |G|, *spatial)."""
        conv = PLAIN[self.dim - 1](
            self.in_fields * self.order,
            self.out_fields * self.order,
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            output_padding=self.output_padding,  # type: ignore[arg-type]
            groups=self.groups,
            bias=self.bias is not None,
            dilation=self.dilation,  # type: ignore[arg-type]
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(filter_bank(self.weight, group=self.group))
            if self.bias is not None and conv.bias is not None:
                conv.bias.copy_(self.bias.repeat_interleave(self.order))
        return conv.train(self.training)

    @classmethod
    def from_conv(
        cls: type[Self],
        conv: Plain,
        group: str | finite_groups.Group,
        *,
        field_per_channel: bool = False,
        strict: bool = False,
    ) -> Self:
        """An equivariant layer made from an ordinary transposed convolution, as `GroupConv2d.from_conv` makes one of a convolution.

        By default the channels are flattened regular fields, and the filter bank is projected orthogonally: `from_conv(layer.to_conv(),
        group)` is `layer`. With `field_per_channel=True` each channel becomes a field, and channel (o, s) computes filter o turned by s.

        Raises ValueError when the channels are no multiple of |G|, TypeError when it is no transposed convolution of this dimension.
        """
        owner = f"{cls.__name__}.from_conv"
        resolved = resolve_group(owner, group, cls.dim)
        if not isinstance(conv, PLAIN[cls.dim - 1]):
            raise TypeError(f"{owner}: conv must be an nn.ConvTranspose{cls.dim}d, got {type(conv).__name__}")
        check_initialised(owner, "conv", conv)
        order = 1 if field_per_channel else resolved.order
        check_channels(owner, conv, resolved, order, order)
        try:
            layer = cls(
                conv.in_channels // order,
                conv.out_channels // order,
                conv.kernel_size,
                group=resolved,
                stride=conv.stride,
                padding=conv.padding,  # type: ignore[arg-type]
                output_padding=conv.output_padding,
                groups=conv.groups,
                bias=conv.bias is not None,
                dilation=conv.dilation,
                strict=strict,
                device=conv.weight.device,
                dtype=conv.weight.dtype,
            )
        except (TypeError, ValueError) as error:
            raise relabelled(error, cls.__name__, owner) from None
        with torch.no_grad():
            if field_per_channel:
                layer.weight.zero_()[:, :, 0] = conv.weight * bank.support(layer.group, layer.kernel_size).to(conv.weight.device)
            else:
                layer.weight.copy_(bank.project(conv.weight, layer.group, "regular"))
            if layer.bias is not None and conv.bias is not None:
                layer.bias.copy_(conv.bias.reshape(-1, order).mean(dim=1))
        return layer.train(conv.training)

    def extra_repr(self) -> str:
        text = f"{self.in_fields}, {self.out_fields}, kernel_size={self.kernel_size}, group={self.group_name}, stride={self.stride}"
        for name, default in (("padding", 0), ("output_padding", 0), ("dilation", 1)):
            if getattr(self, name) != (default,) * self.dim:
                text += f", {name}={getattr(self, name)}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text + (", strict=True" if self.strict else "")


class GroupConvTranspose2d(_ConvTranspose):
    """Transposed group convolution: the adjoint in its input of a `GroupConv2d` from O to C fields, plus a bias.

    out[o, s](y) = bias[o] + sum_{c, r, x} f[c, r](x) weight[c, o, r^-1 s](r^-1 (y - stride x))

    Args:
        in_fields, out_fields: numbers of regular fields in, C, and out, O.
        kernel_size: 2 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 2 axes.
        stride, padding, groups, bias, dilation: as in `nn.ConvTranspose2d`; the bias is one number per field.
        output_padding: as in `nn.ConvTranspose2d`; other than 0 it moves the centre of the output, which breaks equivariance.
        strict: raise where the arguments break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, H, W)
    Output: (B, O, |G|, H', W'), each size (size - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> layer = GroupConvTranspose2d(3, 2, kernel_size=3, group="p4", stride=2, padding=1)
    >>> layer(torch.zeros(1, 3, 4, 5, 5)).shape
    torch.Size([1, 2, 4, 9, 9])
    """

    dim = 2

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "p4",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_fields, out_fields, kernel_size, group, stride, padding, output_padding, groups, bias, dilation, strict, device, dtype
        )


class GroupConvTranspose3d(_ConvTranspose):
    """Transposed group convolution: the adjoint in its input of a `GroupConv3d` from O to C fields, plus a bias.

    out[o, s](y) = bias[o] + sum_{c, r, x} f[c, r](x) weight[c, o, r^-1 s](r^-1 (y - stride x))

    Args:
        in_fields, out_fields: numbers of regular fields in, C, and out, O.
        kernel_size: 3 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 3 axes.
        stride, padding, groups, bias, dilation: as in `nn.ConvTranspose3d`; the bias is one number per field.
        output_padding: as in `nn.ConvTranspose3d`; other than 0 it moves the centre of the output, which breaks equivariance.
        strict: raise where the arguments break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, D, H, W)
    Output: (B, O, |G|, D', H', W'), each size (size - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> layer = GroupConvTranspose3d(3, 2, kernel_size=3, group="O", stride=2, padding=1)
    >>> layer(torch.zeros(1, 3, 24, 3, 3, 3)).shape
    torch.Size([1, 2, 24, 5, 5, 5])
    """

    dim = 3

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "O",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_fields, out_fields, kernel_size, group, stride, padding, output_padding, groups, bias, dilation, strict, device, dtype
        )
