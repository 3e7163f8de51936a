"""The expanded filter bank of a group convolution: the weight of the plain convolution that computes the same.

    bank[o, r, c, s](t) = psi[o, c, r^-1 s](r^-1 t)        (regular)        bank[o, r, c](t) = psi[o, c](r^-1 t)        (lift)

The bank has |G| times the parameters of psi, and the convolution with it costs |G|^2 multiply-adds per position, tap and pair of fields.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isotypic import groups


@lru_cache(maxsize=64)
def _bank_index(key: str, field: str, kernel: tuple[int, ...]) -> Tensor:
    """(|G|, sources, taps) int64: the flat index in psi[o, c] of each entry of bank[o, r, c], and one past the end outside the support."""
    group = groups.get(key)
    taps = int(np.prod(kernel))
    sources = 1 if field == "scalar" else group.order
    moved = np.full((group.order, taps), -1)  # where each element moves each tap
    if field == "linear":
        moved[:] = 0
    else:
        for orbit in groups.orbits(group, kernel):
            flat = np.ravel_multi_index(tuple(orbit.taps.T), kernel)
            moved[:, flat] = flat[group.multiply]
    back = moved[group.inverse]  # [r, t] = r^-1 t
    element = np.zeros((group.order, 1), dtype=np.int64) if field == "scalar" else group.multiply[group.inverse]  # [r, s] = r^-1 s
    index = element[:, :, None] * taps + back[:, None, :]
    return torch.from_numpy(np.where(back[:, None, :] < 0, sources * taps, index))


def filter_bank(weight: Tensor, *, group: str, field: str = "regular") -> Tensor:
    """The bank (O |G|, C |G|, *k) of a weight (O, C, |G|, *k), or (O |G|, C, *k) of a lift's weight (O, C, *k)."""
    lead = 2 if field == "scalar" else 3
    kernel = tuple(weight.shape[lead:])
    index = _bank_index(group, field, kernel).to(weight.device)
    order, sources, _ = index.shape
    flat = F.pad(weight.flatten(2) if weight.dim() > 2 else weight[..., None], (0, 1))
    bank = flat[:, :, index.flatten()].unflatten(2, (order, sources, -1))  # (O, C, r, s, taps)
    return bank.transpose(1, 2).reshape(weight.shape[0] * order, weight.shape[1] * sources, *kernel)
