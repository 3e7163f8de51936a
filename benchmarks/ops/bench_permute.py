"""Adjacency matrices in another order, one thread: against torch.gather along both axes, index_select along both, and advanced indexing,
eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, floor, fresh_pages, record_floor
from torch import Tensor

import isotypic as iso

KERNELS = ("permute",)


def gather(a: Tensor, order: Tensor) -> Tensor:
    rows = a.gather(1, order.reshape(*order.shape, *(1,) * (a.dim() - 2)).expand(a.shape))
    return rows.gather(2, order[:, None].reshape(len(a), 1, -1, *(1,) * (a.dim() - 3)).expand(a.shape))


def index_select(a: Tensor, order: Tensor) -> Tensor:
    return torch.stack([graph.index_select(0, o).index_select(1, o) for graph, o in zip(a, order, strict=True)])


def advanced(a: Tensor, order: Tensor) -> Tensor:
    return a[torch.arange(len(a))[:, None, None], order[:, :, None], order[:, None, :]]


@pytest.mark.parametrize(("batch", "n", "channels"), [(1, 444, 8), (8, 444, 8), (8, 444, 0), (1000, 64, 0), (1000, 64, 4)])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_adjacency(benchmark: Any, batch: int, n: int, channels: int, direction: str) -> None:
    a = torch.randn(batch, n, n, *([channels] if channels else []), requires_grad=direction != "forward")
    order = torch.stack([torch.randperm(n) for _ in range(batch)])
    g = torch.randn_like(a)
    forms = {"gather": gather, "index_select": index_select, "advanced": advanced, "advanced compiled": torch.compile(advanced)}
    for form in forms.values():
        assert torch.equal(iso.ops.permute_adjacency(a, order), form(a, order))
    benchmark.group = f"permute_adjacency {direction}"
    benchmark.extra_info.update(batch=batch, nodes=n, channels=channels, direction=direction)

    def step(form: Callable[[Tensor, Tensor], Tensor]) -> None:
        y = form(a, order)
        if direction != "forward":
            torch.autograd.grad(y, a, g)

    timed = {name: lambda f=f: step(f) for name, f in forms.items()}
    compare(benchmark, lambda: step(iso.ops.permute_adjacency), timed)
    pages = {"ours": lambda: step(iso.ops.permute_adjacency), "gather": timed["gather"]}
    benchmark.extra_info["fresh_pages"] = {name: fresh_pages(function) for name, function in pages.items()}
    # Read once, written once; the gradient likewise.
    record_floor(benchmark, floor(0, (1 if direction == "forward" else 2) * 2 * a.numel() * 4, torch.float32))
