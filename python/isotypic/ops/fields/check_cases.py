"""Cases of ``python -m isotypic check``: group convolutions, by the dense convolution with the bank of moved filters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from isotypic import groups, ops
from isotypic._check_case import CheckCase, random_tensor
from isotypic._testing.fields import equivariance_error
from isotypic.ops.fields.bank import filter_bank

GROUPS = ("p4", "p4m", "pmm", "p6", "p6m", "O", "Oh")


def cases() -> list[CheckCase]:
    return [case for name in GROUPS for case in cases_of_group(name)]


def cases_of_group(name: str) -> list[CheckCase]:
    group = groups.get(name)
    size = (9, 9) if group.dim == 2 else (5,) * group.dim
    convolution = (F.conv1d, F.conv2d, F.conv3d)[group.dim - 1]

    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return ops.group_conv(x, weight, bias, group=group.key, padding=1)

    def dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        filters = filter_bank(weight, group=group.key)
        return convolution(x.flatten(1, 2), filters, bias.repeat_interleave(group.order), padding=1).unflatten(1, (-1, group.order))

    def asymmetry(x: Tensor, weight: Tensor, bias: Tensor) -> float:
        return equivariance_error(lambda field: kernel(field, weight, None), group, x)

    inputs = random_tensor(2, 3, group.order, *size), random_tensor(4, 3, group.order, *(3,) * group.dim), random_tensor(4)
    return [CheckCase(f"group_conv {name}", inputs, kernel, dense, asymmetry)]
