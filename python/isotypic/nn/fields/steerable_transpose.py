"""Transposed convolutions of regular fields of C_N and D_N, N = 4, 8, 12, 16, ..., by band-limited steerable filters."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isotypic import ops
from isotypic.groups.planar import PlanarGroup, planar_group
from isotypic.nn._arguments import check_dtype, check_field, divisible, positive, relabelled
from isotypic.nn.fields._lattice_fields import from_lattice_fields, to_lattice_fields
from isotypic.nn.fields._steerable import Steerable, check_plain
from isotypic.nn.fields.conv_transpose import GroupConvTranspose2d


class SteerableConvTranspose2d(Steerable):
    """Transposed steerable convolution: the adjoint in its input of a `SteerableConv2d` from O to C fields, plus a bias.

    out[o, s](y) = bias[o] + sum_{c, r, x} f[c, r](x) psi[c, o, r^-1 s](r^-1 (y - stride x))
    psi[c, o, u](y) = sum_n coefficients[c, o, u, n] b_n(y)

    The functions b_n and what is exact are those of `SteerableConv2d`: quarter turns (and reflections) of the lattice exactly, the whole
    group up to the sampling.

    Args:
        in_fields: number of regular fields in, C.
        out_fields: number of regular fields out, O.
        kernel_size: one integer, odd or even.
        group: "C8", "D8", "C16", ... or a `PlanarGroup`.
        stride, dilation: integers; padding, groups, bias: as in `nn.ConvTranspose2d`; the bias is one number per field.
        output_padding: as in `nn.ConvTranspose2d`; other than 0 it moves the centre of the output, which breaks equivariance.
        strict: raise where the arguments break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, H, W)
    Output: (B, O, |G|, H', W'), each size (size - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    M. Weiler and G. Cesa, "General E(2)-Equivariant Steerable CNNs", 2019.

    >>> layer = SteerableConvTranspose2d(3, 2, kernel_size=3, group="C8", stride=2, padding=1)
    >>> layer(torch.zeros(1, 3, 8, 5, 5)).shape
    torch.Size([1, 2, 8, 9, 9])
    """

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int,
        group: str | PlanarGroup = "C8",
        stride: int = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int = 1,
        strict: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        owner = type(self).__name__
        planar = planar_group(group)
        positive(owner, in_fields=in_fields, out_fields=out_fields, kernel_size=kernel_size, groups=groups)
        divisible(owner, groups, in_fields=in_fields, out_fields=out_fields)
        positive(owner, stride=stride, dilation=dilation)
        check_dtype(owner, dtype)
        super().__init__(planar, kernel_size, (in_fields, out_fields // groups), False, out_fields if bias else 0, device, dtype)
        self.in_fields, self.out_fields, self.groups, self.stride = in_fields, out_fields, groups, stride
        # The convolution that runs. It checks, and holds no weight: that is an expression of the coefficients.
        self.blocks = GroupConvTranspose2d(
            in_fields * planar.index,
            out_fields * planar.index,
            kernel_size,
            group=planar.lattice,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=False,
            dilation=dilation,
            strict=strict,
            device="meta",
        )
        self.blocks.weight = None  # type: ignore[assignment]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation generalised to coefficients, over the taps that reach an output; the bias is 0.

        K. He et al., "Delving Deep into Rectifiers", 2015; M. Weiler, F. A. Hamprecht and M. Storath, 2018.
        """
        self._initialise(self.in_fields // self.groups * math.prod(self.coefficients.shape[2:]) / self.stride**2)

    def forward(self, y: Tensor) -> Tensor:
        check_field(type(self).__name__, y, (self.in_fields, self.order), 2, self.group)
        blocks = self.blocks
        x = ops.group_conv_transpose(
            to_lattice_fields(y, self.cosets),
            self.lattice_weight(),
            self._lattice_bias(),
            group=blocks.group,
            stride=blocks.stride,
            padding=blocks.padding,
            output_padding=blocks.output_padding,
            dilation=blocks.dilation,
            groups=self.groups,
            strict=blocks.strict,
        )
        return from_lattice_fields(x, self.places, self.cosets.shape[0])

    if TYPE_CHECKING:
        __call__ = forward

    def to_conv(self) -> nn.ConvTranspose2d:
        """The plain transposed convolution with the same function on flattened fields, (B, C |G|, H, W) -> (B, O |G|, H', W')."""
        conv = self._lattice_layer(copy.deepcopy(self.blocks))
        assert isinstance(conv, nn.ConvTranspose2d)
        return conv

    @classmethod
    def from_conv(cls, conv: nn.ConvTranspose2d, group: str | PlanarGroup, *, strict: bool = False) -> SteerableConvTranspose2d:
        """The steerable layer nearest to an ordinary transposed convolution of flattened fields, with channels as `to_conv` writes them.

        Its filter bank is projected orthogonally onto the banks of the layer, so that `from_conv(layer.to_conv(), group)` is `layer`.

        Raises ValueError when the channels are no multiple of |G|, and when the kernel, stride or dilation are not the same on both axes.
        """
        owner = f"{cls.__name__}.from_conv"
        planar = planar_group(group)
        check_plain(owner, conv, nn.ConvTranspose2d, planar, False)
        try:
            layer = cls(
                conv.in_channels // planar.order,
                conv.out_channels // planar.order,
                conv.kernel_size[0],
                group=planar,
                stride=conv.stride[0],
                padding=conv.padding,  # type: ignore[arg-type]
                output_padding=conv.output_padding,
                groups=conv.groups,
                bias=conv.bias is not None,
                dilation=conv.dilation[0],
                strict=strict,
                device=conv.weight.device,
                dtype=conv.weight.dtype,
            )
        except (TypeError, ValueError) as error:
            raise relabelled(error, cls.__name__, owner) from None
        layer._project(conv.weight, conv.bias, planar)
        return layer.train(conv.training)
