"""Operators on multivectors and one block of the transformer, one thread, float32.

products    8,192 multivectors, against the dense einsum, straight-line torch over components and lgatr's product, eager and compiled
linear      1,024 items of 16 channels, against one GEMM on the expanded weight and lgatr's linear layer, dense and sparse
attention   512 items, 8 heads, against torch's attention on features that multiply out the distance
block       512 items, 16 multivector and 128 scalar channels, against dense basis einsums with torch's attention, and lgatr's block
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare, floor, record_floor
from torch import Tensor

import isotypic as iso
from isotypic.ops.algebra import attention_reference, reference
from isotypic.ops.algebra.signature import algebra as signature

lgatr = pytest.importorskip("lgatr")
from lgatr.layers import LGATrBlock  # noqa: E402
from lgatr.primitives import bilinear as lgatr_bilinear  # noqa: E402
from lgatr.primitives import linear as lgatr_linear  # noqa: E402
from lgatr.primitives.config import PrimitivesConfig  # noqa: E402

COUNT = 8192
timed = pytest.mark.benchmark(timer=TIMER, warmup=False)
Product = Callable[[Tensor, Tensor], Tensor]


def straight_line(table: Any) -> Product:
    """Torch on one component after the other, without the terms that are zero."""
    terms = [[(j, k, int(table[i, j, k])) for j in range(16) for k in range(16) if table[i, j, k]] for i in range(16)]

    def product(x: Tensor, y: Tensor) -> Tensor:
        a, b = x.unbind(-1), y.unbind(-1)
        return torch.stack([sum((s * a[j] * b[k] for j, k, s in row), torch.zeros_like(a[0])) for row in terms], -1)

    return product


def products(name: str, kind: str) -> tuple[Product, dict[str, Product]]:
    table = getattr(signature(name), kind)
    dense: Product = lambda x, y: reference.product(x, y, None, f"{name} {kind}")  # noqa: E731
    one_by_one = straight_line(table)
    baselines = {"einsum": dense, "straight-line": one_by_one}
    baselines |= {"einsum compiled": torch.compile(dense), "straight-line compiled": torch.compile(one_by_one)}
    if name == "sta":
        config = PrimitivesConfig()
        peer: Product = lambda x, y: lgatr_bilinear.geometric_product(x, y, config=config)  # noqa: E731
        baselines |= {"lgatr": peer, "lgatr compiled": torch.compile(peer)}
    if kind == "join":
        ones = torch.zeros(16)
        ones[14] = 1.0
        return lambda x, y: iso.ops.equi_join(x, y, ones), baselines
    return lambda x, y: iso.ops.geometric_product(x, y, name), baselines


def record(benchmark: Any, group: str, **info: Any) -> None:
    benchmark.group = group
    benchmark.extra_info.update(info)


@pytest.mark.parametrize(("name", "kind"), [("pga", "geometric"), ("sta", "geometric"), ("pga", "join")])
@timed
def test_product(benchmark: Any, name: str, kind: str) -> None:
    x, y = torch.randn(2, COUNT, 16)
    ours, baselines = products(name, kind)
    expected = ours(x, y)
    for function in baselines.values():
        assert (function(x, y) - expected).norm() < 1e-5 * expected.norm()
    record(benchmark, "multivector product", algebra=name, product=kind, direction="forward", multivectors=COUNT)
    compare(benchmark, lambda: ours(x, y), {n: lambda f=f: f(x, y) for n, f in baselines.items()})
    record_floor(benchmark, floor(2 * 192 * COUNT, 192 * COUNT, torch.float32))


@pytest.mark.parametrize(("name", "kind"), [("pga", "geometric"), ("sta", "geometric")])
@timed
def test_product_backward(benchmark: Any, name: str, kind: str) -> None:
    x, y = (t.requires_grad_() for t in torch.randn(2, COUNT, 16))
    g = torch.randn(COUNT, 16)
    ours, baselines = products(name, kind)

    def step(function: Product) -> None:
        torch.autograd.grad(function(x, y), (x, y), g)

    record(benchmark, "multivector product", algebra=name, product=kind, direction="forward+backward", multivectors=COUNT)
    compare(benchmark, lambda: step(ours), {n: lambda f=f: step(f) for n, f in baselines.items()})


@pytest.mark.parametrize("name", ["pga", "sta"])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@timed
def test_linear(benchmark: Any, name: str, direction: str) -> None:
    items, channels = 1024, 16
    known = signature(name)
    maps = torch.as_tensor(known.linear, dtype=torch.float32)
    x, weight = torch.randn(items, channels, 16), torch.randn(channels, channels, known.maps)

    def gemm(x: Tensor, weight: Tensor) -> Tensor:
        expanded = (weight.flatten(0, 1) @ maps.flatten(1)).view(channels, channels, 16, 16).permute(1, 3, 0, 2)
        return (x.flatten(1) @ expanded.reshape(channels * 16, -1)).view(items, channels, 16)

    def einsum(x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("oca,aij,ncj->noi", weight, maps, x)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return iso.ops.multivector_linear(x, weight, name)

    baselines: dict[str, Product] = {"gemm": gemm, "gemm compiled": torch.compile(gemm), "einsum": einsum}
    if name == "sta":
        for sparse in (False, True):
            config = PrimitivesConfig(sparse_linear=sparse)
            peer: Product = lambda x, w, c=config: lgatr_linear.equi_linear(x, w, config=c)  # noqa: E731
            baselines |= {f"lgatr sparse={sparse}": peer, f"lgatr sparse={sparse} compiled": torch.compile(peer)}
    expected = ours(x, weight)
    for function in baselines.values():
        assert (function(x, weight) - expected).norm() < 1e-4 * expected.norm()
    g = torch.randn_like(expected)
    if direction != "forward":
        x.requires_grad_(), weight.requires_grad_()

    def step(function: Product) -> None:
        y = function(x, weight)
        if direction != "forward":
            torch.autograd.grad(y, (x, weight), g)

    record(benchmark, "multivector linear", algebra=name, direction=direction, items=items, channels=channels)
    compare(benchmark, lambda: step(ours), {n: lambda f=f: step(f) for n, f in baselines.items()})


def multiplied_out(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The published features: inner products and the square of the distance multiplied out; (B, H, N, C, 16) -> (B, H, N, 13 C)."""
    inner = torch.tensor(attention_reference.inner_signs("pga")).bool()

    def point(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = x[..., 14:15] / (x[..., 14:15].square() + attention_reference.EPSILON)
        return x[..., 11:14] * scale, x[..., 14:15] * scale

    (p, v), (r, w) = point(q), point(k)
    left = torch.cat([q[..., inner], p.square().sum(-1, keepdim=True), v.square(), v * p], -1)
    right = torch.cat([k[..., inner], -w.square(), -r.square().sum(-1, keepdim=True), 2 * w * r], -1)
    return left.flatten(-2), right.flatten(-2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, qs: Tensor, ks: Tensor, vs: Tensor, *, heads: int, **_: Any) -> tuple[Tensor, Tensor]:
    """torch's attention on the published features, keys shared by all heads."""
    split = [attention_reference.by_head(t, h, 1) for t, h in ((q, heads), (k, 1), (v, 1))]
    scalars = [attention_reference.by_head(t, h, 0) for t, h in ((qs, heads), (ks, 1), (vs, 1))]
    left, right = multiplied_out(split[0], split[1])
    left, right = torch.cat([left, scalars[0]], -1), torch.cat([right, scalars[1]], -1)
    values = torch.cat([split[2].flatten(-2), scalars[2]], -1)
    out = F.scaled_dot_product_attention(left, right.expand(-1, heads, -1, -1), values.expand(-1, heads, -1, -1))
    mv, s = out.split([split[2].shape[3] * 16, scalars[2].shape[3]], -1)
    return mv.unflatten(-1, (-1, 16)).transpose(1, 2).flatten(2, 3), s.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@timed
def test_attention(benchmark: Any, direction: str) -> None:
    heads, channels, scalars, items = 8, 4, 32, 512
    tensors = [torch.randn(1, items, h * channels, 16) for h in (heads, 1, 1)]
    for t in tensors:
        t[..., 14] = 1
    tensors += [torch.randn(1, items, h * scalars) for h in (heads, 1, 1)]
    for a, b in zip(iso.ops.distance_attention(*tensors, heads=heads), plain_attention(*tensors, heads=heads), strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()
    leaves = [t.requires_grad_(direction != "forward") for t in tensors]

    def step(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
        mv, s = function(*leaves, heads=heads)
        if direction != "forward":
            torch.autograd.grad((mv, s), leaves, (mv.detach(), s.detach()))

    record(benchmark, "distance attention", direction=direction, items=items, heads=heads, channels=channels, scalars=scalars)
    baselines = {"torch": lambda: step(plain_attention)}
    compiled = torch.compile(plain_attention)
    baselines["torch compiled"] = lambda: step(compiled)
    compare(benchmark, lambda: step(iso.ops.distance_attention), baselines)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", ["pga", "sta"])
@timed
def test_block(benchmark: Any, name: str, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = iso.nn.GATrBlock(16, 128, num_heads=8, algebra=name)
    mv, s = torch.randn(1, 512, 16, 16), torch.randn(1, 512, 128)
    leaves = [t.requires_grad_(direction != "forward") for t in (mv, s, *block.parameters())]

    def step(module: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor]) -> None:
        with torch.set_grad_enabled(direction != "forward"):
            a, b = module(mv, s)
            if direction != "forward":
                torch.autograd.grad(a.sum() + b.sum(), inputs, allow_unused=True)

    def dense(mv: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The same block, its operators dense einsums and torch's attention."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                iso.ops, "multivector_linear", lambda x, w, algebra, shift=None: reference.multivector_linear(x, w, shift, algebra)
            )
            patch.setattr(iso.ops, "geometric_product", reference.geometric_product)
            patch.setattr(iso.ops, "equi_join", reference.equi_join)
            patch.setattr(iso.ops, "distance_attention", plain_attention)
            return block(mv, s)  # type: ignore[no-any-return]

    baselines: dict[str, Callable[[], None]] = {}
    if name == "pga":
        baselines["dense"] = lambda: step(dense, leaves)
    else:
        config = dict(num_heads=8)
        peer = LGATrBlock(16, 128, attention=config, mlp={}, primitives=PrimitivesConfig())
        inputs = [mv, s, *(p for p in peer.parameters())]
        compiled = torch.compile(peer)
        baselines = {"lgatr": lambda: step(peer, inputs), "lgatr compiled": lambda: step(compiled, inputs)}
    record(benchmark, "GATr block", algebra=name, direction=direction, items=512)
    assert math.isfinite(compare(benchmark, lambda: step(block, leaves), baselines))
