"""Which order the layers of a state dict have. Layers fit together in many orders; only one of them is the network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
SHOWN = 4  # orders that an error lists
STEPS = 20_000  # of the search for orders


def before(first: str, second: str) -> bool:
    """Whether the numbers in two names say that the first is earlier: at the place where the names part, both have a number.

    >>> before("net.2.weight", "net.10.weight"), before("0.up", "1.down"), before("encoder.2", "decoder.0"), before("fc", "fc2")
    (True, True, False, False)
    """
    for one, other in zip(re.split(r"(\d+)", first), re.split(r"(\d+)", second), strict=False):
        if one != other:
            return one.isdecimal() and other.isdecimal() and int(one) < int(other)
    return False


def is_of_a_module(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the order is that in which a module registered its layers: `Module.state_dict()` says so, and `torch.save` keeps it."""
    metadata = getattr(state_dict, "_metadata", None)
    return isinstance(metadata, Mapping) and "" in metadata


def chains(names: Sequence[str], follows: Any, by_name: bool) -> Iterator[list[int]]:
    """The orders in which each layer takes what the one before it gives, and which the numbers in the names allow.

    Args:
        names: one for each layer.
        follows: follows(i, j), whether layer j can come after layer i.
        by_name: whether numbers count.
    """
    count, steps = len(names), 0
    earlier = [{j for j in range(count) if by_name and before(names[j], names[i])} for i in range(count)]

    def extend(order: list[int], left: set[int]) -> Iterator[list[int]]:
        nonlocal steps
        steps += 1
        if steps > STEPS:
            raise OverflowError
        if not left:
            yield list(order)
        for i in sorted(left):
            if not earlier[i] & left and (not order or follows(order[-1], i)):
                yield from extend([*order, i], left - {i})

    return extend([], set(range(count)))


def several(names: Sequence[str], follows: Any, by_name: bool, fits: Any) -> list[list[int]]:
    """The first orders that fit; one alone decides. All that there are, or SHOWN and one more."""
    found = (order for order in chains(names, follows, by_name) if fits(order))
    try:
        return list(islice(found, SHOWN + 1))
    except OverflowError:
        return [list(range(len(names))), list(range(len(names)))]


def describe(orders: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """For an error: the orders, one after another."""
    shown = "; or ".join(", ".join(names[i] for i in order) for order in orders[:SHOWN])
    return shown + ("; or others" if len(orders) > SHOWN else "")
