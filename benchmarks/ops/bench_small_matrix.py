"""100,000 matrices 3 x 3, one thread: frames against torch.linalg.qr with its signs mended and against Gram-Schmidt in torch, eager and
compiled; eigenvectors against eigh, polar factors against svd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare
from torch import Tensor

import isotypic as iso

KERNELS = ("small_matrix",)

COUNT = 100_000


def qr(v: Tensor) -> Tensor:
    q, r = torch.linalg.qr(v)
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def gram_schmidt(v: Tensor) -> Tensor:
    columns: list[Tensor] = []
    for column in v.unbind(-1):
        for q in columns:
            column = column - (q * column).sum(-1, keepdim=True) * q
        columns.append(torch.nn.functional.normalize(column, dim=-1))
    return torch.stack(columns, -1)


def svd_polar(a: Tensor) -> tuple[Tensor, Tensor]:
    u, sigma, vt = torch.linalg.svd(a)
    return u @ vt, vt.mT @ (sigma[..., None] * vt)


def frame(v: Tensor) -> Tensor:
    return iso.ops.orthonormal_frame(v).frame


def run(
    benchmark: Any, name: str, a: Tensor, ours: Callable[[Tensor], Any], baselines: dict[str, Callable[[Tensor], Any]], backward: bool
) -> None:
    benchmark.group = f"{name} {'forward+backward' if backward else 'forward'}"
    benchmark.extra_info.update(matrices=COUNT, d=a.shape[-1], dtype=str(a.dtype), direction="forward+backward" if backward else "forward")

    def step(function: Callable[[Tensor], Any]) -> Any:
        if not backward:
            return function(a)
        outputs = function(a)
        return torch.autograd.grad(outputs, a, cotangents)

    outputs = ours(a)
    cotangents = [torch.randn_like(y) for y in ((outputs,) if isinstance(outputs, Tensor) else outputs)]
    a.requires_grad_(backward)
    compare(benchmark, lambda: step(ours), {key: lambda f=f: step(f) for key, f in baselines.items()}, seconds=5, least=5)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_frame(benchmark: Any, dtype: torch.dtype, backward: bool) -> None:
    v = torch.randn(COUNT, 3, 3, dtype=dtype)
    assert (frame(v) - qr(v)).abs().median() < 1e-5
    baselines = {"qr": qr, "gram_schmidt": gram_schmidt, "gram_schmidt compiled": torch.compile(gram_schmidt)}
    run(benchmark, "orthonormal_frame", v, frame, baselines, backward)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_eigen(benchmark: Any, dtype: torch.dtype, backward: bool) -> None:
    a = torch.randn(COUNT, 3, 3, dtype=dtype)
    a = a + a.mT
    ours = lambda a: iso.ops.symmetric_eigen(a)[:2]  # noqa: E731
    assert (ours(a)[0] - torch.linalg.eigh(a)[0]).abs().max() < 1e-4
    run(benchmark, "symmetric_eigen", a, ours, {"eigh": lambda a: tuple(torch.linalg.eigh(a))}, backward)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_polar(benchmark: Any, dtype: torch.dtype, backward: bool) -> None:
    a = torch.randn(COUNT, 3, 3, dtype=dtype)
    ours = lambda a: iso.ops.polar(a)[:2]  # noqa: E731
    assert (ours(a)[1] - svd_polar(a)[1]).abs().max() < 1e-4
    run(benchmark, "polar", a, ours, {"svd": svd_polar}, backward)
