"""How an operator reaches its kernel, whatever its family: the extension for the device, contiguous tensors, the detour of 16-bit types."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels

HALF = (torch.bfloat16, torch.float16)


def refuse_capture(operator: str, settings: str, device: torch.device) -> None:
    """Raises RuntimeError where a graph is being captured: copies from the host are not part of one."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{operator}: the first call with {settings} copies tables to {device}, which cannot be captured in a CUDA graph; make one "
            "such call before the capture"
        )


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
