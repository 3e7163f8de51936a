"""What a launch on a CUDA device needs beside its tensors: the plan in device memory, scratch, and whether TF32 may be used."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic.ops._launch import refuse_capture

_TABLES: dict[tuple[Any, int], Tensor] = {}
"""Plans as the devices read them. They stay for good, because a captured CUDA graph holds their addresses."""


def _tables(operator: str, plan: Any, device: int) -> Tensor:
    tables = _TABLES.get((plan, device))
    if tables is not None:
        return tables
    refuse_capture(operator, "a group and a kernel size", torch.device("cuda", device))
    tables = torch.from_numpy(kernels(operator).group_conv_tables(plan)).to(torch.device("cuda", device))
    return _TABLES.setdefault((plan, device), tables)


@lru_cache(maxsize=4096)
def _workspace_bytes(kernel: str, plan: Any, shape: Any, dtype: torch.dtype, device: int) -> int:
    """Of a call on the current device, which is ``device``."""
    return int(kernels(kernel).group_conv_workspace(plan, shape, str(dtype).removeprefix("torch."), kernel))


def allow_tf32(field: str) -> bool:
    """Torch's own setting: that of matrix products for linear maps, that of convolutions otherwise.

    Setting the older ``allow_tf32`` changes ``fp32_precision`` too; reading the older one fails where somebody has set the newer.
    """
    backend: Any = torch.backends.cuda.matmul if field == "linear" else torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return bool(backend.fp32_precision == "tf32")


def launch(operator: str, kernel: str, field: str, plan: Any, shape: Any, first: Tensor, *others: Tensor | None) -> None:
    """Queue a kernel of the extension on torch's current stream of the device of its tensors.

    Raises RuntimeError, naming ``operator``, where the extension has no kernels for that device.
    """
    extension = kernels(operator)
    if not extension.cuda_targets():
        raise RuntimeError(
            f"{operator}: the tensors are on {first.device}, but this build of isotypic has no CUDA kernels; it is built with them where "
            "nvcc is found"
        )
    device = first.get_device()
    with torch.cuda.device(device):
        tables = _tables(operator, plan, device)
        size = _workspace_bytes(kernel, plan, shape, first.dtype, device)
        workspace = torch.empty(size, dtype=torch.uint8, device=first.device)
        context = tables, workspace, first.dtype == torch.float32 and allow_tf32(field)
        getattr(extension, kernel)(plan, shape, first, *others, context)
