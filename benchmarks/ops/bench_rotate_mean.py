"""The mean over 20 samples of turned points, 32 x 20 x 1024 x 3, one thread: against four forms in torch, eager and
compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, floor, record_floor
from torch import Tensor

import isotypic as iso

KERNELS = ("rotate_mean",)

FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda r, y: (y @ r.mT).mean(1),
    "einsum": lambda r, y: torch.einsum("bkij,bknj->bni", r, y) / y.shape[1],
    # One product for each b, over samples and coordinates together.
    "one product": lambda r, y: y.transpose(1, 2).flatten(2) @ (r.mT.flatten(1, 2) / y.shape[1]),
    "broadcast": lambda r, y: (y[..., None, :] * r[:, :, None]).sum(-1).mean(1),
}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_rotate_mean(benchmark: Any, backward: bool) -> None:
    r, y = torch.randn(32, 20, 3, 3), torch.randn(32, 20, 1024, 3)
    weight = torch.randn(32, 1024, 3)
    forms = FORMS | {f"{name} compiled": torch.compile(FORMS[name]) for name in ("broadcast", "matmul")}
    for form in forms.values():
        assert (form(r, y) - iso.ops.rotate_mean(r, y)).abs().max() < 1e-4
    r.requires_grad_(backward)
    y.requires_grad_(backward)
    benchmark.group = "rotate_mean"
    benchmark.extra_info.update(shape="32 x 20 x 1024 x 3", direction="forward+backward" if backward else "forward")

    def step(form: Callable[[Tensor, Tensor], Tensor]) -> Any:
        return torch.autograd.grad(form(r, y), (r, y), weight) if backward else form(r, y)

    compare(benchmark, lambda: step(iso.ops.rotate_mean), {name: lambda f=f: step(f) for name, f in forms.items()})
    # Points are read once; for their gradient they are read again, and it is written.
    record_floor(benchmark, floor(0, (3 if backward else 1) * y.numel() * 4, torch.float32))
