"""The operators of symmetrization in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from isotypic.ops.symmetrize import reference


def _permute(x: Tensor, order: Tensor, inverse: bool, axes: int) -> Tensor:
    move = reference.permute_nodes if axes == 1 else reference.permute_adjacency
    return move(x, order, inverse)


PLAIN: dict[str, Callable[..., Any]] = {"permute": _permute}
