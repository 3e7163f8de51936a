"""The CUDA kernels of max_pool on the host emulation, against torch's."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from emulate import DTYPES, build, view


@pytest.fixture(scope="session")
def emulation() -> ModuleType:
    return build("max_pool")


# Window, step and padding of each axis: apart, over each other, with gaps between.
WINDOWS = [((1, 2, 2), (1, 2, 2), (0, 0, 0)), ((2, 3, 3), (1, 2, 1), (1, 1, 1)), ((1, 1, 2), (2, 3, 3), (0, 0, 1))]


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("inner", [1, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window, stride, padding", WINDOWS, ids=str)
def test_against_torch(
    emulation: ModuleType,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dtype: torch.dtype,
    inner: int,
    reverse: bool,
) -> None:
    torch.manual_seed(0)
    emulation.configure(reverse)
    x = torch.randn(3, 3, 6, 7, inner).round(decimals=1).to(dtype)
    x.view(-1)[::11], x.view(-1)[1::7] = torch.nan, -torch.inf
    leaf = x.movedim(4, 1).double().requires_grad_()
    expected, places = F.max_pool3d(leaf, window, stride, padding, return_indices=True)
    y = torch.full(expected.movedim(1, 4).shape, -7.0, dtype=dtype)
    index = torch.full(y.shape, -1, dtype=torch.int32)
    emulation.max_pool(view(x), window, stride, padding, view(y), index.data_ptr())
    assert torch.equal(y.double().nan_to_num(), expected.detach().movedim(1, 4).nan_to_num())
    assert torch.equal(index, places.movedim(1, 4).int())
    g = torch.randint(-3, 4, y.shape).to(dtype)
    back = torch.full_like(x, torch.nan)
    emulation.max_pool_scatter(view(g), index.data_ptr(), window, stride, padding, view(back))
    assert torch.equal(back.double().movedim(4, 1), torch.autograd.grad(expected, leaf, g.double().movedim(4, 1))[0])
    again = torch.full_like(y, -7.0)
    emulation.max_pool_select(view(x), index.data_ptr(), view(again))
    assert torch.equal(again.nan_to_num(), y.nan_to_num())
