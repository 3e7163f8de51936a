"""How an operator reaches its kernel, whatever its family.

A launch is a call of a function of the extension: ``launch(operator, kernel, ..., like=tensor)``. The binding (``csrc/bind/call.hpp``)
makes the device of the tensors the current one, joins torch's threads and lets go of the interpreter. What else a launch may need is here:
tensors made contiguous, the detour of 16-bit types, workspaces and tables on a device, and what is said where there are no CUDA kernels.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from isotypic._extension import kernels
from isotypic._repeat import note

Made = TypeVar("Made")

HALF = (torch.bfloat16, torch.float16)


def extension_for(operator: str, tensor: Tensor) -> Any:
    """The extension, checked to have kernels for the tensor's device."""
    extension = kernels(operator)
    if not tensor.is_cpu and not extension.cuda_targets():
        raise RuntimeError(
            f"{operator}: the tensors are on {tensor.device}, but this build of isotypic has no CUDA kernels; it is built with them where "
            "nvcc is found"
        )
    if not tensor.is_cpu:
        _say_untried()
    return extension


@cache
def _say_untried() -> None:
    """Once in a process."""
    warnings.warn(
        "isotypic: the CUDA kernels are tested through an emulation on the CPU and have not been seen on a device; "
        "`python -m isotypic check` compares them with plain torch on this one",
        stacklevel=2,
    )


def launch(operator: str, kernel: str, *arguments: Any, like: Tensor) -> None:
    """Run a kernel: on the CPU at once, on a device queued on torch's current stream.

    Args:
        operator: whose name errors have.
        kernel: a function of the extension. It writes into the tensors among its arguments that are its results.
        like: a tensor on the device of the call.
    """
    function = getattr(extension_for(operator, like), kernel)
    function(*arguments)
    note(function, arguments)


def contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple([None if tensor is None else tensor.contiguous() for tensor in tensors])


def in_float32(compute: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """``compute`` on contiguous tensors, in float32 for the 16-bit types, whose results are rounded once."""
    dtype = next(tensor.dtype for tensor in tensors if tensor is not None)
    if dtype in HALF:
        return compute(*(None if tensor is None else tensor.float().contiguous() for tensor in tensors)).to(dtype)
    return compute(*contiguous(*tensors))


def workspace(size: int, like: Tensor) -> Tensor | None:
    """Bytes for a kernel to work in, on the device of a CUDA tensor; None on the CPU."""
    return torch.empty(max(size, 256), dtype=torch.uint8, device=like.device) if like.is_cuda else None


def dtype_name(dtype: torch.dtype) -> str:
    """As the extension takes it."""
    return str(dtype).removeprefix("torch.")


def refuse_capture(operator: str, settings: str, device: torch.device) -> None:
    """Raises RuntimeError where a graph is being captured: copies from the host are not part of one."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"{operator}: the first call with {settings} copies tables to {device}, which cannot be captured in a CUDA graph; make one "
            "such call before the capture"
        )


def outside_of_graph_pools(make: Callable[[], Made]) -> Made:
    """``make()``, called by a thread of its own, so that what it allocates on a device outlives every CUDA graph.

    While torch warms up a graph (``torch.compile(mode="reduce-overhead")``), what the calling thread allocates belongs to the memory of the
    graph: torch counts whatever of it is still held after the call as an error, and may write over it.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(make).result()


class DeviceTables:
    """Constants of an operator on devices, copied once for each key and device, such as a plan or a degree.

    Args:
        operator: whose name errors have.
        settings: what the key stands for, in words.
        make: ``make(key)``, a numpy array or a tensor on the CPU.
        limit: how many are kept for each device, the latest used. A table that a CUDA graph was captured with stays for good, because the
            graph holds its address.
    """

    def __init__(self, operator: str, settings: str, make: Callable[[Any], Any], limit: int = 256) -> None:
        self.operator, self.settings, self.make, self.limit = operator, settings, make, limit
        self.kept: OrderedDict[tuple[Hashable, torch.device], Tensor] = OrderedDict()
        self.captured: set[tuple[Hashable, torch.device]] = set()

    def __call__(self, key: Hashable, device: torch.device) -> Tensor:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        entry = key, device
        found = self.kept.get(entry)
        if found is None:
            if device.type == "cuda":
                refuse_capture(self.operator, self.settings, device)
            made = self.make(key)
            table = made if isinstance(made, Tensor) else torch.from_numpy(made)
            found = outside_of_graph_pools(lambda: table.to(device)) if device.type == "cuda" else table
            self._make_room(device)
            return self.kept.setdefault(entry, found)
        self.kept.move_to_end(entry)
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            self.captured.add(entry)
        return found

    def _make_room(self, device: torch.device) -> None:
        here = [entry for entry in list(self.kept) if entry[1] == device and entry not in self.captured]
        if len(here) >= self.limit:
            if device.type == "cuda":  # a kernel that is still queued may read the oldest
                torch.cuda.synchronize(device)
            self.kept.pop(here[0], None)
