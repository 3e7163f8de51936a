"""The projection of a dense filter bank onto the equivariant ones, the inverse of the expansion `ops.fields.bank.filter_bank`.

In the expansion bank[o, r, c, s](t) = psi[o, c, r^-1 s](r^-1 t) each entry of psi occurs once for every r. It is therefore sqrt(|G|) times
an isometry: its adjoint divided by |G|, the mean over r, is its left inverse and gives the nearest equivariant bank to any bank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import groups
from isotypic.ops.fields.bank import filter_bank


def support(group: str, kernel_size: tuple[int, ...]) -> Tensor:
    """The largest G-invariant set of taps in the kernel box, a bool tensor of shape `kernel_size`.

    >>> support("p6", (3, 3)).sum()
    tensor(7)
    """
    return torch.from_numpy(groups.support(groups.get(group), kernel_size).copy())


def taps(group: str, kernel_size: tuple[int, ...]) -> int:
    """The size of that set, without a tensor, which may be one without values while a layer is made.

    >>> taps("p6", (3, 3))
    7
    """
    return int(groups.support(groups.get(group), kernel_size).sum())


def project(bank: Tensor, group: str, field: str) -> Tensor:
    """The weight whose filter bank is nearest in the least-squares sense, which is the average over the group.

    A bank (O |G|, C |G|, *k) gives a weight (O, C, |G|, *k) ("regular"), (O |G|, C |G|) gives (O, C, |G|) ("linear"), and
    (O |G|, C, *k) gives (O, C, *k) ("scalar").
    """
    order = groups.get(group).order
    fields, kernel_size = bank.shape[1] // (1 if field == "scalar" else order), bank.shape[2:]
    sources = () if field == "scalar" else (order,)
    weight = bank.new_zeros(bank.shape[0] // order, fields, *sources, *kernel_size)
    adjoint = torch.func.vjp(lambda weight: filter_bank(weight, group=group, field=field), weight)[1]
    return adjoint(bank)[0] / order
