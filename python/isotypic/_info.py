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


def _version(number: int) -> str | None:
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def driver_problem(runtime: int, driver: int) -> str:
    """Why this driver does not serve this runtime, both as 1000 major + 10 minor; "" where it does. Minor versions serve one another."""
    if driver // 1000 >= runtime // 1000:
        return ""
    return (
        f"this build of isotypic holds the CUDA runtime {_version(runtime)}, which needs a driver for CUDA {runtime // 1000}.0 or later; "
        + (f"the driver here serves CUDA {_version(driver)}" if driver else "there is no driver here")
    )


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
    runtime, driver = (0, 0) if extension is None else extension.cuda_versions()
    if extension is None:
        problems["cpu"] = problems["cuda"] = _extension.problem
    elif not targets:
        problems["cuda"] = "this build of isotypic has no CUDA kernels; it is built with them where nvcc is found"
    elif torch.version.cuda is None:
        problems["cuda"] = "this build of torch has no CUDA"
    elif not torch.cuda.is_available():
        problems["cuda"] = "torch finds no CUDA device"
    elif problem := driver_problem(runtime, driver):
        problems["cuda"] = problem
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
            "cuda_runtime": _version(runtime),
            "cuda_driver": _version(driver),
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
