"""The operators on weight spaces in operators of torch alone, with their registered arguments: for `isotypic.export.to_torch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from isotypic._words import Pool
from isotypic.ops.weights import reference
from isotypic.ops.weights.layout import WeightLayout, weight_layout


def _layout(settings: Sequence[Any]) -> WeightLayout:
    return weight_layout(tuple(settings[0]), *settings[1:3])


def _kind(settings: Sequence[Any]) -> Pool:
    return "mean" if settings[3] else "sum"


def _pool(x: Tensor, basis: Tensor | None, sizes: Tensor | None, *settings: Any) -> Tensor:
    return reference.weight_pool(x, basis, sizes, _layout(settings), _kind(settings))


def _maxima(values: Tensor, x: Tensor, sizes: Tensor | None, *settings: Any) -> Tensor:
    """In a forward pass the values are those whose maxima are taken."""
    return reference.weight_pool(values, None, sizes, _layout(settings), "max")


def _affine(
    x: Tensor | None, mix: Tensor | None, terms: Tensor | None, basis: Tensor | None, sizes: Tensor | None, *settings: Any
) -> Tensor:
    if x is None or mix is None or settings[3]:
        raise NotImplementedError("weight_affine without a tensor to mix, which is a derivative")
    return reference.weight_affine(x, mix, terms, basis, sizes, _layout(settings))


def _linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, project: Tensor | None, expand: Tensor | None, sizes: Tensor | None, *settings: Any
) -> Tensor:
    return reference.weight_linear(x, weight, bias, sizes, _layout(settings), _kind(settings), project, expand)


PLAIN: dict[str, Callable[..., Any]] = {
    "weight_pool": _pool,
    "weight_select": _maxima,
    "weight_affine": _affine,
    "weight_linear": _linear,
}
