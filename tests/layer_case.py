"""One way of making a layer of `isotypic.nn` that takes one tensor, and the input it is called with."""

from __future__ import annotations

from typing import Any, NamedTuple


class Case(NamedTuple):
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    group: str
    in_field: str = "regular"
    out_field: str = "regular"
