"""The operators on fields in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from isotypic.ops.fields import reference
from isotypic.ops.fields.bank import filter_bank


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: str,
    field: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    if field == "linear":
        return reference.group_linear(x, weight, bias, group=group)
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return reference.group_conv(x, weight, bias, group=group, field=field, **settings)


def _transposed(
    y: Tensor,
    weight: Tensor,
    group: str,
    field: str,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    input_size: Sequence[int],
) -> Tensor:
    bank = filter_bank(weight, group=group, field=field)
    kernel, size = bank.shape[2:], y.shape[3:]
    smallest = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in zip(size, stride, padding, dilation, kernel, strict=True)]
    extra = [wanted - least for wanted, least in zip(input_size, smallest, strict=True)]
    convolve: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(kernel) - 1]
    x: Tensor = convolve(y.flatten(1, 2), bank, None, stride, padding, extra, groups, dilation)
    return x if field == "scalar" else x.unflatten(1, (-1, y.shape[2]))


def _max_pool(
    x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    y, index = F.max_pool3d(x.movedim(4, 1), tuple(window), tuple(stride), tuple(padding), return_indices=True)
    return y.movedim(1, 4), index.movedim(1, 4).int()


PLAIN: dict[str, Callable[..., Any]] = {"group_conv": _convolution, "group_conv_transpose": _transposed, "max_pool": _max_pool}
