"""Batch normalisation in operators of torch alone, with its registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isotypic.ops.norms import reference


def _apply(x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> Tensor:
    mean, var = statistics.to(x.dtype).unbind()
    return reference.batch_norm(x, weight, bias, mean, var, eps=eps, activation="relu" if relu else None)


def _normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> tuple[Tensor, Tensor]:
    wide = x if x.dtype == torch.float64 else x.float()
    statistics = torch.stack([wide.mean((0, 2)), wide.var((0, 2), correction=0)])
    return _apply(x, statistics, weight, bias, eps, relu), statistics


PLAIN: dict[str, Callable[..., Any]] = {"batch_norm": _normalise, "batch_norm_apply": _apply}
