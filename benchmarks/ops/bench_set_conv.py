"""Set convolutions against torch. One thread, 4 sets of 1,024 points on a grid of 128 x 128, as temperature fields have them.

Baselines of encoding, all in the same run:

    separable   the weights of each axis, and one batched product of matrices: the best form that torch has
    flushed     the same with denormal numbers flushed to zero, which torch does not do by itself; its tails are denormal
    compiled    the separable form through torch.compile
    dense       the weights of all pairs of a point and a node: what public code does
    neuralprocesses   `SetConvPDTo...` of that package, where it can be imported

Decoding is against the dense and the separable form, at 16 and 128 channels. Decoding of 128 channels, and against the dense form, sees one
set of points: the time is proportional to the number of sets, and takes seconds for four. `extra_bytes` is what a call takes beyond its
result, in a process of its own; `kept` what the graph holds for the gradient.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, kept
from torch import Tensor

import isotypic as iso

KERNELS = ("set_conv",)

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


def extra_bytes() -> int:
    """The growth of the resident set over a call at 2 nodes, beyond the result."""
    program = """
import resource, torch, isotypic as iso

torch.set_num_threads(1)
x, y, grid = 2 * torch.rand(4, 1024, 2) - 1, torch.randn(4, 1024, 1), (torch.linspace(-1, 1, 128),) * 2
iso.ops.set_conv(x[:, :8], y[:, :8], grid, 2 / 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = iso.ops.set_conv(x, y, grid, 2 / 64)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) - result.numel() * 4)
"""
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("scale", list(SCALES))
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_encode(benchmark: Any, scale: str) -> None:
    x, y, lengthscale = operands(scale)
    record(benchmark, "encode, forward", scale=scale)
    if scale == "2 nodes":
        benchmark.extra_info["extra_bytes"] = extra_bytes()
        assert benchmark.extra_info["extra_bytes"] < 4e6
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

    def ours(x: Tensor, y: Tensor, lengthscale: Tensor) -> Tensor:
        return iso.ops.set_conv(x, y, grid(), lengthscale)

    compiled = torch.compile(separable)
    benchmark.extra_info.update(kept=kept(ours, *leaves), kept_separable=kept(separable, *leaves))
    compare(
        benchmark,
        lambda: step(ours),
        {"separable": lambda: step(separable), "flushed": flushed(lambda: step(separable)), "compiled": lambda: step(compiled)},
        seconds=2,
    )


@pytest.mark.parametrize("scale", ["1 node", "2 nodes", "grid"])
@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_decode(benchmark: Any, channels: int, scale: str) -> None:
    batch = BATCH if channels == 16 else 1
    x, _, lengthscale = operands(scale, batch)
    values = torch.randn(batch, channels, NODES, NODES)
    record(benchmark, "decode, forward", batch=batch, channels=channels, scale=scale)
    compiled = torch.compile(separable_decode)
    with torch.no_grad():
        ours = iso.ops.set_conv_decode(values, grid(), x, lengthscale)
        assert (separable_decode(values, x, lengthscale) - ours).norm() < 1e-5 * ours.norm()
        compare(
            benchmark,
            lambda: iso.ops.set_conv_decode(values, grid(), x, lengthscale),
            {
                "separable": lambda: separable_decode(values, x, lengthscale),
                "flushed": flushed(lambda: separable_decode(values, x, lengthscale)),
                "compiled": lambda: compiled(values, x, lengthscale),
            },
            least=5,
        )


@pytest.mark.parametrize("scale", ["2 nodes", "grid"])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_decode_backward(benchmark: Any, scale: str) -> None:
    channels, batch = 16, 1
    x, _, lengthscale = operands(scale, batch)
    leaves = tuple(t.requires_grad_() for t in (torch.randn(batch, channels, NODES, NODES), x, lengthscale))
    record(benchmark, "decode, forward + backward", batch=batch, channels=channels, scale=scale)
    cotangent = torch.randn(batch, POINTS, channels)

    def step(function: Callable[..., Tensor]) -> None:
        torch.autograd.grad(function(*leaves), leaves, cotangent)

    def ours(values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
        return iso.ops.set_conv_decode(values, grid(), x, lengthscale)

    compiled = torch.compile(separable_decode)
    benchmark.extra_info.update(kept=kept(ours, *leaves), kept_separable=kept(separable_decode, *leaves))
    compare(
        benchmark,
        lambda: step(ours),
        {
            "separable": lambda: step(separable_decode),
            "flushed": flushed(lambda: step(separable_decode)),
            "compiled": lambda: step(compiled),
        },
        least=5,
    )


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
    try:
        import neuralprocesses.torch as peer
    except Exception as error:  # not installed, or one of the packages that it needs
        pytest.skip(f"neuralprocesses cannot be imported: {error!r}")
    x, y, lengthscale = operands("2 nodes")
    record(benchmark, "encode, forward, beside neuralprocesses", scale="2 nodes")
    layer = peer.SetConv(SCALES["2 nodes"])
    values = torch.cat([torch.ones_like(y), y], -1).mT.contiguous()
    nodes = tuple(n.expand(BATCH, 1, NODES) for n in grid())

    def theirs() -> Tensor:
        return peer.code(layer, x.mT, values, nodes, root=True)[1]

    with torch.no_grad():
        ours = iso.ops.set_conv(x, y, grid(), lengthscale)
        assert (theirs() - ours).norm() < 1e-3 * ours.norm()
        compare(benchmark, lambda: iso.ops.set_conv(x, y, grid(), lengthscale), {"neuralprocesses": theirs})
