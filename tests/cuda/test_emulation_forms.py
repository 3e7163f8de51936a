"""The CUDA kernels on binary forms on the host emulation, against the definitions in float64: what they compute, not how fast."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from isotypic.ops import reference_forms, transvectant_paths
from isotypic.ops._clebsch_gordan import clebsch_gordan

ROOT = Path(__file__).resolve().parents[2]
# Degrees of the forms, largest degree of the results, batch, channels, output channels: no multiples of a block's 256 threads.
CASES = [([2], 4, 3, 1, 1), ([0, 2, 3], 5, 2, 5, 7), ([1, 1, 4], 3, 1, 3, 300), ([6, 8], 14, 2, 40, 3)]


@pytest.fixture(scope="session")
def module() -> ModuleType:
    """The module _cuda_emulation_forms, compiled once for each state of its sources."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the emulation of CUDA kernels needs g++ on Linux")
    csrc = ROOT / "csrc"
    sources = sorted(path for folder in ("core", "cuda", "ops") for path in (csrc / folder).iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + sys.version.encode()).hexdigest()[:16]
    library = ROOT / "build" / "emulation" / digest / "_cuda_emulation_forms.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_suffix(".partial")
        flags = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-w", "-DISOTYPIC_EMULATE", "-shared", "-fPIC", "-fvisibility=hidden"]
        includes = [f"-I{folder}" for folder in (csrc, pybind11.get_include(), sysconfig.get_paths()["include"])]
        subprocess.run([compiler, *flags, *includes, str(csrc / "cuda" / "emulation_forms.cpp"), "-o", str(partial)], check=True)
        partial.rename(library)
    spec = importlib.util.spec_from_file_location("_cuda_emulation_forms", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def emulation(module: ModuleType, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """With the threads in either order: a missing barrier shows in reverse."""
    module.configure(request.param)
    yield module
    module.configure(False)


def view(tensor: Tensor) -> tuple[int, bool, list[int]]:
    assert tensor.is_contiguous()
    return tensor.data_ptr(), tensor.dtype == torch.float64, list(tensor.shape)


def close(result: Tensor, expected: Tensor) -> bool:
    return bool((result.double() - expected).norm() <= 64 * torch.finfo(result.dtype).eps * expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("degree", [0, 1, 2, 7, 23])
def test_form_action(emulation: ModuleType, degree: int, dtype: torch.dtype) -> None:
    p, g = torch.randn(67, degree + 1, dtype=dtype), torch.randn(67, 2, 2, dtype=dtype)
    g /= torch.linalg.matrix_norm(g, 2)[:, None, None]
    y = torch.full_like(p, float("nan"))
    emulation.form_action(view(p), view(g), view(y))
    assert close(y, reference_forms.form_action(p.double(), g.double()))


def test_form_action_of_too_high_a_degree(module: ModuleType) -> None:
    p, g = torch.randn(1, 66), torch.randn(1, 2, 2)
    with pytest.raises(RuntimeError, match=r"^form_action: the degree must be at most 64 on a CUDA device, got 65"):
        module.form_action(view(p), view(g), view(p.clone()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("degrees", "highest", "batch", "channels", "out_channels"), CASES)
def test_transvectants(
    emulation: ModuleType, degrees: list[int], highest: int, batch: int, channels: int, out_channels: int, dtype: torch.dtype
) -> None:
    paths = transvectant_paths(degrees, highest)
    reached = list(dict.fromkeys(degrees[s] + degrees[t] - 2 * k for s, t, k in paths))
    tables = [value for s, t, k in paths for value in clebsch_gordan(degrees[s], degrees[t], k).ravel().tolist()]
    plan = emulation.Plan(degrees, reached, [number for path in paths for number in path], tables)

    def q(f: Tensor, weight: Tensor) -> Tensor:
        return reference_forms.transvectants(f, weight, degrees=degrees, paths=paths)

    f, h = torch.randn(2, batch, channels, sum(degrees) + len(degrees), dtype=dtype)
    weight = torch.randn(channels, len(paths), out_channels, dtype=dtype)
    z = torch.randn(batch, out_channels, sum(reached) + len(reached), dtype=dtype)
    f64, h64, weight64 = (tensor.double().requires_grad_() for tensor in (f, h, weight))
    single = q(f64, weight64)
    polar = q(f64 + h64, weight64) - q(f64, weight64) - q(h64, weight64)
    (single_weight,) = torch.autograd.grad(single, weight64, z.double())
    polar_input, polar_weight = torch.autograd.grad(polar, (h64, weight64), z.double())

    def run(name: str, like: Tensor, *tensors: Any) -> Tensor:
        result = torch.full_like(like, float("nan"))
        getattr(emulation, name)(plan, *(None if tensor is None else view(tensor) for tensor in tensors), view(result))
        return result

    assert close(run("transvectants", z, f, None, weight), single.detach())
    assert close(run("transvectants", z, f, h, weight), polar.detach())
    assert close(run("transvectants_input", f, f, weight, z), polar_input)
    assert close(run("transvectants_weight", weight, f, None, z), single_weight)
    assert close(run("transvectants_weight", weight, f, h, z), polar_weight)
