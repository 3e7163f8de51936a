"""Sizes at which the CPU kernels change their way: three products for a complex one, several channel blocks, several bands, two threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.ops.fields import reference

CASES = {
    "three products p3": ("p3", 9, 8, 3, {"padding": 1}, (11, 13)),
    "three products p4": ("p4", 9, 8, 3, {"padding": 1}, (11, 13)),
    "three products p6": ("p6", 8, 9, 3, {"padding": 1}, (11, 13)),
    "three products, strided": ("p4", 8, 11, 3, {"padding": 1, "stride": 2}, (13, 9)),
    "three products in space": ("C4", 8, 9, 2, {}, (4, 5, 5)),
    "channel blocks": ("p4m", 70, 5, 3, {"padding": 1}, (9, 9)),
    "channel blocks, strided": ("p4m", 70, 5, 3, {"padding": 1, "stride": 2}, (9, 9)),
    "channel blocks in space": ("O", 4, 3, 3, {"padding": 1, "stride": 2}, (5, 5, 5)),
    "bands": ("p4m", 40, 2, 3, {"padding": 1}, (67, 45)),
}


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def error(ours: Tensor, expected: Tensor) -> float:
    return float((ours.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_forward_and_gradients(case: str, dtype: torch.dtype, threads: int) -> None:
    name, fields_in, fields_out, kernel, settings, size = CASES[case]
    group = iso.groups.get(name)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    exact = [draw(1, fields_in, group.order, *size), draw(fields_out, fields_in, group.order, *(kernel,) * group.dim), draw(fields_out)]
    exact = [t.to(dtype).double().requires_grad_() for t in exact]
    ours = [t.detach().to(dtype).requires_grad_() for t in exact]
    expected = reference.group_conv(*exact, group=name, **settings)
    y = iso.ops.group_conv(*ours, group=name, **settings)
    cotangent = draw(*y.shape).to(dtype)
    tolerance = 30 * torch.finfo(dtype).eps  # of norms: rounding errors of sums add up like random walks
    assert error(y.detach(), expected.detach()) < tolerance
    gradients = torch.autograd.grad(y, ours, cotangent)
    for ours_gradient, exact_gradient in zip(gradients, torch.autograd.grad(expected, exact, cotangent.double()), strict=True):
        assert error(ours_gradient, exact_gradient) < tolerance
