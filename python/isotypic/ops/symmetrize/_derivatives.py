"""Derivatives of a gradient's kernel by torch.func, from the same formula in torch.

The first derivative of every operator here is a kernel. What that kernel computes is written once more in differentiable functions of torch
and routed operators; its own derivatives, which second and higher orders need, are those of the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients

Formula = Callable[..., Tensor]


def backward_of(formula: Formula) -> Callable[..., Gradients]:
    """The ``backward`` of `isotypic._register.define` for an operator with this formula of its floating-point tensors."""

    def backward(needs: Sequence[bool], grad: Tensor, *args: Any) -> Gradients:
        places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.is_floating_point()]
        pull = torch.func.vjp(_of(formula, args, places), *(args[i] for i in places))[1]
        found = dict(zip(places, pull(grad), strict=True))
        return tuple(found.get(i) if needs[i] else None for i in range(len(args)))

    return backward


def _of(formula: Formula, args: Sequence[Any], places: Sequence[int]) -> Formula:
    def function(*tensors: Tensor) -> Tensor:
        given = list(args)
        for i, tensor in zip(places, tensors, strict=True):
            given[i] = tensor
        return formula(*given)

    return function


def fold(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[list[Any], int]:
    """Arguments with the mapped axis folded into the first one, as the vmap of operators on samples that do not see each other."""
    size = info.batch_size
    folded = list(args)
    for i, arg in enumerate(args):
        if isinstance(arg, Tensor):
            moved = arg.expand(size, *arg.shape) if in_dims[i] is None else arg.movedim(in_dims[i], 0)
            folded[i] = moved.flatten(0, 1)
    return folded, size
