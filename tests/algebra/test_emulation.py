"""The CUDA kernels on multivectors on the host emulation, against the definitions in float64: what they compute, not how fast."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from algebra.test_attention import operands
from emulate import build, view
from torch import Tensor

from isotypic.ops.algebra import attention_reference as plain
from isotypic.ops.algebra import reference, scale
from isotypic.ops.algebra.attention import key_ranges
from isotypic.ops.algebra.signature import SIGNATURES

PRODUCTS = [f"{product}{side}" for product in ("pga geometric", "pga join", "sta geometric") for side in ("", " /x", " /y")]


@pytest.fixture(scope="session")
def module() -> ModuleType:
    return build("algebra")


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def emulation(module: ModuleType, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """With the threads in either order: a missing barrier shows in reverse."""
    module.configure(request.param)
    yield module
    module.configure(False)


def close(result: Tensor, expected: Tensor, units: float = 64) -> bool:
    return bool((result.double() - expected).norm() <= units * torch.finfo(result.dtype).eps * expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("index", range(len(PRODUCTS)), ids=PRODUCTS)
def test_product(emulation: ModuleType, index: int, dtype: torch.dtype) -> None:
    for rows, channels in ((1, 1), (43, 3), (2, 128)):
        whole = torch.randn(rows, 2 * channels, 16).to(dtype)
        a, b = whole.chunk(2, 1)
        scale = torch.randn(rows, 1).to(dtype).expand(rows, channels)
        for factor in (None, scale):
            z = torch.empty(rows, channels + 1, 16, dtype=dtype)[:, 1:]
            emulation.multivector_product(index, view(a), view(b), view(factor), view(z))
            expected = reference.product(a.double(), b.double(), None if factor is None else factor.double(), PRODUCTS[index])
            assert close(z, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("algebra", "maps"), [("pga", 9), ("sta", 10), ("sta", 5)])
def test_linear(emulation: ModuleType, algebra: str, maps: int, dtype: torch.dtype) -> None:
    index = list(SIGNATURES).index(algebra)
    for items, channels, out in ((1, 1, 1), (67, 5, 9), (130, 4, 8)):
        x, y = torch.randn(items, channels, 16, dtype=dtype), torch.empty(items, out, 16, dtype=dtype)
        weight = torch.randn(out, channels, maps, dtype=dtype)
        shift = torch.randn(items, out, 2 if maps == 10 else 1, dtype=dtype)
        doubles = [t.double().requires_grad_() for t in (x, weight)]
        expected = reference.multivector_linear(*doubles, shift.double(), algebra)
        emulation.multivector_linear(index, view(x), view(weight), view(shift), view(y))
        assert close(y, expected.detach())
        g, dx, dweight = torch.randn_like(y), torch.empty_like(x), torch.empty_like(weight)
        wanted = torch.autograd.grad(expected, doubles, g.double())
        leaving = torch.randn(items, channels, shift.shape[2], dtype=dtype)
        emulation.multivector_linear_transpose(index, view(g), view(weight), view(leaving), view(dx))
        wanted = wanted[0] + reference.spread(leaving.double(), (0, 15)[: shift.shape[2]]), wanted[1]
        emulation.multivector_linear_weight(index, view(x), view(g), view(dweight))
        assert close(dx, wanted[0]) and close(dweight, wanted[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gate(emulation: ModuleType, dtype: torch.dtype) -> None:
    for count in (1, 16, 37):
        x, g = torch.randn(2, count, 16).to(dtype)
        function, slope = scale.ACTIVATIONS["gelu_tanh"]
        exact = x.double().requires_grad_()
        expected = scale.gate_reference(exact, "gelu_tanh")
        y, dx = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
        first = x[:, 0].contiguous()
        emulation.multivector_gate(view(x), view(function(first)), view(y))
        emulation.multivector_gate_backward(view(g), view(x), view(function(first)), view(slope(first)), view(dx))
        assert close(y, expected.detach()) and close(dx, torch.autograd.grad(expected, exact, g.double())[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("algebra", ["pga", "sta"])
@pytest.mark.parametrize("weighted", [False, True])
def test_norm(emulation: ModuleType, algebra: Any, weighted: bool, dtype: torch.dtype) -> None:
    for items, channels in ((1, 1), (5, 16), (70, 3), (3, 35)):
        x, g = torch.randn(2, items, channels, 16).to(dtype)
        x[0] *= 0.01  # where the norm is held from below
        weight = torch.randn(channels, 5).to(dtype) if weighted else None
        exact = [t.double().requires_grad_() for t in (x, weight) if t is not None]
        expected = scale.norm_reference(exact[0], exact[1] if weighted else None, 0.01, algebra)
        wanted = torch.autograd.grad(expected, exact, g.double())
        signs = scale._signs(algebra)
        y, dx = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
        dweight = None if weight is None else torch.full_like(weight, torch.nan)
        emulation.multivector_norm(view(x), view(weight), view(y), signs, 0.01)
        emulation.multivector_norm_backward(view(g), view(x), view(weight), view(dx), view(dweight), signs, 0.01)
        assert close(y, expected.detach(), 256) and close(dx, wanted[0], 256)
        assert dweight is None or close(dweight, wanted[1], 256)


CASES: list[tuple[Any, ...]] = [
    (2, 5, 7, 2, 3, 4, True, None),
    (1, 17, 40, 2, 1, 5, False, "mask"),
    (2, 16, 33, 2, 2, 0, True, "lengths"),
    (1, 20, 20, 1, 1, 2, False, "offsets"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("algebra", ["pga", "sta"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(emulation: ModuleType, case: tuple[Any, ...], algebra: str, dtype: torch.dtype) -> None:
    *sizes, left_out = case
    batch, queries, keys, heads, channels, scalars, shared = sizes
    tensors = [t.to(dtype) for t in operands(*sizes)]
    weight = (torch.rand(heads, channels) + 0.5).to(dtype)
    mask = torch.rand(batch, queries, keys) < 0.6 if left_out == "mask" else None
    lengths = torch.tensor([0, keys - 1]) if left_out == "lengths" else None
    if left_out == "offsets":
        lengths = torch.tensor([0, 6, 6, queries])
    ranges = key_ranges(lengths, tensors[0], tensors[1])
    doubles = [t.double().requires_grad_() for t in (*tensors, weight)]
    given = doubles if algebra == "pga" else doubles[:6]
    settings: dict[str, Any] = {"mask": mask, "ranges": ranges, "heads": heads, "kind": algebra}
    expected = plain.attend(*doubles[:6], doubles[6] if algebra == "pga" else None, **settings)
    cotangents = [torch.randn(e.shape).to(dtype) for e in expected]
    wanted = torch.autograd.grad(expected, given, [c.double() for c in cotangents])
    mv, s = (torch.empty(e.shape, dtype=dtype) for e in expected)
    lse = torch.empty(batch, heads, queries, dtype=dtype)
    signs = [float(sign) for sign in plain.inner_signs(algebra)]
    rest = (
        view(weight) if algebra == "pga" else None,
        0 if mask is None else mask.data_ptr(),
        0 if ranges is None else ranges.data_ptr(),
        heads,
        1 if shared else heads,
        signs,
        algebra == "pga",
        plain.features(algebra, channels, scalars) ** -0.5,
    )
    everything = [view(t) for t in (*tensors, mv, s, lse)]
    emulation.distance_attention(everything, *rest)
    assert close(mv, expected[0].detach(), 200) and close(s, expected[1].detach(), 200)
    found = [torch.full_like(t, torch.nan) for t in (*tensors, weight)]
    emulation.distance_attention_backward(everything, [view(t) for t in (*cotangents, *found)], *rest)
    for a, b in zip(found, wanted, strict=False):  # differences of weights that are nearly 0 or 1 lose some digits
        assert close(a, b, 4000)


@pytest.mark.parametrize("algebra", ["pga", "sta"])
def test_attention_beside_nan(emulation: ModuleType, algebra: str) -> None:
    """What is not attended to, and what attends to nothing, may be NaN; so may a query of which nothing is asked."""
    items, heads, channels, scalars = 40, 2, 2, 3
    clean = [t.float() for t in operands(1, items, items, heads, channels, scalars, True)]
    spoilt = torch.zeros(1, items, dtype=torch.bool)
    spoilt[:, 25:] = True
    mask = (torch.rand(1, items, items) < 0.7) & ~spoilt[:, None]
    mask[:, 30:] = False
    weight = torch.rand(heads, channels)
    cotangents = [torch.randn_like(t).masked_fill(spoilt[(...,) + (None,) * (t.dim() - 2)], 0.0) for t in (clean[0], clean[3])]
    signs = [float(sign) for sign in plain.inner_signs(algebra)]
    distance = algebra == "pga"
    rest = (view(weight) if distance else None, mask.data_ptr(), 0, heads, 1, signs, distance, 0.2)

    def run(fill: float) -> list[Tensor]:
        tensors = [t.masked_fill(spoilt[(...,) + (None,) * (t.dim() - 2)], fill) for t in clean]
        mv, s, lse = torch.empty_like(clean[0]), torch.empty_like(clean[3]), torch.empty(1, heads, items)
        everything = [view(t) for t in (*tensors, mv, s, lse)]
        emulation.distance_attention(everything, *rest)
        found = [torch.full_like(t, torch.nan) for t in (*tensors, weight)]
        emulation.distance_attention_backward(everything, [view(t) for t in (*cotangents, *found)], *rest)
        return [mv, s, *found]

    for place, (found, wanted) in enumerate(zip(run(torch.nan), run(0.0), strict=True)):
        if place < 2:
            attends = mask.any(-1)
            found, wanted = found[~spoilt | ~attends], wanted[~spoilt | ~attends]
        assert torch.equal(found, wanted), place
