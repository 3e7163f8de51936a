"""Builds the host emulation of CUDA kernels that a test file runs."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(name: str, source: str) -> ModuleType:
    """The module `name` from csrc/cuda/`source`, compiled once for each state of its sources; skips where that cannot be done."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the emulation of CUDA kernels needs g++ on Linux")
    csrc = ROOT / "csrc"
    sources = sorted(path for folder in ("core", "cuda", "ops") for path in (csrc / folder).iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + sys.version.encode()).hexdigest()[:16]
    library = ROOT / "build" / "emulation" / digest / f"{name}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(".partial")
        flags = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-w", "-DISOTYPIC_EMULATE", "-shared", "-fPIC", "-fvisibility=hidden"]
        includes = [f"-I{folder}" for folder in (csrc, pybind11.get_include(), sysconfig.get_paths()["include"])]
        subprocess.run([compiler, *flags, *includes, str(csrc / "cuda" / source), "-o", str(partial)], check=True)
        partial.rename(library)
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
