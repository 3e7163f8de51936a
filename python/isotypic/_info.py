"""What runs here, and why something does not."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from isotypic import _extension


def cpu_isa() -> str:
    """The instruction-set variant of the CPU kernels in use: "scalar", "avx2", ...; "none" without the extension.

    The environment variable ISOTYPIC_CPU_ISA chooses another one at load.
    """
    return "none" if _extension._C is None else str(_extension._C.cpu_isa())


def info() -> dict[str, Any]:
    """Versions, instruction sets, CUDA targets and devices, threads, and under "problems" why a backend is off.

    >>> sorted(info())
    ['cpu_isa', 'cpu_isas', 'cuda_devices', 'cuda_targets', 'problems', 'threads', 'versions']
    """
    import isotypic

    extension = _extension._C
    problems: dict[str, str] = {}
    devices: list[str] = []
    targets: list[str] = [] if extension is None else list(extension.cuda_targets())
    if extension is None:
        problems["cpu"] = problems["cuda"] = _extension.problem
    elif not targets:
        problems["cuda"] = "this build of isotypic has no CUDA kernels; it is built with them where nvcc is found"
    elif torch.version.cuda is None:
        problems["cuda"] = "this build of torch has no CUDA"
    elif not torch.cuda.is_available():
        problems["cuda"] = "torch finds no CUDA device"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(i)
            devices.append(f"{torch.cuda.get_device_name(i)} (sm_{major}{minor})")
            if targets and major < 8:
                problems["cuda"] = f"{devices[-1]} is older than the kernels, which need compute capability 8.0"
    return {
        "versions": {
            "isotypic": isotypic.__version__,
            "torch": torch.__version__,
            "torch_cuda": torch.version.cuda,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "cpu_isa": cpu_isa(),
        "cpu_isas": [] if extension is None else list(extension.cpu_isas()),
        "cuda_targets": targets,
        "cuda_devices": devices,
        "threads": torch.get_num_threads(),
        "problems": problems,
    }
