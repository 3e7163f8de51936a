"""Group linear maps against the definition, for groups that act on anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fields.definition import EVERY_GROUP, TOLERANCE, error

import isotypic as iso
from isotypic import groups
from isotypic.ops.fields import reference


@pytest.mark.parametrize("group", [pytest.param(g, id=name.replace(" ", "-")) for name, g in EVERY_GROUP.items()])
def test_definition_for_every_group(group: groups.Group) -> None:
    x, weight = torch.randn(3, 2, group.order, dtype=torch.float64), torch.randn(4, 2, group.order, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    expected = np.zeros((3, 4, group.order)) + bias.numpy()[:, None]
    for r in range(group.order):
        for s in range(group.order):
            expected[:, :, r] += x[:, :, s].numpy() @ weight[:, :, group.multiply[group.inverse[r], s]].numpy().T
    assert error(iso.ops.group_linear(x, weight, bias, group=group), expected) < TOLERANCE


@pytest.mark.parametrize("spatial", [(7,), (3, 4), (2, 1, 3), (2, 2, 1, 2), (0, 2)], ids=str)
def test_spatial_axes(spatial: tuple[int, ...]) -> None:
    x, weight = torch.randn(2, 3, 8, *spatial, dtype=torch.float64), torch.randn(4, 3, 8, dtype=torch.float64)
    y = iso.ops.group_linear(x, weight, group="p4m")
    assert y.shape == (2, 4, 8, *spatial)
    for position in np.ndindex(*spatial):
        at = (slice(None), slice(None), slice(None), *position)
        assert error(y[at], iso.ops.group_linear(x[at], weight, group="p4m")) < TOLERANCE


def test_is_the_1x1_convolution() -> None:
    x, weight = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64), torch.randn(4, 3, 4, dtype=torch.float64)
    expected = iso.ops.group_conv(x, weight[..., None, None], group="p4")
    assert error(iso.ops.group_linear(x, weight, group="p4"), expected) < TOLERANCE


@pytest.mark.parametrize("shape", [(1, 3, 8), (100, 3, 8), (2, 3, 8, 70), (1, 3, 8, 9, 11)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_positions_are_divided_among_the_threads(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight = torch.randn(shape).to(dtype).requires_grad_(), torch.randn(4, 3, 8).to(dtype).requires_grad_()

    def call(x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
        y = iso.ops.group_linear(x, weight, group="p4m")
        return [y, *torch.autograd.grad((y * y.detach()).sum(), (x, weight))]

    x64, weight64 = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    y = reference.group_linear(x64, weight64, group="p4m")
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(call(x, weight))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    expected = [y, *torch.autograd.grad((y * found[0][0].double()).sum(), (x64, weight64))]
    for results in found:
        for result, wanted in zip(results, expected, strict=True):
            assert error(result.double(), wanted.detach()) < 16 * torch.finfo(dtype).eps


def test_messages() -> None:
    with pytest.raises(
        ValueError, match=r"^group_linear: weight must have shape \(C_out, C_in=3, \|G\|=8\), got \(5, 3, 4\); the weight is for"
    ):
        iso.ops.group_linear(torch.zeros(2, 3, 8), torch.zeros(5, 3, 4), group="p4m")
    with pytest.raises(ValueError, match=r"^group_linear: x must have shape \(B, C, \|G\|=8\) or"):
        iso.ops.group_linear(torch.zeros(2, 8), torch.zeros(5, 3, 8), group="p4m")


@pytest.mark.parametrize("batch", [1, 3])
def test_short_calls_keep_the_layout(batch: int) -> None:
    """Without positions results lie in memory as rows of samples; gradients come in any layout, and each call is one launch."""
    _C = pytest.importorskip("isotypic._C")
    x, weight = torch.randn(batch, 2, 4, requires_grad=True), torch.randn(3, 2, 4, requires_grad=True)
    expected = reference.group_linear(x, weight, group="p4")
    cotangent = torch.randn(batch, 3, 4)
    wanted = torch.autograd.grad(expected, (x, weight), cotangent)
    rows = cotangent.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    launched: list[str] = []
    strides = set()
    for given in (cotangent, rows, cotangent, rows):
        y = iso.ops.group_linear(x, weight, group="p4")
        strides.add(y.stride())
        _C.watch_calls(lambda run, *_: launched.append(getattr(run, "__name__", "")))
        try:
            found = torch.autograd.grad(y, (x, weight), given)
        finally:
            _C.watch_calls(None)
        for one, other in zip((y, *found), (expected, *wanted), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(strides) == 1
    assert launched.count("group_conv_weight") >= 3 and launched.count("group_conv_transpose") >= 3
