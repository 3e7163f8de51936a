"""The CUDA kernels of batch_norm on the host emulation, against the plain twin in float64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from emulate import DTYPES, build, view
from torch import Tensor

from isotypic.ops.norms.reference import batch_norm

# (O, C, I): channels last with columns that fill no warp or many, runs that fill a block or not, several pieces of either kind.
# The last has more parts of a channel than a block has threads.
SHAPES = [(5, 3, 1), (300, 40, 1), (17, 3, 7), (3, 2, 33), (70, 3, 300), (2, 2, 9001), (2400, 1, 31)]
EPS = 1e-3


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return build("batch_norm")


def assert_close(result: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert (result.double() - expected).norm() <= 64 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_reference(emulation: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype, reverse: bool) -> None:
    relu, affine = shape != SHAPES[1], shape != SHAPES[2]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    torch.manual_seed(0)
    x, g = (torch.randn(shape, dtype=torch.float64) * 3 + 5).to(dtype), torch.randn(shape, dtype=torch.float64).to(dtype)
    weight, bias = (torch.randn(shape[1], dtype=wide) if affine else None for _ in range(2))
    y, dx = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    statistics, sums = torch.full((2, shape[1]), torch.nan, dtype=wide), torch.full((2, shape[1]), torch.nan, dtype=wide)

    emulation.configure(reverse)

    def run(name: str, *tensors: Tensor | None, batch: bool = True) -> None:
        emulation.call(name, [view(tensor) for tensor in tensors], EPS, relu, batch)

    doubles = [tensor.double().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    activation = "relu" if relu else None
    run("batch_norm", x, weight, bias, y, statistics)
    expected = batch_norm(*doubles, *(() if affine else (None, None)), eps=EPS, activation=activation)
    assert_close(y, expected.detach(), dtype)
    var, mean = torch.var_mean(x.double(), (0, 2), correction=0)
    assert_close(statistics, torch.stack([mean, var]), wide)
    run("batch_norm_backward", g, x, statistics, weight, bias, dx, sums)
    by_x, *by_parameters = torch.autograd.grad(expected, doubles, g.double())
    assert_close(dx, by_x, dtype)
    if affine:
        assert_close(sums.flip(0), torch.stack(by_parameters), wide)

    given = torch.rand(2, shape[1], dtype=wide) + 0.5
    run("batch_norm_apply", x, given, weight, bias, y)
    expected = batch_norm(*doubles, *(() if affine else (None, None)), *given.double(), eps=EPS, activation=activation)
    assert_close(y, expected.detach(), dtype)
    run("batch_norm_backward", g, x, given, weight, bias, dx, sums, batch=False)
    assert_close(dx, torch.autograd.grad(expected, doubles, g.double())[0], dtype)
