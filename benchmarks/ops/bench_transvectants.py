"""SL2Net against the same network with dense Clebsch-Gordan products in torch, and its layer by itself.

One thread, batch 32, 4 layers, 50 channels, irreps up to 10, float32 and float64, without the frame. The baselines compute the same
function with the same weights, in three ways. Of the first two the fastest counts; the third is a column of its own:

    paths   every path by itself: einsum of both forms with its dense matrix (i, j, l), concatenated by degree, one matrix product for each
            degree. That is how such layers are written.
    pairs   the outer product of every pair of forms, flattened, times the matrices of all its paths side by side; then as above. Also
            compiled.
    published   (Lawrence and Harris, 2024) the outer product of every pair, one for each sample and channel, times the square matrix of all
            its irreps, in float64 whatever the type of the network is; those above the largest degree are then dropped. Their network also
            has weights for the paths (f, f)_k with odd k, which vanish; they are left out here, in favour of the baseline.

`bound` is the ratio of multiply-adds of the second to those of the kernel, which skips the zeros of the matrices; `most` the ratio that a
kernel would have which runs its multiply-adds at the rate of torch's largest products and spends no time on anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import TIMER, compare, floor, record_floor
from torch import Tensor, nn

import isotypic as iso
from isotypic.ops.forms.clebsch_gordan import clebsch_gordan

KERNELS = ("transvectants",)

BATCH, CHANNELS, LAYERS, MAX_DEGREE, DEGREE = 32, 50, 4, 10, 10


def dense_matrix(m: int, n: int, k: int) -> Tensor:
    """(m+1, n+1, m+n-2k+1)"""
    table, matrix = clebsch_gordan(m, n, k), torch.zeros(m + 1, n + 1, m + n - 2 * k + 1, dtype=torch.float64)
    for i in range(m + 1):
        for j in range(n + 1):
            if 0 <= i + j - k <= m + n - 2 * k:
                matrix[i, j, i + j - k] = table[i, j]
    return matrix


class Dense(nn.Module):
    """A layer `nn.Transvectants` by dense products, with its weights."""

    def __init__(self, layer: iso.nn.Transvectants, way: str) -> None:
        super().__init__()
        self.layer, self.way = layer, way
        self.degrees = layer.degrees_in
        dtype = layer.weight.dtype
        products = [(path, index) for index, path in enumerate(layer.paths) if path[1] < len(self.degrees)]
        self.skips = {self.degrees[path[0]]: index for index, path in enumerate(layer.paths) if path[1] == len(self.degrees)}
        self.pairs: list[tuple[int, int, list[tuple[int, int]], list[Tensor]]] = []
        for s, t in sorted({path[:2] for path, _ in products}):
            m, n = self.degrees[s], self.degrees[t]
            mine = [(path[2], index) for path, index in products if path[:2] == (s, t)]
            places = [(m + n - 2 * k, index) for k, index in mine]
            if way == "published":
                matrices = [torch.cat([dense_matrix(m, n, k) for k in range(min(m, n) + 1)], -1).flatten(0, 1).T.contiguous()]
            else:
                matrices = [dense_matrix(m, n, k).to(dtype) for k, _ in mine]
            self.pairs.append((s, t, places, [torch.cat(matrices, -1)] if way == "pairs" else matrices))
        # The weight of each degree, (O, paths * C), as a plain linear layer has it.
        self.order = {
            degree: [index for _, _, places, _ in self.pairs for other, index in places if other == degree]
            + ([self.skips[degree]] if degree in self.skips else [])
            for degree in layer.degrees_out
        }
        self.weights = nn.ParameterList(
            [
                nn.Parameter(layer.weight.detach()[:, index].permute(1, 0, 2).reshape(-1, layer.out_channels).T.contiguous())
                for index in self.order.values()
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        forms = x.split([degree + 1 for degree in self.degrees], -1)
        found: dict[int, list[Tensor]] = {degree: [] for degree in self.layer.degrees_out}
        for s, t, places, matrices in self.pairs:
            if self.way == "paths":
                for (degree, _), each in zip(places, matrices, strict=True):
                    found[degree].append(torch.einsum("bci,bcj,ijl->bcl", forms[s], forms[t], each))
            elif self.way == "published":
                outer = torch.bmm(forms[s].flatten(0, 1).unsqueeze(2), forms[t].flatten(0, 1).unsqueeze(1)).flatten(1).unsqueeze(2)
                irreps = torch.matmul(matrices[0], outer.double()).to(x.dtype).view(*x.shape[:2], -1)
                top = self.degrees[s] + self.degrees[t]
                for degree, _ in places:  # the irreps of degrees top, top - 2, .. lie one after the other
                    first = sum(range(degree + 3, top + 2, 2))
                    found[degree].append(irreps[..., first : first + degree + 1])
            else:
                outer = (forms[s].unsqueeze(-1) * forms[t].unsqueeze(-2)).flatten(-2)
                parts = (outer @ matrices[0].flatten(0, 1)).split([degree + 1 for degree, _ in places], -1)
                for (degree, _), part in zip(places, parts, strict=True):
                    found[degree].append(part)
        for degree, form in zip(self.degrees, forms, strict=True):
            if degree in self.skips:
                found[degree].append(form)
        return torch.cat([weight @ torch.cat(found[degree], 1) for degree, weight in zip(found, self.weights, strict=True)], -1)


def network(dtype: torch.dtype) -> iso.models.SL2Net:
    return iso.models.SL2Net(DEGREE, channels=CHANNELS, layers=LAYERS, max_degree=MAX_DEGREE, frame=False).to(dtype)


def dense_network(net: iso.models.SL2Net, way: str) -> iso.models.SL2Net:
    other = iso.models.SL2Net(net.degree, channels=CHANNELS, layers=LAYERS, max_degree=MAX_DEGREE, frame=False).to(
        next(net.parameters()).dtype
    )
    other.load_state_dict(net.state_dict())
    for index, layer in enumerate(other.layers):
        dense = Dense(layer, way)  # type: ignore[arg-type]
        dense.degrees_out, dense.out_channels = layer.degrees_out, layer.out_channels
        dense.layer.weight.requires_grad_(False)
        other.layers[index] = dense
    return other


def multiply_adds(net: iso.models.SL2Net) -> tuple[int, int]:
    """Of a sample: those of the kernel and those of dense matrices."""
    ours = dense = 0
    for layer in net.layers:
        degrees = [*layer.degrees_in, 0]
        rows = sum(degrees[s] + degrees[t] - 2 * k + 1 for s, t, k in layer.paths)
        mix = rows * layer.channels * layer.out_channels
        sparse = sum(int((clebsch_gordan(degrees[s], degrees[t], k) != 0).sum()) for s, t, k in layer.paths if t < len(degrees) - 1)
        full = sum(
            (degrees[s] + 1) * (degrees[t] + 1) * (degrees[s] + degrees[t] - 2 * k + 1) for s, t, k in layer.paths if t < len(degrees) - 1
        )
        ours += mix + sparse * layer.channels
        dense += mix + full * layer.channels
    return ours, dense


def record(benchmark: Any, net: iso.models.SL2Net, dtype: torch.dtype, direction: str) -> None:
    """`forward+backward` makes the products again in the gradients of the features and of the weights."""
    ours, dense = multiply_adds(net)
    benchmark.extra_info.update(bound=dense / ours)
    record_floor(benchmark, floor(2 * BATCH * ours * (1 if direction == "forward" else 3), 0, dtype))


def step(net: nn.Module, p: Tensor) -> Callable[[], Any]:
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        net(p).square().sum().backward()

    return run


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_network(benchmark: Any, dtype: torch.dtype, direction: str) -> None:
    net, p = network(dtype), torch.randn(BATCH, DEGREE + 1, dtype=dtype)
    dense = {way: dense_network(net, way) for way in ("paths", "pairs")}
    expected = net(p).detach()
    for other in dense.values():
        assert (other(p) - expected).norm() < 1e4 * torch.finfo(dtype).eps * expected.norm()
    benchmark.group = f"SL2Net {direction}"
    benchmark.extra_info.update(dtype=str(dtype), direction=direction)
    torch.compiler.reset()
    baselines: dict[str, Callable[[], Any]] = {}
    for way, other in {**dense, "pairs compiled": torch.compile(dense["pairs"])}.items():
        baselines[way] = (lambda other=other: other(p)) if direction == "forward" else step(other, p)
    with torch.set_grad_enabled(direction != "forward"):
        compare(benchmark, (lambda: net(p)) if direction == "forward" else step(net, p), baselines)
    record(benchmark, net, dtype, direction)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_network_as_published(benchmark: Any, dtype: torch.dtype, direction: str) -> None:
    net, p = network(dtype), torch.randn(BATCH, DEGREE + 1, dtype=dtype)
    published, expected = dense_network(net, "published"), net(p).detach()
    assert (published(p) - expected).norm() < 1e4 * torch.finfo(dtype).eps * expected.norm()
    benchmark.group = f"SL2Net {direction}, as published"
    benchmark.extra_info.update(dtype=str(dtype), direction=direction)
    if direction == "forward":
        with torch.no_grad():
            compare(benchmark, lambda: net(p), {"published": lambda: published(p)})
    else:
        compare(benchmark, step(net, p), {"published": step(published, p)})
    record(benchmark, net, dtype, direction)


@pytest.mark.parametrize("batch", [1, 32, 256])
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_layer(benchmark: Any, batch: int) -> None:
    degrees = list(range(0, MAX_DEGREE + 1, 2))
    layer = iso.nn.Transvectants(degrees, MAX_DEGREE, CHANNELS)
    x = torch.randn(batch, CHANNELS, sum(degrees) + len(degrees))
    dense = {way: Dense(layer, way) for way in ("paths", "pairs")}
    benchmark.group = "Transvectants forward"
    benchmark.extra_info.update(batch=batch)
    with torch.no_grad():
        compare(benchmark, lambda: layer(x), {way: lambda other=other: other(x) for way, other in dense.items()})
