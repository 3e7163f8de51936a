"""Checks that the operators on multivectors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic.ops._checks import check_tensors
from isotypic.ops.algebra.signature import SIGNATURES, Algebra
from isotypic.ops.algebra.signature import algebra as signature


def resolve(operator: str, algebra: Any) -> Algebra:
    """The algebra of a name."""
    if not isinstance(algebra, str) or algebra not in SIGNATURES:
        raise ValueError(f"{operator}: algebra must be one of {', '.join(map(repr, SIGNATURES))}, got {algebra!r}")
    return signature(algebra)


def check_multivectors(operator: str, axes: int = 1, **tensors: Any) -> None:
    """That all are tensors of one dtype on one device, of shape (..., 16), with at least ``axes`` axes."""
    check_tensors(operator, tensors)
    for name, tensor in tensors.items():
        if tensor.dim() < axes or tensor.shape[-1] != 16:
            expected = ", ".join(["..."] + ["C"] * (axes > 1) + ["16"])
            raise ValueError(f"{operator}: {name} must have shape ({expected}), got {tuple(tensor.shape)}")


def same_shape(a: Sequence[int], b: Sequence[int]) -> bool:
    """Equality that compares no sizes where the numbers of axes differ, as tuples do: in a graph that would be a condition on a size."""
    return len(a) == len(b) and torch.Size(a) == torch.Size(b)


def _common(a: Sequence[int], b: Sequence[int]) -> torch.Size:
    """torch.broadcast_shapes, which takes longer than a short kernel; it alone knows sizes that are not known yet."""
    if not all(type(n) is int for n in (*a, *b)):
        return torch.broadcast_shapes(torch.Size(a), torch.Size(b))
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    result = list(longer)
    for i in range(-len(shorter), 0):
        if result[i] == 1:
            result[i] = shorter[i]
        elif shorter[i] not in (1, result[i]):
            raise RuntimeError(f"{tuple(a)} and {tuple(b)} do not broadcast")
    return torch.Size(result)


def broadcast(operator: str, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> torch.Size:
    """The common shape of batches."""
    first = torch.Size(shapes[0])
    if all(same_shape(shape, first) for shape in shapes):
        return first
    for name, shape in zip(names[1:], shapes[1:], strict=True):
        try:
            first = _common(first, shape)
        except RuntimeError:
            raise ValueError(
                f"{operator}: the batch of {name} must broadcast with that of {names[0]}, {tuple(shapes[0])}, got {tuple(shape)}"
            ) from None
    return first


def check_dtype_of(operator: str, name: str, tensor: Tensor, like: Tensor, of: str) -> None:
    if tensor.dtype != like.dtype:
        raise TypeError(f"{operator}: {name} must have the dtype of {of}, {like.dtype}, got {tensor.dtype}")
