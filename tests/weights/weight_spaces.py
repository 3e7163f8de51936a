"""What the tests of weight-space layers share: permutations of neurons written as permutations of entries, straight from the definition."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from isotypic.nn import WeightSpec


def entries(widths: Sequence[int]) -> list[tuple[str, int, int, int]]:
    """("W", i, r, s) or ("b", i, r, 0) for each entry, in the order of the flat tensor."""
    found: list[tuple[str, int, int, int]] = []
    for i, (columns, rows) in enumerate(itertools.pairwise(widths), 1):
        found += [("W", i, r, s) for r in range(rows) for s in range(columns)]
        found += [("b", i, r, 0) for r in range(rows)]
    return found


def entry_permutation(widths: Sequence[int], orders: Sequence[Sequence[int]]) -> Tensor:
    """(P,): entry p of the permuted network is entry `result[p]` of the network; neuron r of layer l was neuron orders[l][r]."""
    names = entries(widths)
    index = {name: position for position, name in enumerate(names)}
    moved = [
        ("W", i, int(orders[i][r]), int(orders[i - 1][s])) if kind == "W" else ("b", i, int(orders[i][r]), 0) for kind, i, r, s in names
    ]
    return torch.tensor([index[name] for name in moved])


def random_permutation(spec: WeightSpec, symmetry: str, seed: int = 0) -> Tensor:
    """A random element of the group, as a permutation of entries."""
    generator = torch.Generator().manual_seed(seed)
    ends = (0, spec.depth) if symmetry == "hidden" else ()
    orders = [
        list(range(width)) if label in ends else torch.randperm(width, generator=generator).tolist()
        for label, width in enumerate(spec.widths)
    ]
    return entry_permutation(spec.widths, orders)


def count_orbits(widths: Sequence[int], symmetry: str) -> int:
    """Orbits of the group on pairs of entries: the dimension of the equivariant linear maps, by brute force."""
    last = len(widths) - 1
    generators = []
    for label, width in enumerate(widths):
        if symmetry == "hidden" and label in (0, last):
            continue
        for r in range(width - 1):
            orders = [list(range(d)) for d in widths]
            orders[label][r], orders[label][r + 1] = r + 1, r
            generators.append(entry_permutation(widths, orders))
    size = len(entries(widths))
    labels = torch.arange(size * size).view(size, size)
    while True:
        before = labels
        for generator in generators:
            labels = torch.minimum(labels, labels[generator][:, generator])
        if torch.equal(labels, before):
            return len(labels.unique())
