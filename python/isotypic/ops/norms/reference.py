"""Batch normalisation in plain torch, straight from the definition: what the kernels compute, for tests and for reading."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic._words import FusedActivation


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None = None,
    var: Tensor | None = None,
    *,
    eps: float = 1e-5,
    activation: FusedActivation | None = None,
    axis: int = 1,
) -> Tensor:
    """act(weight (x - mean) / sqrt(var + eps) + bias), with the mean and variance of each channel of x where they are not given."""
    last = x.movedim(axis, -1)
    axes = tuple(range(x.dim() - 1))
    if mean is None or var is None:
        mean = last.mean(axes)
        var = (last - mean).square().mean(axes)
    y = (last - mean) / (var + eps).sqrt()
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return (torch.relu(y) if activation == "relu" else y).movedim(-1, axis)
