"""Adjacency matrices in another order, one thread: against torch.gather along both axes, against index_select along both, and against
advanced indexing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compare import TIMER, compare
from torch import Tensor

import isotypic as iso


def gather(a: Tensor, order: Tensor) -> Tensor:
    rows = a.gather(1, order.reshape(*order.shape, *(1,) * (a.dim() - 2)).expand(a.shape))
    return rows.gather(2, order[:, None].reshape(len(a), 1, -1, *(1,) * (a.dim() - 3)).expand(a.shape))


def index_select(a: Tensor, order: Tensor) -> Tensor:
    return torch.stack([graph.index_select(0, o).index_select(1, o) for graph, o in zip(a, order, strict=True)])


def advanced(a: Tensor, order: Tensor) -> Tensor:
    return a[torch.arange(len(a))[:, None, None], order[:, :, None], order[:, None, :]]


@pytest.mark.parametrize("against", [gather, index_select, advanced], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("batch", "n", "channels"), [(1, 444, 8), (8, 444, 8), (8, 444, 0), (1000, 64, 0), (1000, 64, 4)])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_adjacency(benchmark: Any, batch: int, n: int, channels: int, against: Any) -> None:
    a = torch.randn(batch, n, n, *([channels] if channels else []))
    order = torch.stack([torch.randperm(n) for _ in range(batch)])
    assert torch.equal(iso.ops.permute_adjacency(a, order), against(a, order))
    benchmark.group = f"permute_adjacency against {against.__name__}"
    benchmark.extra_info.update(batch=batch, nodes=n, channels=channels, direction="forward")
    compare(benchmark, lambda: iso.ops.permute_adjacency(a, order), {against.__name__: lambda: against(a, order)})
