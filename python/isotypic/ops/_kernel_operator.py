"""Registered operators that are one kernel each: from the shape of the result follow the launch, the fake and the rule of vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define

Operator = Callable[..., Tensor]


def kernel_operator(
    schema: str,
    *,
    shape: Callable[..., Sequence[int]],
    run: Callable[..., Tensor],
    samples: Sequence[int],
    sums: bool = False,
    backward: Callable[..., Gradients],
    jvp: Callable[..., Tensor | None] | None = None,
    dtype: Callable[[torch.dtype], torch.dtype] = lambda first: first,
    saved_outputs: Sequence[int] = (),
    wide: Sequence[int] = (),
) -> Operator:
    """Register ``isotypic::<schema>``, as :func:`isotypic._register.define` does, and return the function that routes its calls.

    Args:
        schema: the tensors, which may be optional, then the settings.
        shape: ``shape(*arguments)`` of the result, whose dtype and device are those of the first tensor. It may raise.
        run: ``run(name, shape, *arguments)``, the kernel's result.
        samples: places of the tensors whose first axis is one of samples that do not see each other. Under vmap, more calls are more
            samples; where another tensor is mapped, one call follows the other.
        sums: the result is a sum over samples. Otherwise its first axis is theirs.
        backward, jvp, saved_outputs, wide: as for ``define``.
        dtype: that of the result, from that of the first tensor.
    """
    name = schema[: schema.index("(")]

    def launch(*args: Any) -> Tensor:
        return run(name, shape(*args), *args)

    def fake(*args: Any) -> Tensor:
        first: Tensor = next(arg for arg in args if arg is not None)
        return first.new_empty(shape(*args), dtype=dtype(first.dtype))

    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
        mapped = [i for i, dim in enumerate(in_dims) if isinstance(args[i], Tensor) and dim is not None]
        if sums or not set(mapped) <= set(samples):
            calls = [[a.select(in_dims[i], k) if i in mapped else a for i, a in enumerate(args)] for k in range(info.batch_size)]
            return torch.stack([operator(*call) for call in calls]), 0
        folded = list(args)
        for i in samples:
            if args[i] is not None:
                moved = args[i].movedim(in_dims[i], 0) if i in mapped else args[i].expand(info.batch_size, *args[i].shape)
                folded[i] = moved.flatten(0, 1)
        result = operator(*folded)
        return result.unflatten(0, (info.batch_size, result.shape[0] // info.batch_size)), 0

    operator = define(schema, launch=launch, fake=fake, backward=backward, vmap=vmap, jvp=jvp, saved_outputs=saved_outputs, wide=wide)
    return operator
