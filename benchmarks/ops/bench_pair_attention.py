"""Attention with an MLP on each pair against the same in torch, which makes arrays of all pairs. One thread, W = 128, 8 heads of
16.

`materialised` is the reference form, `compiled` the same through torch.compile. `kept` is what the graph holds for the gradient; at 1,024
points it is at most 2 % of what the materialised form keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, kept, record_floor
from compare import floor as least_time
from torch import Tensor

import isotypic as iso
from isotypic.ops.processes import reference

KERNELS = ("pair_attention",)

HEADS, WIDTH, HIDDEN, DIM = 8, 16, 128, 2


def operands(points: int, mode: str) -> tuple[Tensor, ...]:
    inputs = DIM + (HEADS if mode == "mix" else 0)
    q, k, v = (torch.randn(1, HEADS, points, WIDTH) for _ in range(3))
    layers = [(torch.randn(m, n) / n**0.5, torch.randn(m)) for n, m in ((inputs, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HEADS))]
    return q, k, v, torch.randn(1, points, DIM), torch.randn(1, points, DIM), *(t for layer in layers for t in layer)


def ours(mode: str, reduce: str) -> Callable[..., Tensor]:
    def call(*t: Tensor) -> Tensor:
        return iso.ops.pair_attention(*t[:5], (t[5:7], t[7:9], t[9:11]), mode=mode, reduce=reduce)

    return call


def materialised(mode: str, reduce: str) -> Callable[..., Tensor]:
    def call(*t: Tensor) -> Tensor:
        return reference.pair_attention(*t[:5], (t[5:7], t[7:9], t[9:11]), mode, reduce)

    return call


def flops(points: int, mode: str) -> float:
    inputs = DIM + (HEADS if mode == "mix" else 0)
    return 2.0 * points * points * (inputs * HIDDEN + HIDDEN * HIDDEN + HIDDEN * HEADS + 2 * HEADS * WIDTH)


def record(benchmark: Any, direction: str, points: int, mode: str, reduce: str) -> None:
    benchmark.group = f"pair_attention {direction}"
    benchmark.extra_info.update(operator="pair_attention", direction=direction, points=points, mode=mode, reduce=reduce)


CASES = [(512, "mix", "softmax"), (512, "bias", "softmax"), (128, "mix", "softmax"), (128, "mix", "sum")]


@pytest.mark.parametrize(("points", "mode", "reduce"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward(benchmark: Any, points: int, mode: str, reduce: str) -> None:
    tensors = operands(points, mode)
    record(benchmark, "forward", points, mode, reduce)
    kernel, eager = ours(mode, reduce), materialised(mode, reduce)
    compiled = torch.compile(eager)
    with torch.no_grad():
        expected = eager(*tensors)
        assert (kernel(*tensors) - expected).norm() < 1e-4 * expected.norm()
        compare(
            benchmark, lambda: kernel(*tensors), {"materialised": lambda: eager(*tensors), "compiled": lambda: compiled(*tensors)}, least=5
        )
    record_floor(benchmark, least_time(flops(points, mode), 0, torch.float32))


@pytest.mark.parametrize(("points", "mode", "reduce"), CASES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_forward_backward(benchmark: Any, points: int, mode: str, reduce: str) -> None:
    tensors = tuple(t.requires_grad_() for t in operands(points, mode))
    record(benchmark, "forward + backward", points, mode, reduce)
    kernel, eager = ours(mode, reduce), materialised(mode, reduce)
    compiled = torch.compile(eager)
    cotangent = torch.randn(1, HEADS, points, WIDTH)

    def step(function: Callable[..., Tensor]) -> None:
        torch.autograd.grad(function(*tensors), tensors, cotangent)

    compare(benchmark, lambda: step(kernel), {"materialised": lambda: step(eager), "compiled": lambda: step(compiled)}, least=5)
    record_floor(benchmark, least_time(4 * flops(points, mode), 0, torch.float32))


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_kept(benchmark: Any) -> None:
    """The forward pass at 1,024 points with a gradient to come, and what it keeps."""
    tensors = tuple(t.requires_grad_() for t in operands(1024, "mix"))
    sizes = [kept(function, *tensors) for function in (ours("mix", "softmax"), materialised("mix", "softmax"))]
    record(benchmark, "forward, keeping what the gradient needs", 1024, "mix", "softmax")
    benchmark.extra_info.update(kept=sizes[0], kept_materialised=sizes[1], share=sizes[0] / sizes[1])
    assert sizes[0] <= 0.02 * sizes[1], sizes
    benchmark.pedantic(lambda: ours("mix", "softmax")(*tensors), rounds=3, iterations=1)
