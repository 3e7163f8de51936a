"""Nested tuples, lists and dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def map_with(function: Callable[[Any, Any], Any], prefix: Any, tree: Any) -> Any:
    """function(leaf of the prefix, leaf of the tree) in the structure of the tree; a leaf of the prefix stands for all below it.

    Raises ValueError where the structures differ.
    """
    if isinstance(tree, dict):
        if isinstance(prefix, dict) and prefix.keys() != tree.keys():
            raise ValueError(f"keys {sorted(map(str, prefix))} do not fit {sorted(map(str, tree))}")
        return type(tree)((key, map_with(function, prefix[key] if isinstance(prefix, dict) else prefix, tree[key])) for key in tree)
    if isinstance(tree, (tuple, list)):
        if isinstance(prefix, (tuple, list)) and len(prefix) != len(tree):
            raise ValueError(f"{len(prefix)} entries do not fit {len(tree)}")
        several = isinstance(prefix, (tuple, list))
        items = [map_with(function, prefix[i] if several else prefix, item) for i, item in enumerate(tree)]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(prefix, (tuple, list, dict)):
        raise ValueError(f"{type(prefix).__name__} does not fit {type(tree).__name__}")
    return function(prefix, tree)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    return map_with(lambda _, leaf: function(leaf), None, tree)


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


def rebuild(tree: Any, values: Iterator[Any]) -> Any:
    """The structure of the tree with other leaves, in their order."""
    return map_leaves(lambda _: next(values), tree)
