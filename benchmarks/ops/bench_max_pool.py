"""Maxima over windows against torch's `max_pool2d`, eager and compiled, in both orders of memory.

float32, one thread, fields (B, C, |G|, H, W) as the layers have them, and images with channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare
from torch import Tensor

import isotypic as iso

KERNELS = ("max_pool",)

SHAPES = {"p4m fields 32x32": (16, 8, 8, 32, 32), "p4 fields 56x56": (16, 16, 4, 56, 56)}
WINDOWS = {"2x2": (2, 2, 0), "3x3 with step 2": (3, 2, 1)}


@pytest.mark.parametrize("memory", ["contiguous", "channels last"])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_max_pool(benchmark: Any, name: str, window: str, direction: str, memory: str) -> None:
    benchmark.group = f"max pool {window}, {name}, {memory}, {direction}"
    benchmark.extra_info.update(shape=SHAPES[name], window=window, memory=memory, direction=direction)
    kernel, stride, padding = WINDOWS[window]
    x = torch.randn(SHAPES[name]).flatten(1, 2)
    if memory == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_(direction != "forward")

    def ours() -> Tensor:
        return iso.ops.max_pool(x, (kernel, kernel), (stride, stride), (padding, padding))

    def torchs() -> Tensor:
        return F.max_pool2d(x, kernel, stride, padding)

    gradient = torch.randn_like(torchs().detach())

    def step(function: Callable[[], Tensor]) -> Callable[[], Any]:
        return function if direction == "forward" else lambda: torch.autograd.grad(function(), x, gradient)

    torch.compiler.reset()
    compare(benchmark, step(ours), {"torch": step(torchs), "torch compiled": step(torch.compile(torchs))})
