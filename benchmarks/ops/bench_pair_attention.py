"""Attention with an MLP on each pair against the same in torch, which makes arrays of all pairs. One thread, W = 128, 8 heads of
16.

`materialised` is the reference form, `compiled` the same through torch.compile. `saved` is what autograd keeps for the gradient, as a share
of what it keeps for the materialised form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from compare import TIMER, compare, record_floor
from compare import floor as least_time
from torch import Tensor

import isotypic as iso
from isotypic.ops.processes import reference

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


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    sizes: dict[int, int] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        total[0] = sum(sizes.values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield total


@pytest.mark.parametrize(("mode", "reduce"), [("mix", "softmax"), ("bias", "softmax"), ("mix", "sum")])
@pytest.mark.parametrize("points", [128, 512])
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


@pytest.mark.parametrize(("mode", "reduce"), [("mix", "softmax"), ("bias", "softmax"), ("mix", "sum")])
@pytest.mark.parametrize("points", [128, 512])
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


def test_saved_memory() -> None:
    """At most 2 % of the materialised form at 1,024 points."""
    tensors = tuple(t.requires_grad_() for t in operands(1024, "mix"))
    shares = []
    for function in (ours("mix", "softmax"), materialised("mix", "softmax")):
        with saved_bytes() as total:
            function(*tensors)
        shares.append(total[0])
    assert shares[0] <= 0.02 * shares[1], shares
