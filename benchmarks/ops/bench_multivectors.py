"""Operators on multivectors and one block of the transformer, one thread, float32.

products    512 items of 16 channels, against the dense einsum, straight-line torch over components and lgatr's product
linear      1,024 items of 16 channels, against one GEMM on the expanded weight and lgatr's linear layer, dense and sparse
attention   512 items, 8 heads, against torch's attention on features that multiply out the distance; `kept` is what the graph holds for the
            gradient, at 512 and at 1,024 items; the error of logits at an offset of 1,000 from the origin
chain       the maps, products, joins and gate of GeometricMLP on 512 items against the same 32 at a time, with intermediates in L2,
            and one at a time, which is the cost of the calls: what a fusion could gain
block       512 items, 16 multivector and 128 scalar channels, against the same with dense basis einsums and torch's attention, and lgatr's

Each baseline eager and through torch.compile. `ratios` has all of them, `ratio` that of the strongest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare, floor, kept, record_floor
from torch import Tensor

import isotypic as iso
from isotypic.ops.algebra import _kernels, attention_reference, reference, scale
from isotypic.ops.algebra.attention import attention
from isotypic.ops.algebra.signature import algebra as signature

lgatr = pytest.importorskip("lgatr")
from lgatr.layers import LGATrBlock  # noqa: E402
from lgatr.primitives import bilinear as lgatr_bilinear  # noqa: E402
from lgatr.primitives import linear as lgatr_linear  # noqa: E402
from lgatr.primitives.config import PrimitivesConfig  # noqa: E402

KERNELS = ("multivector", "distance_attention")

ITEMS, CHANNELS = 512, 16
COUNT = ITEMS * CHANNELS
timed = pytest.mark.benchmark(timer=TIMER, warmup=False)
Product = Callable[[Tensor, Tensor], Tensor]


@lru_cache
def constant(name: str, kind: str) -> Tensor:
    """A table of the algebra, made once."""
    return torch.as_tensor(getattr(signature(name), kind), dtype=torch.float32)


def straight_line(table: Any) -> Product:
    """Torch on one component after the other, without the terms that are zero."""
    terms = [[(j, k, int(table[i, j, k])) for j in range(16) for k in range(16) if table[i, j, k]] for i in range(16)]

    def product(x: Tensor, y: Tensor) -> Tensor:
        a, b = x.unbind(-1), y.unbind(-1)
        return torch.stack([sum((s * a[j] * b[k] for j, k, s in row), torch.zeros_like(a[0])) for row in terms], -1)

    return product


def products(name: str, kind: str) -> tuple[Product, dict[str, Product]]:
    table = constant(name, kind)
    one_by_one = straight_line(getattr(signature(name), kind))

    def dense(x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("ijk,...j,...k->...i", table, x, y)

    baselines = {"einsum": dense, "straight-line": one_by_one}
    if name == "sta":
        config = PrimitivesConfig()
        baselines["lgatr"] = lambda x, y: lgatr_bilinear.geometric_product(x, y, config=config)
    baselines |= {f"{key} compiled": torch.compile(function) for key, function in baselines.items()}
    if kind == "join":
        ones = torch.zeros(16)
        ones[14] = 1.0
        return lambda x, y: iso.ops.equi_join(x, y, ones), baselines
    return lambda x, y: iso.ops.geometric_product(x, y, name), baselines


def record(benchmark: Any, group: str, **info: Any) -> None:
    benchmark.group = group
    benchmark.extra_info.update(info)


PRODUCTS = [("pga", "geometric"), ("sta", "geometric"), ("pga", "join")]


@pytest.mark.parametrize(("name", "kind"), PRODUCTS)
@timed
def test_product(benchmark: Any, name: str, kind: str) -> None:
    x, y = torch.randn(2, ITEMS, CHANNELS, 16)
    ours, baselines = products(name, kind)
    expected = ours(x, y)
    for function in baselines.values():
        assert (function(x, y) - expected).norm() < 1e-5 * expected.norm()
    record(benchmark, "multivector product", algebra=name, product=kind, direction="forward", multivectors=COUNT)
    compare(benchmark, lambda: ours(x, y), {n: lambda f=f: f(x, y) for n, f in baselines.items()})
    record_floor(benchmark, floor(2 * 192 * COUNT, 192 * COUNT, torch.float32))


@pytest.mark.parametrize(("name", "kind"), PRODUCTS)
@timed
def test_product_backward(benchmark: Any, name: str, kind: str) -> None:
    x, y = (t.requires_grad_() for t in torch.randn(2, ITEMS, CHANNELS, 16))
    g = torch.randn(ITEMS, CHANNELS, 16)
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
    maps = constant(name, "linear")
    x, weight = torch.randn(items, channels, 16), torch.randn(channels, channels, signature(name).maps)

    def gemm(x: Tensor, weight: Tensor) -> Tensor:
        expanded = (weight.flatten(0, 1) @ maps.flatten(1)).view(channels, channels, 16, 16).permute(1, 3, 0, 2)
        return (x.flatten(1) @ expanded.reshape(channels * 16, -1)).view(items, channels, 16)

    def einsum(x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("oca,aij,ncj->noi", weight, maps, x)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return iso.ops.multivector_linear(x, weight, name)

    baselines: dict[str, Product] = {"gemm": gemm, "einsum": einsum}
    if name == "sta":
        for sparse in (False, True):
            config = PrimitivesConfig(sparse_linear=sparse)
            peer: Product = lambda x, w, c=config: lgatr_linear.equi_linear(x, w, config=c)  # noqa: E731
            baselines["lgatr sparse" if sparse else "lgatr"] = peer
    baselines |= {f"{key} compiled": torch.compile(function) for key, function in baselines.items()}
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


def attention_operands(items: int) -> list[Tensor]:
    heads, channels, scalars = HEADS
    tensors = [torch.randn(1, items, h * channels, 16) for h in (heads, 1, 1)]
    for t in tensors:
        t[..., 14] = 1
    return [*tensors, *(torch.randn(1, items, h * scalars) for h in (heads, 1, 1))]


HEADS = 8, 4, 32
"""Heads, and channels of multivectors and of scalars in a head; keys and values are shared by all heads."""


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@timed
def test_attention(benchmark: Any, direction: str) -> None:
    heads, channels, scalars = HEADS
    items, backward = 512, direction != "forward"
    tensors = attention_operands(items)
    for a, b in zip(iso.ops.distance_attention(*tensors, heads=heads), plain_attention(*tensors, heads=heads), strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()
    leaves = [t.requires_grad_(backward) for t in tensors]

    def step(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
        mv, s = function(*leaves, heads=heads)
        if backward:
            torch.autograd.grad((mv, s), leaves, (mv.detach(), s.detach()))

    record(benchmark, "distance attention", direction=direction, items=items, heads=heads, channels=channels, scalars=scalars)
    if backward:
        forms = {"ours": iso.ops.distance_attention, "torch": plain_attention, "weights in memory": weights_in_memory}
        for name, form in forms.items():
            sizes = [[t.requires_grad_() for t in attention_operands(n)] for n in (512, 1024)]
            benchmark.extra_info[f"kept {name}"] = [kept(lambda *t, f=form: f(*t, heads=heads), *inputs) for inputs in sizes]
        few, many = benchmark.extra_info["kept ours"]
        assert many < 2.1 * few, "the memory for the gradient grows with N"
    compiled = torch.compile(plain_attention)
    baselines = {"torch": lambda: step(plain_attention), "torch compiled": lambda: step(compiled)}
    compare(benchmark, lambda: step(iso.ops.distance_attention), baselines)


def weights_in_memory(*tensors: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return attention_reference.attend(*tensors, None, mask=None, ranges=None, heads=heads, kind="pga")


@timed
def test_attention_far_from_the_origin(benchmark: Any) -> None:
    """The logits of pairs of points about (1000, 1000, 1000), and those of the published features, against float64."""
    count, none = 4096, torch.zeros(4096, 1, 0)
    q, k = (iso.pga.embed_point(torch.randn(count, 3) + 1000)[:, None, None] for _ in range(2))
    exact = attention_reference.logits(q.double(), k.double(), none.double(), none.double(), None, 1, "pga").flatten()
    left, right = multiplied_out(q, k)
    published = (left * right).sum(-1).flatten() / 13**0.5

    def logits() -> Tensor:
        # The logarithm of the sum of one exponential.
        return attention(q, k, k, none, none, none, None, None, None, 1, "pga")[2].flatten()  # type: ignore[no-any-return]

    record(benchmark, "distance attention", direction="forward", offset=1000)
    benchmark.extra_info.update(error=float((logits() - exact).abs().max()), error_of_published=float((published - exact).abs().max()))
    assert benchmark.extra_info["error"] <= 1e-4
    compare(benchmark, logits, {"features": lambda: multiplied_out(q, k)})


def mlp_chain(items: int) -> Callable[[], Tensor]:
    """The kernels of GeometricMLP(16, 128) on multivectors, without its scalars."""
    x, result = torch.randn(items, 16, 16), torch.empty(items, 32, 16)
    weights = [torch.randn(o, c, 9) for o, c in ((64, 16), (32, 32), (16, 32))]
    shifts = [torch.randn(items, o, 1) for o in (64, 32, 16)]
    factors, joins = torch.rand(items * 32), torch.rand(items, 1).expand(items, 16)

    def run() -> Tensor:
        a, b, u, v = _kernels.linear((items, 64, 16), x, weights[0], shifts[0], "pga").chunk(4, 1)
        _kernels.product_into(result[:, :16], a, b, None, "pga geometric")
        _kernels.product_into(result[:, 16:], u, v, joins, "pga join")
        hidden = _kernels.linear((items, 32, 16), result, weights[1], shifts[1], "pga")
        gated = _kernels.gate(hidden.view(-1, 16), factors).view(items, 32, 16)
        return _kernels.linear((items, 16, 16), gated, weights[2], shifts[2], "pga")

    return run


@timed
def test_mlp_chain(benchmark: Any) -> None:
    whole, tile, single = mlp_chain(ITEMS), mlp_chain(32), mlp_chain(1)
    record(benchmark, "multivector chain", direction="forward", items=ITEMS)
    compare(
        benchmark,
        whole,
        {"32 at a time": lambda: [tile() for _ in range(ITEMS // 32)], "calls alone": lambda: [single() for _ in range(ITEMS // 32)]},
    )


@contextmanager
def dense_operators() -> Iterator[None]:
    """The operators of a block as dense einsums, with torch's attention, norms and gates."""

    def product(x: Tensor, y: Tensor, table: str) -> Tensor:
        return torch.einsum("ijk,...j,...k->...i", constant(*table.split()), x, y)  # type: ignore[arg-type]

    def products_and_joins(factors: Tensor, scale: Tensor, algebra: str) -> Tensor:
        x, y, u, v = factors.chunk(4, -2)
        return torch.cat([product(x, y, "pga geometric"), product(u, v, "pga join") * scale[..., None, None]], -2)

    def linear(x: Tensor, weight: Tensor, algebra: str, shift: Tensor | None = None) -> Tensor:
        y = torch.einsum("oca,aij,...cj->...oi", weight, constant(algebra, "linear"), x)
        return y if shift is None else y + reference.spread(shift, signature(algebra).scalars[: shift.shape[-1]])

    def linear_scalars(x: Tensor, weight: Tensor, algebra: str, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return linear(x, weight, algebra, shift), x[..., 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iso.ops, "multivector_linear", linear)
        patch.setattr(iso.ops, "distance_attention", plain_attention)
        patch.setattr("isotypic.nn.algebra.linear.multivector_linear_scalars", linear_scalars)
        patch.setattr("isotypic.nn.algebra.mlp.products_and_joins", products_and_joins)
        patch.setattr(scale, "gate", scale.gate_reference)
        patch.setattr(scale, "norm", scale.norm_reference)
        yield


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", ["pga", "sta"])
@timed
def test_block(benchmark: Any, name: str, direction: str) -> None:
    block = iso.nn.GATrBlock(16, 128, num_heads=8, algebra=name)
    backward = direction != "forward"
    mv, s = torch.randn(1, 512, 16, 16), torch.randn(1, 512, 128)
    if name == "pga":
        mv[..., 14] = 1
    for t in (mv, s):
        t.requires_grad_(backward)

    def step(module: Callable[..., tuple[Tensor, Tensor]], parameters: list[Tensor]) -> None:
        with torch.set_grad_enabled(backward):
            a, b = module(mv, s)
            if backward:
                torch.autograd.grad(a.sum() + b.sum(), [mv, s, *parameters], allow_unused=True)

    baselines: dict[str, Callable[[], None]] = {}
    own = list(block.parameters())
    if name == "pga":

        def dense(module: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            with dense_operators():
                return module(mv, s)

        compiled = torch.compile(block)
        for a, b in zip(block(mv, s), dense(block), strict=True):
            assert (a - b).norm() < 1e-3 * b.norm()
        baselines = {
            "dense": lambda: step(lambda *_: dense(block), own),
            "dense compiled": lambda: step(lambda *_: dense(compiled), own),
        }
    else:
        peer = LGATrBlock(16, 128, attention={"num_heads": 8}, mlp={}, primitives=PrimitivesConfig())
        theirs, compiled = list(peer.parameters()), torch.compile(peer)
        baselines = {"lgatr": lambda: step(peer, theirs), "lgatr compiled": lambda: step(compiled, theirs)}
    record(benchmark, "GATr block", algebra=name, direction=direction, items=512)
    compare(benchmark, lambda: step(block, own), baselines, least=5)
