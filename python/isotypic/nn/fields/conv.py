"""Group convolutions: the counterparts of `nn.Conv2d` and `nn.Conv3d`, with the same settings by keyword."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import groups as finite_groups
from isotypic._words import Padding, PaddingMode
from isotypic.nn._arguments import (
    PADDING_MODES,
    check_channels,
    check_dtype,
    check_exchanged,
    check_field,
    check_initialised,
    check_reflect,
    check_support,
    check_wrapped,
    divisible,
    parameter,
    per_axis,
    positive,
    relabelled,
    resolve_group,
)
from isotypic.nn.fields import bank
from isotypic.nn.fields._group_key import Grouped
from isotypic.nn.fields._outside import check_outside, check_taps
from isotypic.ops.fields.bank import filter_bank
from isotypic.ops.fields.equivariance import Grid, check_equivariance
from isotypic.ops.fields.group_conv import convolution, kept_of_weight

Self = TypeVar("Self", bound="_Conv")


Plain = nn.Conv1d | nn.Conv2d | nn.Conv3d
PLAIN: tuple[type[Plain], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Conv(Grouped):
    """What the four convolutions share; `field` is the type of the input, "scalar" (lift) or "regular"."""

    dim: ClassVar[int]
    field: ClassVar[str]
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group,
        stride: int | Sequence[int],
        padding: int | Sequence[int] | Padding,
        dilation: int | Sequence[int],
        groups: int,
        bias: bool,
        padding_mode: PaddingMode,
        strict: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        resolved = resolve_group(owner, group, self.dim)
        in_name = "in_channels" if self.field == "scalar" else "in_fields"
        positive(owner, **{in_name: in_fields}, out_fields=out_fields, groups=groups)
        divisible(owner, groups, **{in_name: in_fields}, out_fields=out_fields)
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"{owner}: padding_mode must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")
        check_reflect(owner, resolved, padding_mode)
        self.kernel_size = per_axis(owner, "kernel_size", kernel_size, self.dim, 1)
        self.stride = per_axis(owner, "stride", stride, self.dim, 1)
        self.dilation = per_axis(owner, "dilation", dilation, self.dim, 1)
        check_exchanged(owner, resolved, stride=self.stride, dilation=self.dilation)
        check_support(owner, resolved, self.kernel_size)
        check_taps(owner, resolved, self.kernel_size, strict)
        check_dtype(owner, dtype)
        self.padding: tuple[int, ...] | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f'{owner}: padding must be "same", "valid", an integer or {self.dim} integers, got {padding!r}')
            if padding == "same" and any(entry != 1 for entry in self.stride):
                raise ValueError(f'{owner}: padding="same" needs stride 1, got stride {self.stride}')
            self.padding = padding
        else:
            self.padding = per_axis(owner, "padding", padding, self.dim, 0)
        self.group, self.order, self.group_name = resolved.key, resolved.order, resolved.name
        self.in_fields, self.out_fields, self.groups = in_fields, out_fields, groups
        self.padding_mode, self.strict = padding_mode, strict
        sources = (self.order,) if self.field == "regular" else ()
        shape = (out_fields, in_fields // groups, *sources, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_fields, device=device, dtype=dtype)) if bias else None
        padded = any(k > 1 for k in self.kernel_size) if padding == "same" else any(self.padding) if self.padding != "valid" else False
        self._reads_outside = padded and padding_mode == "zeros" and not resolved.preserves_axes
        self._blocks: object | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation over the taps that are used: variance 2 / fan_in on the G-invariant support, 0 outside it; the bias is 0.

        K. He et al., "Delving Deep into Rectifiers", 2015.
        """
        used = bank.support(self.group, self.kernel_size)
        sources = self.order if self.field == "regular" else 1
        fan_in = self.in_fields // self.groups * sources * bank.taps(self.group, self.kernel_size)
        bound = math.sqrt(6 / fan_in)
        with torch.no_grad():
            self.weight.uniform_(-bound, bound).mul_(used.to(self.weight.device))
            if self.bias is not None:
                self.bias.zero_()

    def _pad(self, x: Tensor) -> tuple[Tensor, tuple[int, ...] | str, bool | None]:
        """The input padded as `padding_mode` says, and the padding with zeros and the `strict` that are left to the operator.

        The operator sees the padded size alone, so that whether the sizes keep the equivariance is judged here.
        """
        if self.padding_mode == "zeros":
            return x, self.padding, self.strict
        self._check_input(x)
        lead = 3 if self.field == "regular" else 2
        if self.padding == "same":
            total = [dilation * (size - 1) for dilation, size in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(extent // 2, extent - extent // 2) for extent in total]
        else:
            sides = [(0, 0)] * self.dim if isinstance(self.padding, str) else [(extent, extent) for extent in self.padding]
        size = tuple(x.shape[lead:])
        if not torch.compiler.is_compiling():
            check_wrapped(type(self).__name__, self.padding_mode, sides, size)
        padding, end = tuple(first for first, _ in sides), tuple(last - first for first, last in sides)
        check_equivariance(
            type(self).__name__, Grid(self.group, self.kernel_size, self.stride, padding, self.dilation, end), size, self.strict
        )
        # F.pad takes (B, channels, *spatial), and the last axis first.
        padded = F.pad(x.flatten(1, lead - 1), [extent for pair in reversed(sides) for extent in pair], mode=self.padding_mode)
        return padded.reshape(*x.shape[:lead], *padded.shape[2:]), (0,) * self.dim, None

    def forward(self, x: Tensor) -> Tensor:
        if self._reads_outside:
            check_outside(self, x, self.dim, self.strict)
        try:
            padded, padding, strict = self._pad(x)
            settings = (self.group, self.field, self.stride, padding, self.dilation, self.groups, strict)
            return convolution(padded, parameter(self, "weight"), parameter(self, "bias"), settings, self._kept())
        except (TypeError, ValueError):  # only then, because it would be a good part of a short call
            self._check_input(x)
            raise

    if TYPE_CHECKING:
        __call__ = forward

    def _check_input(self, x: Tensor) -> None:
        sizes = (self.in_fields, self.order) if self.field == "regular" else (self.in_fields,)
        check_field(type(self).__name__, x, sizes, self.dim, self.group_name)

    def _kept(self) -> object | None:
        """What the kernel keeps of the weight, in eval."""
        if self.training or torch.compiler.is_dynamo_compiling():
            return None
        if self._blocks is None:
            self._blocks = kept_of_weight()
        return self._blocks

    def train(self: Self, mode: bool = True) -> Self:
        if mode:
            self._blocks = None  # it may be as large as the weight
        return super().train(mode)

    def to_conv(self) -> Plain:
        """The plain convolution with the same function on flattened fields, (B, C |G|, *spatial) -> (B, O |G|, *spatial).

        When lifting, its input is (B, C, *spatial). It has |G| times the parameters: its filter bank holds every filter in every position.
        """
        conv = PLAIN[self.dim - 1](
            self.in_fields * (self.order if self.field == "regular" else 1),
            self.out_fields * self.order,
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self.groups,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(filter_bank(self.weight, group=self.group, field=self.field))
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
        """An equivariant layer made from an ordinary convolution.

        By default the channels of `conv` are taken as flattened regular fields, as `to_conv` writes them (C |G| in, or C when lifting, and
        O |G| out), and its filter bank is projected orthogonally onto the equivariant banks: the nearest one in the least-squares sense,
        which is the average over the group. `from_conv(layer.to_conv(), group)` is `layer`.

        With `field_per_channel=True` each channel becomes a field: filter o is read at the identity, and channel (o, r) computes it
        turned by r. A whole network converted so maps an input f to its old values at r^-1 f, for every r at once (a symmetrised
        initialisation; the mean over r is the group average of the network). Taps outside the G-invariant support are dropped.

        Raises ValueError when the channels are no multiple of |G|, or the kernel is of another dimension.
        """
        owner = f"{cls.__name__}.from_conv"
        resolved = resolve_group(owner, group, cls.dim)
        if not isinstance(conv, PLAIN[cls.dim - 1]):
            raise TypeError(f"{owner}: conv must be an nn.Conv{cls.dim}d, got {type(conv).__name__}")
        check_initialised(owner, "conv", conv)
        in_order = 1 if field_per_channel or cls.field == "scalar" else resolved.order
        out_order = 1 if field_per_channel else resolved.order
        check_channels(owner, conv, resolved, in_order, out_order)
        try:
            layer = cls(
                conv.in_channels // in_order,
                conv.out_channels // out_order,
                conv.kernel_size,
                group=resolved,
                stride=conv.stride,
                padding=conv.padding,  # type: ignore[arg-type]
                dilation=conv.dilation,
                groups=conv.groups,
                bias=conv.bias is not None,
                padding_mode=conv.padding_mode,
                strict=strict,
                device=conv.weight.device,
                dtype=conv.weight.dtype,
            )
        except (TypeError, ValueError) as error:
            raise relabelled(error, cls.__name__, owner) from None
        with torch.no_grad():
            if not field_per_channel:
                layer.weight.copy_(bank.project(conv.weight, layer.group, cls.field))
            else:
                weight = conv.weight * bank.support(layer.group, layer.kernel_size).to(conv.weight.device)
                if cls.field == "regular":
                    layer.weight.zero_()[:, :, 0] = weight
                else:
                    layer.weight.copy_(weight)
            if layer.bias is not None and conv.bias is not None:
                layer.bias.copy_(conv.bias.reshape(-1, out_order).mean(dim=1))
        return layer.train(conv.training)

    def extra_repr(self) -> str:
        text = f"{self.in_fields}, {self.out_fields}, kernel_size={self.kernel_size}, group={self.group_name}, stride={self.stride}"
        if self.padding not in ("valid", (0,) * self.dim):
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dim:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text + (", strict=True" if self.strict else "")


class LiftConv2d(_Conv):
    """Lifting convolution: from a scalar field on the grid to regular fields of a group G.

    out[o, r](x) = bias[o] + sum_{c, y} f[c](y) weight[o, c](r^-1 (y - x))

    Args:
        in_channels: number of scalar fields (channels) in, C.
        out_fields: number of regular fields out, O.
        kernel_size: 2 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 2 axes.
        stride, dilation, groups, bias: as in `nn.Conv2d`; the bias is one number per field. `groups=in_fields` is depthwise.
        padding: an integer, 2 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, H, W)
    Output: (B, O, |G|, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> layer = LiftConv2d(3, 4, kernel_size=3, group="p4m", padding="same")
    >>> layer(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 4, 8, 9, 9])
    """

    dim = 2
    field = "scalar"

    def __init__(
        self,
        in_channels: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "p4",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_fields, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode, strict, device, dtype
        )


class GroupConv2d(_Conv):
    """Group convolution: from regular fields of a group G to regular fields.

    out[o, r](x) = bias[o] + sum_{c, s, y} f[c, s](y) weight[o, c, r^-1 s](r^-1 (y - x))

    Args:
        in_fields: number of regular fields in, C.
        out_fields: number of regular fields out, O.
        kernel_size: 2 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 2 axes.
        stride, dilation, groups, bias: as in `nn.Conv2d`; the bias is one number per field. `groups=in_fields` is depthwise.
        padding: an integer, 2 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, H, W)
    Output: (B, O, |G|, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> layer = GroupConv2d(3, 4, kernel_size=3, group="p4m", padding="same")
    >>> layer(torch.zeros(1, 3, 8, 9, 9)).shape
    torch.Size([1, 4, 8, 9, 9])
    """

    dim = 2
    field = "regular"

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "p4",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_fields, out_fields, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode, strict, device, dtype
        )


class LiftConv3d(_Conv):
    """Lifting convolution: from a scalar field on the grid to regular fields of a group G.

    out[o, r](x) = bias[o] + sum_{c, y} f[c](y) weight[o, c](r^-1 (y - x))

    Args:
        in_channels: number of scalar fields (channels) in, C.
        out_fields: number of regular fields out, O.
        kernel_size: 3 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 3 axes.
        stride, dilation, groups, bias: as in `nn.Conv3d`; the bias is one number per field. `groups=in_fields` is depthwise.
        padding: an integer, 3 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, D, H, W)
    Output: (B, O, |G|, D, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016; D. Worrall and G. Brostow, "CubeNet", 2018.

    >>> layer = LiftConv3d(3, 4, kernel_size=3, group="O", padding="same")
    >>> layer(torch.zeros(1, 3, 5, 5, 5)).shape
    torch.Size([1, 4, 24, 5, 5, 5])
    """

    dim = 3
    field = "scalar"

    def __init__(
        self,
        in_channels: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "O",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_fields, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode, strict, device, dtype
        )


class GroupConv3d(_Conv):
    """Group convolution: from regular fields of a group G to regular fields.

    out[o, r](x) = bias[o] + sum_{c, s, y} f[c, s](y) weight[o, c, r^-1 s](r^-1 (y - x))

    Args:
        in_fields: number of regular fields in, C.
        out_fields: number of regular fields out, O.
        kernel_size: 3 integers or one, odd or even. Taps outside the largest G-invariant support of the box are 0.
        group: a name or a `groups.Group` acting on 3 axes.
        stride, dilation, groups, bias: as in `nn.Conv3d`; the bias is one number per field. `groups=in_fields` is depthwise.
        padding: an integer, 3 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, D, H, W)
    Output: (B, O, |G|, D, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016; D. Worrall and G. Brostow, "CubeNet", 2018.

    >>> layer = GroupConv3d(3, 4, kernel_size=3, group="O", padding="same")
    >>> layer(torch.zeros(1, 3, 24, 5, 5, 5)).shape
    torch.Size([1, 4, 24, 5, 5, 5])
    """

    dim = 3
    field = "regular"

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group = "O",
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_fields, out_fields, kernel_size, group, stride, padding, dilation, groups, bias, padding_mode, strict, device, dtype
        )
