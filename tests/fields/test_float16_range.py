"""float16 near its largest number: sums of |G| values inside of a convolution must not leave the range that its result is in."""

from __future__ import annotations

import pytest
import torch
from fields.group_conv_cases import RANGE_CASES, Case, range_problem, relative_error, tolerance

import isotypic as iso

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"))]

pytestmark = pytest.mark.filterwarnings("ignore::isotypic.EquivarianceWarning")  # sizes here are chosen for the kernels, not for symmetry


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("large", [0, 1], ids=["large_first", "large_second"])
@pytest.mark.parametrize("case", RANGE_CASES, ids=lambda case: case.name)
def test_values_and_gradients(case: Case, large: int, device: str) -> None:
    function = iso.ops.lift_conv if case.field == "scalar" else iso.ops.group_conv
    problem = range_problem(case, large)
    (x, weight), expected = problem["forward"]
    y = function(x.to(device), weight.to(device), group=case.group)
    assert relative_error(y.cpu(), expected) < tolerance("float16")
    (gradient, weight), expected = problem["transpose"]
    leaf = torch.zeros_like(x, device=device).requires_grad_()
    (dx,) = torch.autograd.grad(function(leaf, weight.to(device), group=case.group), leaf, gradient.to(device))
    assert relative_error(dx.cpu(), expected) < tolerance("float16")
    (x, gradient), expected = problem["weight"]
    leaf = torch.zeros_like(weight, device=device).requires_grad_()
    (dweight,) = torch.autograd.grad(function(x.to(device), leaf, group=case.group), leaf, gradient.to(device))
    assert relative_error(dweight.cpu(), expected) < tolerance("float16")
