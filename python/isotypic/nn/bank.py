"""The dense form of an equivariant weight: the filter bank that a plain convolution would need, and the projection back.

With psi the weight and t a tap, counted from the centre of the kernel box, the bank is

    bank[o, r, c, s](t) = psi[o, c, r^-1 s](r^-1 t)        (regular)        bank[o, r, c](t) = psi[o, c](r^-1 t)        (lift)

for t in the support, the largest G-invariant set of taps in the box, and 0 elsewhere. Each entry of psi occurs once for every r, so that
psi -> bank is sqrt(|G|) times an isometry, and the mean over r is both its left inverse and the orthogonal projection onto its image.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from isotypic import groups


@functools.lru_cache(maxsize=256)
def _moved_taps(key: str, kernel_size: tuple[int, ...]) -> np.ndarray:
    """(|G|, taps) int64: the flat index of the tap g t, and -1 for taps outside the support."""
    group = groups.get(key)
    if not kernel_size:
        return np.zeros((group.order, 1), dtype=np.int64)
    moved = np.full((group.order, math.prod(kernel_size)), -1, dtype=np.int64)
    for orbit in groups.orbits(group, kernel_size):
        flat = np.ravel_multi_index(tuple(orbit.taps.T), kernel_size)
        moved[:, flat] = flat[group.multiply]  # g (h t) = (g h) t
    return moved


def support(group: str, kernel_size: tuple[int, ...]) -> Tensor:
    """The largest G-invariant set of taps in the kernel box, a bool tensor of shape `kernel_size`.

    >>> support("p6", (3, 3)).sum()
    tensor(7)
    """
    return torch.from_numpy(groups.support(groups.get(group), kernel_size).copy())


def _entries(group: str, kernel_size: tuple[int, ...], sources: int) -> tuple[Tensor, Tensor]:
    """`entry` (|G|, sources * taps): where psi[u](t) sits in bank[r], flat over (s, t); `inside` (sources * taps): t is in the support."""
    table = groups.get(group)
    moved = _moved_taps(group, kernel_size)
    inside = moved[0] >= 0
    source = table.multiply if sources > 1 else np.zeros((table.order, 1), dtype=np.int64)
    entry = source[:, :, None] * moved.shape[1] + np.where(inside, moved, np.arange(moved.shape[1]))[:, None, :]
    return torch.from_numpy(entry.reshape(table.order, -1)), torch.from_numpy(np.tile(inside, sources))


def expand(weight: Tensor, group: str, field: str) -> Tensor:
    """The bank (O |G|, C |G|, *k) of a weight (O, C, |G|, *k) in field "regular"; (O |G|, C, *k) of (O, C, *k) in field "scalar"."""
    lead = 3 if field == "regular" else 2
    sources = weight.shape[2] if field == "regular" else 1
    kernel_size = tuple(weight.shape[lead:])
    entry, inside = (table.to(weight.device) for table in _entries(group, kernel_size, sources))
    flat = weight.reshape(*weight.shape[:2], -1) * inside
    # entry[r] is a permutation of the (s, t) positions, and its inverse reads the weight.
    bank = flat[:, :, entry.argsort(dim=1)]
    return bank.transpose(1, 2).reshape(weight.shape[0] * entry.shape[0], weight.shape[1] * sources, *kernel_size)


def project(bank: Tensor, group: str, field: str) -> Tensor:
    """The weight whose bank is nearest in the least-squares sense: the average over G; the shapes are those of `expand`, reversed."""
    order = groups.get(group).order
    sources = order if field == "regular" else 1
    kernel_size = tuple(bank.shape[2:])
    entry, inside = (table.to(bank.device) for table in _entries(group, kernel_size, sources))
    fields = bank.reshape(bank.shape[0] // order, order, bank.shape[1] // sources, -1).transpose(1, 2)
    weight = fields.gather(-1, entry.expand(*fields.shape[:2], -1, -1)).mean(dim=2) * inside
    shape = (order,) if field == "regular" else ()
    return weight.reshape(*weight.shape[:2], *shape, *kernel_size)
