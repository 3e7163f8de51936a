"""Set convolutions against torch. One thread, 4 sets of 1,024 points on a grid of 128 x 128, as temperature fields have them.

Baselines of encoding, all in the same run:

    separable   the weights of each axis, and one batched product of matrices: the best form that torch has
    flushed     the same with denormal numbers flushed to zero, which torch does not do by itself; its tails are denormal
    compiled    the separable form through torch.compile
    dense       the weights of all pairs of a point and a node: what public code does
    neuralprocesses   `SetConvPDTo...` of that package, where it can be imported

Decoding is against the dense and the separable form, at 16 and 128 channels. Decoding of 128 channels, and against the dense form, sees one
set of points: the time is proportional to the number of sets, and takes seconds for four. `test_memory` bounds what the call takes beyond
its result.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare
from torch import Tensor

import isotypic as iso

BATCH, POINTS, NODES = 4, 1024, 128
SCALES = {"1 node": 1 / 64, "2 nodes": 2 / 64, "6 nodes": 6 / 64, "quarter": 0.5, "grid": 2.0}


def grid() -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, NODES), torch.linspace(-1, 1, NODES)


def axis_weights(x: Tensor, lengthscale: Tensor) -> list[Tensor]:
    return [torch.exp(-0.5 * ((nodes - x[..., k, None]) / lengthscale[k]).square()) for k, nodes in enumerate(grid())]


def separable(x: Tensor, y: Tensor, lengthscale: Tensor) -> Tensor:
    values = torch.cat([torch.ones_like(y), y], -1)
    first, second = axis_weights(x, lengthscale)
    left = (values[..., None] * first[:, :, None]).flatten(2)
    return torch.bmm(left.mT, second).view(x.shape[0], values.shape[2], NODES, NODES)


def dense(x: Tensor, y: Tensor, lengthscale: Tensor) -> Tensor:
    values = torch.cat([torch.ones_like(y), y], -1)
    nodes = torch.stack(torch.meshgrid(*grid(), indexing="ij"), -1).flatten(0, 1)
    distance = torch.cdist(x / lengthscale, (nodes / lengthscale).expand(x.shape[0], -1, -1))
    weights = torch.exp(-0.5 * distance.square())
    return (values.mT @ weights).view(x.shape[0], values.shape[2], NODES, NODES)


def separable_decode(values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    first, second = axis_weights(x, lengthscale)
    rows = torch.einsum("bcij,bnj->bnci", values, second)
    return (rows @ first[..., None])[..., 0]


def dense_decode(values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    nodes = torch.stack(torch.meshgrid(*grid(), indexing="ij"), -1).flatten(0, 1)
    distance = torch.cdist(x / lengthscale, (nodes / lengthscale).expand(x.shape[0], -1, -1))
    return torch.exp(-0.5 * distance.square()) @ values.flatten(2).mT


def operands(scale: str, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    return 2 * torch.rand(batch, POINTS, 2) - 1, torch.randn(batch, POINTS, 1), torch.full((2,), SCALES[scale])


def flushed(function: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        torch.set_flush_denormal(True)
        try:
            return function()
        finally:
            torch.set_flush_denormal(False)

    return call


def record(benchmark: Any, what: str, batch: int = BATCH, **more: Any) -> None:
    benchmark.group = f"set_conv {what}"
    benchmark.extra_info.update(operator="set_conv", what=what, batch=batch, points=POINTS, nodes=NODES, **more)


def record_each(benchmark: Any) -> None:
    info = benchmark.extra_info
    info["ratios"] = {name: seconds / benchmark.stats.stats.median for name, seconds in info["baselines"].items()}


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_encode(benchmark: Any, scale: str) -> None:
    x, y, lengthscale = operands(scale)
    record(benchmark, "encode, forward", scale=scale)
    compiled = torch.compile(separable)
    with torch.no_grad():
        ours = iso.ops.set_conv(x, y, grid(), lengthscale)
        assert (separable(x, y, lengthscale) - ours).norm() < 1e-5 * ours.norm()
        compare(
            benchmark,
            lambda: iso.ops.set_conv(x, y, grid(), lengthscale),
            {
                "separable": lambda: separable(x, y, lengthscale),
                "flushed": flushed(lambda: separable(x, y, lengthscale)),
                "compiled": lambda: compiled(x, y, lengthscale),
            },
        )
    record_each(benchmark)


@pytest.mark.parametrize("scale", ["2 nodes"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_encode_against_dense(benchmark: Any, scale: str) -> None:
    x, y, lengthscale = operands(scale)
    record(benchmark, "encode, forward, against the dense form", scale=scale)
    with torch.no_grad():
        compare(benchmark, lambda: iso.ops.set_conv(x, y, grid(), lengthscale), {"dense": lambda: dense(x, y, lengthscale)}, least=3)


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_encode_backward(benchmark: Any, scale: str) -> None:
    x, y, lengthscale = operands(scale)
    record(benchmark, "encode, forward + backward", scale=scale)
    leaves = tuple(t.requires_grad_() for t in (x, y, lengthscale))
    cotangent = torch.randn(BATCH, 2, NODES, NODES)

    def step(function: Callable[..., Tensor]) -> None:
        torch.autograd.grad(function(*leaves), leaves, cotangent)

    compiled = torch.compile(separable)
    compare(
        benchmark,
        lambda: step(lambda x, y, lengthscale: iso.ops.set_conv(x, y, grid(), lengthscale)),
        {"separable": lambda: step(separable), "flushed": flushed(lambda: step(separable)), "compiled": lambda: step(compiled)},
    )
    record_each(benchmark)


@pytest.mark.parametrize("scale", ["1 node", "2 nodes", "grid"])
@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_decode(benchmark: Any, channels: int, scale: str) -> None:
    batch = BATCH if channels == 16 else 1
    x, _, lengthscale = operands(scale, batch)
    values = torch.randn(batch, channels, NODES, NODES)
    record(benchmark, "decode, forward", batch=batch, channels=channels, scale=scale)
    with torch.no_grad():
        ours = iso.ops.set_conv_decode(values, grid(), x, lengthscale)
        assert (separable_decode(values, x, lengthscale) - ours).norm() < 1e-5 * ours.norm()
        compare(
            benchmark,
            lambda: iso.ops.set_conv_decode(values, grid(), x, lengthscale),
            {"separable": lambda: separable_decode(values, x, lengthscale)},
            least=5,
        )
    record_each(benchmark)


@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_decode_against_dense(benchmark: Any, channels: int) -> None:
    x, _, lengthscale = operands("2 nodes", batch=1)
    values = torch.randn(1, channels, NODES, NODES)
    record(benchmark, "decode, forward, against the dense form", batch=1, channels=channels, scale="2 nodes")
    with torch.no_grad():
        compare(
            benchmark,
            lambda: iso.ops.set_conv_decode(values, grid(), x, lengthscale),
            {"dense": lambda: dense_decode(values, x, lengthscale)},
            least=3,
        )


@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_against_neuralprocesses(benchmark: Any) -> None:
    peer = pytest.importorskip("neuralprocesses.torch", reason="neuralprocesses is not installed", exc_type=ImportError)
    x, y, lengthscale = operands("2 nodes")
    record(benchmark, "encode, forward, beside neuralprocesses", scale="2 nodes")
    layer = peer.SetConv(SCALES["2 nodes"])
    values = torch.cat([torch.ones_like(y), y], -1).mT.contiguous()
    nodes = tuple(n.expand(BATCH, 1, NODES) for n in grid())

    def theirs() -> Tensor:
        return peer.code(layer, x.mT, values, nodes)[1]

    with torch.no_grad():
        ours = iso.ops.set_conv(x, y, grid(), lengthscale)
        assert (theirs() - ours).norm() < 1e-3 * ours.norm()
        compare(benchmark, lambda: iso.ops.set_conv(x, y, grid(), lengthscale), {"neuralprocesses": theirs})


def test_memory() -> None:
    """The growth of the resident set over a call, beyond the result: at most 4 MB."""
    x, y, lengthscale = operands("2 nodes")
    iso.ops.set_conv(x[:, :8], y[:, :8], grid(), lengthscale)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = iso.ops.set_conv(x, y, grid(), lengthscale)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown - result.numel() * 4 < 4e6
