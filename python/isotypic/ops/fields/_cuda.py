"""What a launch on a CUDA device needs beside its tensors: the plan in device memory, scratch, and whether TF32 may be used."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic.ops._launch import DeviceTables, dtype_name, workspace

_TABLES = DeviceTables("group_conv", "a group and a kernel size", lambda plan: kernels("group_conv").group_conv_tables(plan))


@lru_cache(maxsize=4096)
def _workspace_bytes(kernel: str, plan: Any, sizes: Any, dtype: torch.dtype, device: int) -> int:
    """Of a call on the current device, which is ``device``."""
    return int(kernels(kernel).group_conv_workspace(plan, sizes, dtype_name(dtype), kernel))


def allow_tf32(field: str) -> bool:
    """Torch's own setting: that of matrix products for linear maps, that of convolutions otherwise.

    Setting the older ``allow_tf32`` changes ``fp32_precision`` too; reading the older one fails where somebody has set the newer.
    """
    backend: Any = torch.backends.cuda.matmul if field == "linear" else torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return bool(backend.fp32_precision == "tf32")


def context(kernel: str, field: str, plan: Any, sizes: Any, first: Tensor) -> tuple[Tensor, Tensor | None, bool]:
    """What the kernel takes on the device of its tensors besides."""
    device = first.device
    with torch.cuda.device(device):  # the size of a workspace may depend on the device
        size = _workspace_bytes(kernel, plan, sizes, first.dtype, device.index)
    return _TABLES(plan, device), workspace(size, first), first.dtype == torch.float32 and allow_tf32(field)
