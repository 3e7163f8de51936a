"""Builds the host emulation of CUDA kernels that a test file runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # in the order of csrc/core/view.hpp


class View(tuple[int, int, list[int], list[int]]):
    """Address, dtype, sizes and strides of a tensor, which lives as long as this does: ``run(view(x.clone()))`` is safe."""

    tensor: Tensor


def view(tensor: Tensor | None) -> View | None:
    """A tensor as the emulated kernels take it."""
    if tensor is None:
        return None
    made = View((tensor.data_ptr(), DTYPES.index(tensor.dtype), list(tensor.shape), list(tensor.stride())))
    made.tensor = tensor
    return made


# With these the compiler calls csrc/cuda/emulation/checker.cpp at every access to memory, and leaves copies of structures to the library.
INSTRUMENTED = ["-DISOTYPIC_CHECK", "-g", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]
INSTRUMENTED += [f"-m{copy}-strategy=libcall:-1:align" for copy in ("memset", "memcpy")]
WRAPPED = ["-Wl,-Bsymbolic", *(f"-Wl,--wrap={copy}" for copy in ("memcpy", "memmove", "memset"))]
CHECK = "ISOTYPIC_CHECK_EMULATION"  # a file for reports: every module that is built then checks itself
CHECK_OPTIONS = "ISOTYPIC_CHECK_OPTIONS"  # JSON, of check()


def build(operator: str, *, checked: bool | None = None) -> ModuleType:
    """The module from csrc/cuda/emulation/`operator`.cpp, compiled once for each state of its sources; skips where that cannot be done.

    ``checked``: every access to memory goes through checker.cpp; by default where the environment asks for it (tools/check_cuda.py).
    """
    asked = os.environ.get(CHECK)
    checked = bool(asked) if checked is None else checked
    name = f"emulated_{operator}"
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the emulation of CUDA kernels needs g++ on Linux")
    csrc = ROOT / "csrc"
    sources = sorted(path for folder in ("core", "cuda", "cuda/emulation", "ops") for path in (csrc / folder).iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + sys.version.encode()).hexdigest()[:16]
    library = ROOT / "build" / "emulation" / digest / ("checked" if checked else "") / f"{name}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(f".{os.getpid()}")  # tests may run in several processes
        flags = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-w", "-DISOTYPIC_EMULATE", "-fPIC", "-fvisibility=hidden"]
        includes = [f"-I{folder}" for folder in (csrc, pybind11.get_include(), sysconfig.get_paths()["include"])]
        emulation = csrc / "cuda" / "emulation"
        compile_to = [compiler, *flags, *includes]
        if checked:
            objects = Path(f"{partial}.o"), library.parent / "checker.o"
            subprocess.run([*compile_to, *INSTRUMENTED, "-c", str(emulation / f"{operator}.cpp"), "-o", str(objects[0])], check=True)
            if not objects[1].exists():
                checker = [*compile_to, "-DISOTYPIC_CHECK", "-g", "-O2", "-c", str(emulation / "checker.cpp"), "-o", f"{partial}.checker"]
                subprocess.run(checker, check=True)
                Path(f"{partial}.checker").rename(objects[1])
            subprocess.run([compiler, "-shared", *WRAPPED, *map(str, objects), "-o", str(partial), "-ldl"], check=True)
        else:
            subprocess.run([*compile_to, "-shared", str(emulation / f"{operator}.cpp"), "-o", str(partial)], check=True)
        partial.rename(library)
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if checked:
        module.check(asked or "", **json.loads(os.environ.get(CHECK_OPTIONS, "{}")))
    return module
