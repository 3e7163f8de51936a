"""Convolutions of regular fields of C_N and D_N, N = 4, 8, 12, 16, ..., by band-limited steerable filters."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from isotypic._words import Padding, PaddingMode
from isotypic.groups.planar import PlanarGroup, planar_group
from isotypic.nn._arguments import check_dtype, check_field, divisible, positive, relabelled
from isotypic.nn.fields._lattice_fields import from_lattice_fields, to_lattice_fields
from isotypic.nn.fields._steerable import Steerable, check_plain
from isotypic.nn.fields.conv import GroupConv2d, LiftConv2d
from isotypic.ops.fields.group_conv import convolution

Self = TypeVar("Self", bound="_SteerableConv2d")


class _SteerableConv2d(Steerable):
    """What both convolutions share; `field` is the type of the input, "scalar" (lift) or "regular"."""

    field: ClassVar[str]

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int,
        group: str | PlanarGroup,
        stride: int,
        padding: int | Sequence[int] | Padding,
        dilation: int,
        groups: int,
        bias: bool,
        padding_mode: PaddingMode,
        strict: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        owner = type(self).__name__
        planar = planar_group(group)
        regular = self.field == "regular"
        in_name = "in_fields" if regular else "in_channels"
        positive(owner, **{in_name: in_fields}, out_fields=out_fields, kernel_size=kernel_size, groups=groups)
        divisible(owner, groups, **{in_name: in_fields}, out_fields=out_fields)
        positive(owner, stride=stride, dilation=dilation)
        check_dtype(owner, dtype)
        super().__init__(planar, kernel_size, (out_fields, in_fields // groups), not regular, out_fields if bias else 0, device, dtype)
        self.in_fields, self.out_fields, self.groups = in_fields, out_fields, groups

        # The convolution that runs. It checks and pads, and holds no weight: that is an expression of the coefficients.
        self.blocks = (GroupConv2d if regular else LiftConv2d)(
            in_fields * (planar.index if regular else 1),
            out_fields * planar.index,
            kernel_size,
            group=planar.lattice,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=False,
            padding_mode=padding_mode,
            strict=strict,
            device="meta",
        )
        self.blocks.weight = None  # type: ignore[assignment]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation generalised to coefficients: the samples of a filter have variance 2 / fan_in in the mean; the bias is 0.

        K. He et al., "Delving Deep into Rectifiers", 2015; M. Weiler, F. A. Hamprecht and M. Storath, 2018.
        """
        self._initialise(math.prod(self.coefficients.shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        regular = self.field == "regular"
        check_field(type(self).__name__, x, (self.in_fields, self.order) if regular else (self.in_fields,), 2, self.group)
        blocks = self.blocks
        x, padding, strict = blocks._pad(to_lattice_fields(x, self.cosets) if regular else x)
        settings = (blocks.group, blocks.field, blocks.stride, padding, blocks.dilation, self.groups, strict)
        y = convolution(x, self.lattice_weight(), self._lattice_bias(), settings, blocks._kept())
        return from_lattice_fields(y, self.places, self.cosets.shape[0])

    if TYPE_CHECKING:
        __call__ = forward

    def to_conv(self) -> nn.Conv2d:
        """The plain convolution with the same function on flattened fields, (B, C |G|, H, W) -> (B, O |G|, H, W), or from (B, C, H, W)."""
        conv = self._lattice_layer(copy.deepcopy(self.blocks))
        assert isinstance(conv, nn.Conv2d)
        return conv

    @classmethod
    def from_conv(cls: type[Self], conv: nn.Conv2d, group: str | PlanarGroup, *, strict: bool = False) -> Self:
        """The steerable layer nearest to an ordinary convolution of flattened fields, with channels as `to_conv` writes them.

        Its filter bank is projected orthogonally onto the banks of the layer, so that `from_conv(layer.to_conv(), group)` is `layer`.

        Raises ValueError when the channels are no multiple of |G|, and when the kernel, stride or dilation are not the same on both axes.
        """
        owner = f"{cls.__name__}.from_conv"
        planar = planar_group(group)
        check_plain(owner, conv, nn.Conv2d, planar, cls.field == "scalar")
        in_order = planar.order if cls.field == "regular" else 1
        try:
            layer = cls(
                conv.in_channels // in_order,
                conv.out_channels // planar.order,
                conv.kernel_size[0],
                group=planar,
                stride=conv.stride[0],
                padding=conv.padding,  # type: ignore[arg-type]
                dilation=conv.dilation[0],
                groups=conv.groups,
                bias=conv.bias is not None,
                padding_mode=conv.padding_mode,
                strict=strict,
                device=conv.weight.device,
                dtype=conv.weight.dtype,
            )
        except (TypeError, ValueError) as error:
            raise relabelled(error, cls.__name__, owner) from None
        layer._project(conv.weight, conv.bias, planar)
        return layer.train(conv.training)


class SteerableLiftConv2d(_SteerableConv2d):
    """Lifting convolution with band-limited steerable filters: from a scalar field to regular fields of C_N or D_N.

    out[o, r](x) = bias[o] + sum_{c, t} f[c](x + t) psi[o, c](r^-1 t)
    psi[o, c](y) = sum_n coefficients[o, c, n] b_n(y)

    b_n are the circular harmonics on Gaussian rings of `SteerableConv2d`, to which all that is said there applies.

    Args:
        in_channels: number of scalar fields (channels) in, C.
        out_fields: number of regular fields out, O.
        kernel_size: one integer, odd or even.
        group: "C8", "D8", "C16", ... or a `PlanarGroup`.
        stride, dilation: integers; groups, bias: as in `nn.Conv2d`; the bias is one number per field.
        padding: an integer, 2 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, H, W)
    Output: (B, O, |G|, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    M. Weiler, F. A. Hamprecht and M. Storath, "Learning Steerable Filters for Rotation Equivariant CNNs", 2018.

    >>> layer = SteerableLiftConv2d(3, 4, kernel_size=5, group="C8", padding="same")
    >>> layer(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 4, 8, 9, 9])
    """

    field = "scalar"

    def __init__(
        self,
        in_channels: int,
        out_fields: int,
        kernel_size: int,
        group: str | PlanarGroup = "C8",
        stride: int = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int = 1,
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


class SteerableConv2d(_SteerableConv2d):
    """Group convolution with band-limited steerable filters: from regular fields of C_N or D_N to regular fields, on square pixels.

    out[o, r](x) = bias[o] + sum_{c, s, t} f[c, s](x + t) psi[o, c, r^-1 s](r^-1 t)
    psi[o, c, u](y) = sum_n coefficients[o, c, u, n] b_n(y)

    t runs over the taps; r^-1 t lies between them when r is no symmetry of the lattice, and the filters are sampled there. b_n are circular
    harmonics on Gaussian rings about the centre of the kernel, with frequencies up to what a ring of pixels can hold. The layer is exactly
    equivariant under the quarter turns (and reflections) of the lattice, and under the whole group up to the sampling, for band-limited
    input.

    It runs on the kernels of p4 (C_N) and p4m (D_N): a regular field of C_8 is two of p4. Elements are ordered as in `PlanarGroup`:
    rotations by k 2 pi / N, then reflections, identity first.

    Args:
        in_fields: number of regular fields in, C.
        out_fields: number of regular fields out, O.
        kernel_size: one integer, odd or even; 5 and more resolve rotations of less than 90 degrees well.
        group: "C8", "D8", "C12", "C16", ... or a `PlanarGroup`.
        stride, dilation: integers; groups, bias: as in `nn.Conv2d`; the bias is one number per field.
        padding: an integer, 2 integers, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, H, W)
    Output: (B, O, |G|, H, W)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    M. Weiler, F. A. Hamprecht and M. Storath, "Learning Steerable Filters for Rotation Equivariant CNNs", 2018;
    M. Weiler and G. Cesa, "General E(2)-Equivariant Steerable CNNs", 2019.

    >>> layer = SteerableConv2d(3, 4, kernel_size=5, group="D8", padding="same")
    >>> layer(torch.zeros(1, 3, 16, 9, 9)).shape
    torch.Size([1, 4, 16, 9, 9])
    """

    field = "regular"

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int,
        group: str | PlanarGroup = "C8",
        stride: int = 1,
        padding: int | Sequence[int] | Padding = 0,
        dilation: int = 1,
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
