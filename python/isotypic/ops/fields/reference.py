"""The plain twin of the kernels: the expanded filter bank and torch's own convolution, differentiable, for tests and reading."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic.ops.fields.bank import filter_bank

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def group_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    group: str,
    field: str = "regular",
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """What ``isotypic.ops.fields.group_conv`` (and ``lift_conv`` with ``field="scalar"``) computes, by the dense bank."""
    if weight.shape[1] == 0:  # torch gives no output fields without input fields; a field of zeros changes nothing
        x = torch.cat([x, x.new_zeros(x.shape[0], groups, *x.shape[2:])], 1)
        weight = torch.cat([weight, weight.new_zeros(weight.shape[0], 1, *weight.shape[2:])], 1)
    bank = filter_bank(weight, group=group, field=field)
    order = bank.shape[0] // weight.shape[0]
    flat = x if field == "scalar" else x.flatten(1, 2)
    convolve = CONVOLUTIONS[bank.dim() - 2]
    expanded_bias = None if bias is None else bias.repeat_interleave(order)
    y = convolve(flat, bank, expanded_bias, stride, padding, dilation, groups)
    return y.unflatten(1, (weight.shape[0], order))


def group_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, group: str) -> Tensor:
    """What ``isotypic.ops.fields.group_linear`` computes, by one dense matrix."""
    bank = filter_bank(weight, group=group, field="linear")
    y = torch.einsum("oc,bc...->bo...", bank, x.flatten(1, 2)).unflatten(1, (weight.shape[0], x.shape[2]))
    return y if bias is None else y + bias.reshape(1, -1, 1, *(1,) * (x.dim() - 3))


def max_pool(x: Tensor, kernel_size: Sequence[int], stride: Sequence[int] | None = None, padding: Sequence[int] | None = None) -> Tensor:
    """What ``isotypic.ops.max_pool`` computes, by a copy of the values of each window: of equal ones the first is taken."""
    axes = len(kernel_size)
    step, pad = stride or kernel_size, padding or (0,) * axes
    windows = F.pad(x, [extent for extent in reversed(pad) for _ in range(2)], value=-torch.inf)
    for axis, (size, by) in enumerate(zip(kernel_size, step, strict=True)):
        windows = windows.unfold(x.dim() - axes + axis, size, by)
    return windows.flatten(-axes).max(-1).values
