"""Checks that the operators on binary forms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops._checks import check_tensors


def check_form(operator: str, name: str, form: Tensor) -> int:
    """The degree of the form (..., d+1)."""
    if form.dim() < 1 or form.shape[-1] < 1:
        raise ValueError(f"{operator}: {name} must have shape (..., d+1) with d >= 0, got {tuple(form.shape)}")
    return form.shape[-1] - 1


def batch_shape(operator: str, tensors: dict[str, Any], trailing: Sequence[int]) -> torch.Size:
    """The common batch of tensors whose last ``trailing`` axes are not part of it, all of one supported dtype."""
    check_tensors(operator, tensors)
    batches = [tensor.shape[: tensor.dim() - axes] for tensor, axes in zip(tensors.values(), trailing, strict=True)]
    if batches[0] == batches[1]:
        return batches[0]
    try:
        return torch.broadcast_shapes(*batches)
    except RuntimeError:
        first, second = tensors
        raise ValueError(
            f"{operator}: the batch of {second} must broadcast with that of {first}, {tuple(batches[0])}, got {tuple(batches[1])}"
        ) from None
