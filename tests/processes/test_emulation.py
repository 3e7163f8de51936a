"""The CUDA kernels of neural processes on the host emulation, against the references in float64: what they compute, not how fast."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from emulate import build, view
from torch import Tensor

from isotypic.ops.processes import reference
from isotypic.ops.processes.pair_attention import DIFFERENCES


@pytest.fixture(scope="session")
def modules() -> dict[str, ModuleType]:
    return {name: build(name) for name in ("set_conv", "pair_attention")}


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def emulation(modules: dict[str, ModuleType], request: pytest.FixtureRequest) -> Iterator[dict[str, ModuleType]]:
    """With the threads in either order: a missing barrier shows in reverse."""
    for module in modules.values():
        module.configure(request.param)
    yield modules
    for module in modules.values():
        module.configure(False)


def close(result: Tensor, expected: Tensor) -> bool:
    return bool((result.double() - expected).norm() <= 100 * torch.finfo(result.dtype).eps * expected.norm())


# Nodes, points, channels and lengthscales: rows and columns that are no multiples of a tile, more points than a block takes at a time, more
# channels than a thread has, windows that reach over the grid and windows of few nodes, one with an axis that runs down.
SETS = [((37,), 70, 3, (1.5,)), ((9, 41), 67, 5, (0.8, -2.0)), ((3, 10, 35), 5, 1, (1.0, 2.0, 30.0)), ((1, 6), 3, 2, (4.0, 0.05))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("shape", "points", "channels", "scale"), SETS)
def test_set_conv(
    emulation: dict[str, ModuleType],
    shape: tuple[int, ...],
    points: int,
    channels: int,
    scale: tuple[float, ...],
    dtype: torch.dtype,
) -> None:
    module, dim = emulation["set_conv"], len(shape)
    t = torch.rand(2, points, dim, dtype=torch.float64) * torch.tensor(shape) * 1.2 - 1  # some outside of the grid
    s = torch.tensor(scale, dtype=torch.float64)
    grid = [torch.arange(n, dtype=torch.float64) for n in shape]
    y, field = torch.randn(2, points, channels, dtype=dtype), torch.randn(2, channels, *shape, dtype=dtype)
    for powers in ([0] * dim, [1, 2, 0][:dim]):
        result = torch.full_like(field, float("nan"))
        module.set_conv(view(y), view(t), view(s), powers, view(result))
        assert close(result, reference.set_conv(y.double(), t, s, grid, powers))
        values = torch.full_like(y, float("nan"))
        module.set_conv_decode(view(field), view(t), view(s), powers, view(values))
        assert close(values, reference.set_conv_decode(field.double(), t, s, grid, powers))
    expected = [reference.set_conv_decode(field.double(), t, s, grid)]
    for by in (1, 2):
        for axis in range(dim):
            moment = reference.set_conv_decode(field.double(), t, s, grid, [by if k == axis else 0 for k in range(dim)])
            expected.append((y.double() * moment).sum(-1, keepdim=True))
    for first in (True, False):
        moments = torch.full((2, points, (channels if first else 0) + 2 * dim), float("nan"), dtype=torch.float64)
        module.set_conv_moments(view(y), view(field), view(t), view(s), first, view(moments))
        wanted = torch.cat(expected if first else expected[1:], -1)
        assert (moments - wanted).norm() <= 100 * torch.finfo(dtype).eps * wanted.norm()


# Queries, keys, heads, width, coordinates, hidden widths: keys beyond one tile of 32 and fewer, hidden widths that are no multiples of 32.
PAIRS = [(3, 37, 2, 3, 2, (5, 7)), (2, 4, 3, 1, 1, (33, 12))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize(
    ("mode", "reduce", "difference"), [("mix", "softmax", "vector"), ("bias", "softmax", "distance2"), ("mix", "sum", "none")]
)
@pytest.mark.parametrize("sizes", PAIRS, ids=str)
def test_pair_attention(
    emulation: dict[str, ModuleType], sizes: Any, mode: str, reduce: str, difference: str, masked: bool, dtype: torch.dtype
) -> None:
    module = emulation["pair_attention"]
    queries, keys, heads, width, dim, hidden = sizes
    theta: list[Tensor | None] = [torch.randn(2, heads, n, width) for n in (queries, keys, keys)]
    theta += [None if difference == "none" else torch.randn(2, n, dim) for n in (queries, keys)]
    places = {"vector": dim, "distance2": 1, "none": 0}[difference]
    for n, m in pairwise((places + (heads if mode == "mix" else 0), *hidden, heads)):
        theta += [torch.randn(m, n) / max(n, 1) ** 0.5, torch.randn(m)]
    theta = [None if tensor is None else tensor.to(dtype) for tensor in theta]
    mask = None
    if masked:
        mask = torch.rand(2, queries, keys) > 0.3
        mask[0, -1] = False
    doubles = [None if tensor is None else tensor.double().requires_grad_() for tensor in theta]
    layers = list(zip(doubles[5::2], doubles[6::2], strict=True))
    expected = reference.pair_attention(*doubles[:5], layers, mode, reduce, difference, mask)  # type: ignore[arg-type]
    out_width = width + (reduce == "softmax")
    out = torch.full((2, heads, queries, out_width), float("nan"), dtype=dtype)
    tensors = [view(tensor) for tensor in theta]
    # A boolean mask as bytes: the emulation does not look at the type.
    seen = None if mask is None else (mask.data_ptr(), 0, list(mask.shape), list(mask.stride()))
    settings = (mode == "mix", reduce == "softmax", DIFFERENCES.index(difference))
    module.pair_attention(tensors, seen, *settings, view(out))
    assert close(out[..., :width], expected.detach())
    grad = torch.randn_like(out)
    grad[..., width:] = 0
    result = torch.full((sum(t.numel() for t in theta if t is not None),), float("nan"), dtype=dtype)
    module.pair_attention_gradient(tensors, seen, *settings, view(out), view(grad), view(result))
    given = [tensor for tensor in doubles if tensor is not None]
    wanted = torch.autograd.grad(expected, given, grad[..., :width].double(), materialize_grads=True)
    assert close(result, torch.cat([g.flatten() for g in wanted]))
