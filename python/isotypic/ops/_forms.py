"""Checks that the operators on binary forms share, and how they reach a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic.ops._arguments import check_tensors

HALF = (torch.bfloat16, torch.float16)


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


def in_float32(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``compute`` on contiguous tensors, in float32 for the 16-bit types, whose results are rounded once."""
    dtype = tensors[0].dtype
    if dtype in HALF:
        return compute(*(tensor.float().contiguous() for tensor in tensors)).to(dtype)
    return compute(*(tensor.contiguous() for tensor in tensors))


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """The tensor's device made the current one, where that matters."""
    return torch.cuda.device(tensor.get_device()) if tensor.is_cuda else nullcontext()


def extension_for(operator: str, tensor: Tensor) -> Any:
    """The extension, checked to have kernels for the tensor's device."""
    extension = kernels(operator)
    if tensor.is_cuda and not extension.cuda_targets():
        raise RuntimeError(
            f"{operator}: the tensors are on {tensor.device}, but this build of isotypic has no CUDA kernels; it is built with them where "
            "nvcc is found"
        )
    return extension
