"""Registered operators that are one kernel each: from the shape of the result follow the launch, the fake and the rule of vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._register import Gradients, define
from isotypic.ops import _launch

Operator = Callable[..., Tensor]


def _nothing(*arguments: Any) -> tuple[Any, ...]:
    return ()


_ALL = slice(None)


def kernel_operator(
    schema: str,
    *,
    shape: Callable[..., Sequence[int]],
    samples: Sequence[int],
    sums: bool = False,
    backward: Callable[..., Gradients],
    jvp: Callable[..., Tensor | None] | None = None,
    run: Callable[..., Tensor] | None = None,
    kernel: str | None = None,
    plan: Callable[..., tuple[Any, ...]] = _nothing,
    settings: slice = _ALL,
    half: bool = False,
    zero_if_empty: bool = False,
    on_device: Callable[..., tuple[Any, ...]] = _nothing,
    dtype: Callable[[torch.dtype], torch.dtype] = lambda first: first,
    **options: Any,
) -> Operator:
    """Register ``isotypic::<schema>``, as :func:`isotypic._register.define` does, and return the function that routes its calls.

    The kernel is called with ``(*plan(*arguments), *tensors, *settings, result)``, on a CUDA device followed by ``on_device(...)``. The
    tensors are contiguous, and the result is to be overwritten. Where the result has no elements the kernel is not called.

    Args:
        schema: the tensors, which may be optional, then the settings.
        shape: ``shape(*arguments)`` of the result, whose dtype and device are those of the first tensor. It may raise.
        samples: places of the tensors whose first axis is one of samples that do not see each other. Under vmap, more calls are more
            samples; where another tensor is mapped, one call follows the other.
        sums: the result is a sum over samples. Otherwise its first axis is theirs.
        backward, jvp, and others: as for ``define``.
        run: ``run(name, shape, *arguments)``, the kernel's result, instead of all that follows.
        kernel: its name in the extension, where it is not the operator's.
        plan: ``plan(*arguments)`` of the operator, what the kernel takes first.
        settings: which of the settings the kernel takes.
        half: whether it takes 16-bit types itself; otherwise they are computed in float32 and rounded once.
        zero_if_empty: without a call of the kernel the result is zero where a tensor has no elements.
        dtype: that of the result of ``run``, from that of the first tensor.
        on_device: ``on_device(result, *plan, *tensors)``, what it takes on a CUDA device besides: tables, a workspace.
    """
    name = schema[: schema.index("(")]
    count = sum(part.strip().startswith("Tensor") for part in schema[schema.index("(") + 1 : schema.rindex("->")].split(","))
    function = kernel or name

    def call(size: Sequence[int], *args: Any) -> Tensor:
        rest = args[count:][settings]
        if zero_if_empty and any(tensor is not None and tensor.numel() == 0 for tensor in args[:count]):
            return next(tensor for tensor in args if tensor is not None).new_zeros(size)
        planned = plan(*args)

        def compute(*tensors: Tensor | None) -> Tensor:
            first = next(tensor for tensor in tensors if tensor is not None)
            result = first.new_empty(size)
            if result.numel():
                more = on_device(result, *planned, *tensors) if result.is_cuda else ()
                _launch.launch(name, function, *planned, *tensors, *rest, result, *more, like=result)
            return result

        return compute(*_launch.contiguous(*args[:count])) if half else _launch.in_float32(compute, *args[:count])

    def launch(*args: Any) -> Tensor:
        return call(shape(*args), *args) if run is None else run(name, shape(*args), *args)

    def fake(*args: Any) -> Tensor:
        first: Tensor = next(arg for arg in args if arg is not None)
        return first.new_empty(shape(*args), dtype=dtype(first.dtype))

    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
        mapped = [i for i, dim in enumerate(in_dims) if isinstance(args[i], Tensor) and dim is not None]
        if sums or not set(mapped) <= set(samples):
            calls = [[a.select(in_dims[i], k) if i in mapped else a for i, a in enumerate(args)] for k in range(info.batch_size)]
            return torch.stack([operator(*each) for each in calls]), 0
        folded = list(args)
        for i in samples:
            if args[i] is not None:
                moved = args[i].movedim(in_dims[i], 0) if i in mapped else args[i].expand(info.batch_size, *args[i].shape)
                folded[i] = moved.flatten(0, 1)
        result = operator(*folded)
        return result.unflatten(0, (info.batch_size, result.shape[0] // info.batch_size)), 0

    operator = define(schema, launch=launch, fake=fake, backward=backward, vmap=vmap, jvp=jvp, **options)
    return operator
