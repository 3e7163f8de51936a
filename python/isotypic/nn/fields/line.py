"""Layers of fields on a line, for its reflection: the same as on the plane, with one spatial axis.

The groups are `groups.generate([[[-1]]])`, of two elements, and the trivial one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic._words import Padding, PaddingMode
from isotypic.nn.fields.conv import _Conv
from isotypic.nn.fields.conv_transpose import _ConvTranspose
from isotypic.nn.fields.spatial_pool import _WindowPool
from isotypic.ops.fields.max_pool import max_pool


class LiftConv1d(_Conv):
    """Lifting convolution on a line: from scalar fields to regular fields of a group G.

    out[o, r](x) = bias[o] + sum_{c, y} f[c](y) weight[o, c](r^-1 (y - x))

    Args:
        in_channels: number of scalar fields (channels) in, C.
        out_fields: number of regular fields out, O.
        kernel_size: an integer, odd or even.
        group: a `groups.Group` acting on 1 axis, or its key: `groups.generate([[[-1]]])`.
        stride, dilation, groups, bias: as in `nn.Conv1d`; the bias is one number per field. `groups=in_channels` is depthwise.
        padding: an integer, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, L)
    Output: (B, O, |G|, L)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> mirror = iso.groups.generate([[[-1]]])
    >>> LiftConv1d(3, 4, kernel_size=5, group=mirror, padding=2)(torch.zeros(1, 3, 9)).shape
    torch.Size([1, 4, 2, 9])
    """

    dim = 1
    field = "scalar"

    def __init__(
        self,
        in_channels: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group,
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


class GroupConv1d(_Conv):
    """Group convolution on a line: from regular fields of a group G to regular fields.

    out[o, r](x) = bias[o] + sum_{c, s, y} f[c, s](y) weight[o, c, r^-1 s](r^-1 (y - x))

    Args:
        in_fields: number of regular fields in, C.
        out_fields: number of regular fields out, O.
        kernel_size: an integer, odd or even.
        group: a `groups.Group` acting on 1 axis, or its key: `groups.generate([[[-1]]])`.
        stride, dilation, groups, bias: as in `nn.Conv1d`; the bias is one number per field. `groups=in_fields` is depthwise.
        padding: an integer, "same" or "valid"; padding_mode: "zeros", "circular", "reflect" or "replicate".
        strict: raise where the size of the input and the stride break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, L)
    Output: (B, O, |G|, L)
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> mirror = iso.groups.generate([[[-1]]])
    >>> GroupConv1d(3, 4, kernel_size=3, group=mirror, padding="same")(torch.zeros(1, 3, 2, 9)).shape
    torch.Size([1, 4, 2, 9])
    """

    dim = 1
    field = "regular"

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group,
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


class GroupConvTranspose1d(_ConvTranspose):
    """Transposed group convolution on a line: the adjoint in its input of a `GroupConv1d` from O to C fields, plus a bias.

    out[o, s](y) = bias[o] + sum_{c, r, x} f[c, r](x) weight[c, o, r^-1 s](r^-1 (y - stride x))

    Args:
        in_fields, out_fields: numbers of regular fields in, C, and out, O.
        kernel_size: an integer, odd or even.
        group: a `groups.Group` acting on 1 axis, or its key: `groups.generate([[[-1]]])`.
        stride, padding, groups, bias, dilation: as in `nn.ConvTranspose1d`; the bias is one number per field.
        output_padding: as in `nn.ConvTranspose1d`; other than 0 it moves the centre of the output, which breaks equivariance.
        strict: raise where the arguments break equivariance, instead of a warning.
        device, dtype: of the parameters.

    Input:  (B, C, |G|, L)
    Output: (B, O, |G|, L'), L' = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> mirror = iso.groups.generate([[[-1]]])
    >>> GroupConvTranspose1d(3, 2, kernel_size=2, group=mirror, stride=2)(torch.zeros(1, 3, 2, 5)).shape
    torch.Size([1, 2, 2, 10])
    """

    dim = 1

    def __init__(
        self,
        in_fields: int,
        out_fields: int,
        kernel_size: int | Sequence[int],
        group: str | finite_groups.Group,
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


class GroupMaxPool1d(_WindowPool):
    """The maximum over windows of positions on a line, for every group element by itself.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the line; other sizes warn.

    Args:
        kernel_size: size of the window. stride: its step, kernel_size by default.
        padding: as in `nn.MaxPool1d`.
        group: a `groups.Group` acting on 1 axis, or its key: `groups.generate([[[-1]]])`.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, L) or (B, C, L)
    Output: the same with size (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupMaxPool1d(2, group=iso.groups.generate([[[-1]]]))(torch.zeros(1, 2, 2, 4)).shape
    torch.Size([1, 2, 2, 2])
    """

    dim = 1

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        group: str | finite_groups.Group,
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        return max_pool(x, self.window, self.stride, self.padding)


class GroupAvgPool1d(_WindowPool):
    """The mean over windows of positions on a line, for every group element by itself.

    Exact when the stride divides size + 2 padding - kernel_size, so that the windows keep the centre of the line; other sizes warn.

    Args:
        kernel_size: size of the window. stride: its step, kernel_size by default.
        padding: as in `nn.AvgPool1d`, zeros that count in the mean.
        group: a `groups.Group` acting on 1 axis, or its key: `groups.generate([[[-1]]])`.
        strict: raise where the size and the stride break equivariance, instead of a warning.

    Input:  (B, C, |G|, L) or (B, C, L)
    Output: the same with size (size + 2 padding - kernel_size) // stride + 1
    Raises ValueError for arguments that fit no layer, and for inputs of another shape.

    >>> GroupAvgPool1d(2, group=iso.groups.generate([[[-1]]]))(torch.zeros(1, 2, 2, 4)).shape
    torch.Size([1, 2, 2, 2])
    """

    dim = 1

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        group: str | finite_groups.Group,
        strict: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, group, strict)

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(x, self.window, self.stride, self.padding)
