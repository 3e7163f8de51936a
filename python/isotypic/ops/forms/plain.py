"""The operators on binary forms in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from isotypic.ops.forms import reference


def _transvectants(f: Tensor, weight: Tensor, degrees: Sequence[int], paths: Sequence[int]) -> Tensor:
    triples = list(zip(paths[::3], paths[1::3], paths[2::3], strict=True))
    return reference.transvectants(f, weight, degrees=degrees, paths=triples)


PLAIN: dict[str, Callable[..., Any]] = {"form_action": reference.form_action, "transvectants": _transvectants}
