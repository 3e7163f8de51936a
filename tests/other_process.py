"""What tests/test_fuzz.py runs in processes that are forked or spawned, which must be importable by name."""

from __future__ import annotations

from typing import Any

import torch

import isotypic as iso


def result() -> float:
    torch.manual_seed(1)
    layer = iso.nn.GroupConv2d(4, 4, 3, group="p4", padding=1)
    y = layer(torch.randn(2, 4, 4, 9, 9))
    y.sum().backward()
    return float(y.detach().double().sum())


def put_result(queue: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    queue.put(result())
