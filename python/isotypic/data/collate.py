"""Batches of networks for `torch.utils.data.DataLoader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import default_collate

from isotypic.nn.weights.space import WeightSpace


def collate(items: Sequence[Any]) -> Any:
    """`collate_fn` of a loader whose items are, or contain, weight spaces: these are joined by `WeightSpace.cat`.

    Items may be tuples, lists or dicts, for example (network, label), and what comes out is of that kind: tuples stay tuples, which torch's
    default makes lists of, named tuples keep their names, mappings become dicts. What is no `WeightSpace` is collated as torch does by
    default. Hidden widths may differ.

    Raises ValueError for items of different structure, and for networks that `WeightSpace.cat` refuses.

    >>> import torch
    >>> from torch.utils.data import DataLoader
    >>> ws = WeightSpace(torch.zeros(4, 17, 1), [2, 4, 1])
    >>> next(iter(DataLoader(list(zip(ws, torch.arange(4))), batch_size=3, collate_fn=collate)))
    (WeightSpace(3 networks, flat (3, 17, 1), WeightSpec([2, 4, 1])), tensor([0, 1, 2]))
    """
    first = items[0]
    if isinstance(first, WeightSpace):
        return WeightSpace.cat(items)
    if isinstance(first, Mapping):
        if any(not isinstance(item, Mapping) or item.keys() != first.keys() for item in items):
            raise ValueError(f"collate: items must be dicts with the keys {list(first)}")
        return {key: collate([item[key] for item in items]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(not isinstance(item, (tuple, list)) or len(item) != len(first) for item in items):
            raise ValueError(f"collate: items must be sequences of {len(first)}")
        columns = [collate(column) for column in zip(*items, strict=True)]
        if isinstance(first, list):
            return columns
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return default_collate(list(items))
