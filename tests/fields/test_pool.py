"""Pooling over the group and over space."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from isotypic import EquivarianceWarning, groups, ops
from isotypic.nn import BlurPool2d, BlurPool3d, FieldMask, GroupAvgPool2d, GroupMaxPool2d, GroupMaxPool3d, GroupPool
from isotypic.testing import act, assert_equivariant


def test_group_pool() -> None:
    x = torch.randn(2, 3, 8, 4, 5)
    assert torch.equal(GroupPool("max")(x), x.max(dim=2).values)
    assert torch.equal(GroupPool("mean", keepdim=True)(x), x.mean(dim=2, keepdim=True))
    assert GroupPool()(x[..., 0, 0]).shape == (2, 3)


def test_the_gradient_of_a_maximum_is_equivariant() -> None:
    """A field that is constant over the group shares the gradient: taking the first of equal values would prefer one element."""
    x = torch.ones(1, 1, 4, 1, 1, requires_grad=True)
    GroupPool("max")(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.full_like(x, 0.25))


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize(
    "group, subgroup", [("p4m", "p4"), ("p4m", "pm"), ("p6m", "p2"), ("O", "T"), ("O", "C4"), ("Oh", "Oh"), ("p4", "p1")]
)
def test_quotient_fields(group: str, subgroup: str, mode: str) -> None:
    """Pooling over cosets s H, with (L_g f)[s H] = f[g^-1 s H] on the result; H need not be normal."""
    torch.manual_seed(0)
    g, h = groups.get(group), groups.get(subgroup)
    layer = GroupPool(mode, group=group, subgroup=subgroup)
    x = torch.randn(2, 3, g.order)
    y = layer(x)
    assert y.shape == (2, 3, g.order // h.order)
    inside = [index for index, element in enumerate(g.elements) if (h.elements == element).all(axis=(1, 2)).any()]
    cosets = sorted({frozenset(g.multiply[s, inside].tolist()) for s in range(g.order)}, key=min)
    for index, coset in enumerate(cosets):
        values = x[:, :, sorted(coset)]
        assert torch.allclose(y[:, :, index], values.amax(2) if mode == "max" else values.mean(2))
    for element in range(g.order):
        back = g.multiply[g.inverse[element]]
        moved = [cosets.index(frozenset(back[sorted(coset)].tolist())) for coset in cosets]
        assert torch.allclose(layer(act(group, element, x)), y[:, :, moved])


def test_group_pool_errors() -> None:
    with pytest.raises(ValueError, match='GroupPool: mode must be "max" or "mean", got \'sum\''):
        GroupPool("sum")
    with pytest.raises(ValueError, match="GroupPool: the elements of p6 must be among those of p4m"):
        GroupPool(group="p4m", subgroup="p6")
    with pytest.raises(ValueError, match="GroupPool: subgroup needs its group"):
        GroupPool(subgroup="p4")
    with pytest.raises(ValueError, match=r"GroupPool: input must have shape \(B, C, \|G\|=8, \*spatial\), got \(1, 2, 4, 5, 5\)"):
        GroupPool(group="p4m")(torch.zeros(1, 2, 4, 5, 5))
    with pytest.raises(ValueError, match=r"GroupPool: input must have shape \(B, C, \|G\|, \*spatial\), got \(1, 2\)"):
        GroupPool()(torch.zeros(1, 2))


@pytest.mark.parametrize(
    "kind, group, kernel_size",
    [(BlurPool2d, name, size) for name in ("p4m", "pmm", "p3", "p3m1", "p6", "p6m") for size in (1, 3, 5)]
    + [(BlurPool2d, "p4m", 2), (BlurPool2d, "pmm", 4), (BlurPool3d, "Oh", 3), (BlurPool3d, "Oh", 4)],
)
def test_blur_is_a_low_pass_filter(kind: Any, group: str, kernel_size: int) -> None:
    """It keeps constants, removes the highest frequency of every axis, and its filter is invariant (as its field is equivariant)."""
    layer = kind(group=group, kernel_size=kernel_size, stride=1, padding_mode="circular").double()
    size = (8,) * layer.dim
    constant = torch.ones(1, 1, *size, dtype=torch.float64)
    assert torch.allclose(layer(constant), constant[(..., *(slice(1, 2),) * layer.dim)], rtol=1e-14)
    if kernel_size > 1:
        alternating = (-1.0) ** torch.arange(8, dtype=torch.float64)
        for axis in range(layer.dim):
            shape = [1, 1] + [8 if other == axis else 1 for other in range(layer.dim)]
            assert layer(alternating.reshape(shape).expand(1, 1, *size)).abs().max() < 1e-14
    x = torch.randn(1, 1, layer.dim and groups.get(group).order, *(9,) * layer.dim, dtype=torch.float64)
    if layer.dim == 2:
        x = x if kernel_size % 2 else x[..., :8, :8]
        assert_equivariant(kind(group=group, kernel_size=kernel_size).double(), group, x, rtol=1e-13)
    assert (layer.kernel > 0).sum() == groups.support(groups.get(group), kernel_size).sum()


def test_blur_takes_generated_groups_or_says_why_not() -> None:
    swap = groups.generate([[[0, 1], [1, 0]]])
    assert BlurPool2d(group=swap)(torch.zeros(1, 1, 2, 5, 5)).shape == (1, 1, 2, 3, 3)
    other_axes = groups.generate([[[0, -1], [1, 1]]])  # six rotations, in axes at 60 and not 120 degrees
    assert other_axes.order == 6
    assert_equivariant(BlurPool2d(group=other_axes), other_axes, torch.randn(1, 1, 6, 9, 9))
    sheared = groups.generate([[[1, 2], [0, -1]]])
    with pytest.raises(ValueError, match="BlurPool2d: there is no binomial filter of size 3"):
        BlurPool2d(group=sheared)


@pytest.mark.parametrize(
    "layer, good, bad",
    [
        (BlurPool2d(), (7, 5), (6, 5)),
        (BlurPool2d(group="pmm", stride=(2, 3)), (7, 7), (7, 6)),
        (BlurPool3d(), (3, 5, 3), (3, 5, 4)),
        (BlurPool2d(kernel_size=4), (8, 6), (7, 6)),
        (GroupMaxPool2d(2), (6, 4), (5, 4)),
        (GroupMaxPool3d(3, 2, 1), (5, 5, 5), (5, 5, 6)),
        (GroupAvgPool2d(3, stride=2), (7, 5), (6, 5)),
    ],
)
def test_sizes_off_the_centre_warn_or_raise(layer: Any, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    message = rf"{type(layer).__name__}: spatial axis .* has outputs that are not centred on the inputs, .* keep it"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.zeros(1, 1, *good))
    with pytest.warns(EquivarianceWarning, match=message):
        layer(torch.zeros(1, 1, *bad))
    layer.strict = True
    layer(torch.zeros(1, 1, *good))
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(1, 1, *bad))


def test_the_warned_sizes_do_break_equivariance() -> None:
    x = torch.randn(1, 1, 4, 6, 6)
    for layer in (BlurPool2d(), GroupMaxPool2d(3, 2)):
        with pytest.warns(EquivarianceWarning), pytest.raises(AssertionError, match="does not commute"):
            assert_equivariant(layer, "p4", x)


def test_sizes_are_judged_by_what_the_group_does() -> None:
    """An axis that no element reverses needs no centre; in axial coordinates the centre of the inputs has to be an output itself."""
    diagonal = groups.generate([[[0, 1], [1, 0]]])
    for group in ("p1", diagonal):
        pool = GroupMaxPool2d(2, group=group, strict=True)
        assert_equivariant(pool, group, torch.randn(1, 2, groups.get(group).order, 5, 5))
    blur = BlurPool2d("p6", strict=True)
    assert_equivariant(blur, "p6", FieldMask(9, "p6")(torch.randn(1, 2, 6, 9, 9)))
    with pytest.raises(ValueError, match=r"BlurPool2d: spatial axis 0 of size 7 .* sizes 5 and 9 keep it"):
        blur(torch.zeros(1, 2, 6, 7, 7))


def test_exchanged_axes_need_equal_arguments() -> None:
    with pytest.raises(ValueError, match=r"BlurPool2d: stride must be equal on the axes that p4 exchanges, got \(2, 1\)"):
        BlurPool2d(stride=(2, 1))
    with pytest.raises(ValueError, match=r"GroupMaxPool2d: kernel_size must be equal on the axes that p4 exchanges, got \(2, 3\)"):
        GroupMaxPool2d((2, 3))
    GroupMaxPool2d((2, 3), group="pmm")
    GroupMaxPool3d((1, 2, 2), group="D4")  # about the depth axis, which D4 exchanges with no other


def test_windows_are_those_of_torch() -> None:
    x = torch.randn(2, 3, 4, 6, 6)
    flat = x.flatten(1, 2)
    assert torch.equal(GroupMaxPool2d(2)(x).flatten(1, 2), torch.nn.MaxPool2d(2)(flat))
    assert torch.equal(GroupAvgPool2d(4, 1, 1)(x).flatten(1, 2), torch.nn.AvgPool2d(4, 1, 1)(flat))
    assert torch.equal(GroupMaxPool2d(2)(x[:, :, 0]), torch.nn.MaxPool2d(2)(x[:, :, 0]))


def test_spatial_errors() -> None:
    with pytest.raises(ValueError, match="GroupMaxPool2d: p6 does not leave a box of positions invariant; use BlurPool2d"):
        GroupMaxPool2d(2, group="p6")
    with pytest.raises(ValueError, match="BlurPool2d: kernel_size must be a positive integer, got 0"):
        BlurPool2d(kernel_size=0)
    with pytest.raises(ValueError, match="BlurPool2d: there is no binomial filter of size 4 that p6 leaves invariant"):
        BlurPool2d(group="p6", kernel_size=4)
    with pytest.raises(ValueError, match='BlurPool2d: padding_mode "reflect" is not equivariant under p6'):
        BlurPool2d(group="p6", padding_mode="reflect")
    with pytest.raises(ValueError, match="BlurPool3d: group must act on 3 spatial axes, but p4 acts on 2"):
        BlurPool3d(group="p4")
    with pytest.raises(ValueError, match="BlurPool2d: padding_mode must be one of zeros, circular, reflect, replicate, got 'same'"):
        BlurPool2d(padding_mode="same")
    with pytest.raises(ValueError, match="GroupAvgPool2d: stride must be an integer or 2 integers, each at least 1, got 0"):
        GroupAvgPool2d(2, stride=0)
    with pytest.raises(ValueError, match=r"BlurPool2d: input must have shape .* with 2 spatial axes, got \(5, 5, 5\)"):
        BlurPool2d()(torch.zeros(5, 5, 5))
    with pytest.raises(ValueError, match=r"GroupMaxPool2d: padding must be at most half of kernel_size \(2, 2\), got \(2, 2\)"):
        GroupMaxPool2d(2, padding=2)
    with pytest.raises(ValueError, match=r"GroupAvgPool2d: window \(7, 7\) is larger than the input \(6, 6\) with padding \(0, 0\)"):
        GroupAvgPool2d(7)(torch.zeros(1, 1, 6, 6))
    message = r"BlurPool2d: padding_mode 'reflect' needs a padding smaller than the input \(1, 1\), got \(1, 1\)"
    with pytest.raises(ValueError, match=message):
        BlurPool2d(padding_mode="reflect")(torch.zeros(1, 1, 1, 1))
    with pytest.raises(TypeError, match=r"BlurPool2d: input must be a torch.Tensor, got NoneType"):
        BlurPool2d()(None)
    assert BlurPool2d(kernel_size=np.int64(5)).kernel_size == 5


TORCHS = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 1, 0), (2, 3, 0), (5, 2, 2), (2, 2, 1)])
def test_max_pool_is_that_of_torch(kernel: int, stride: int, padding: int, axes: int, dtype: torch.dtype) -> None:
    """Equal values, NaN and infinities included, in both orders of memory; the gradient goes to the same places."""
    torch.manual_seed(0)
    settings = (kernel,) * axes, (stride,) * axes, (padding,) * axes
    for size in (5, 6, 8) if axes == 3 else (5, 8, 17, 34):
        x = torch.randn(2, 3, *(size,) * (axes - 1), size + 1).round(decimals=1).to(dtype)
        odd = x.clone()
        odd.view(-1)[::7], odd.view(-1)[1::5] = torch.nan, -torch.inf
        for values in (x, odd, torch.full_like(x, -torch.inf)):
            for given in (values, values.movedim(1, -1).contiguous().movedim(-1, 1)):
                ours, torchs = given.clone().requires_grad_(), values.clone().requires_grad_()
                y, expected = ops.max_pool(ours, *settings), TORCHS[axes - 1](torchs, kernel, stride, padding)
                torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
                if axes > 1:
                    assert y.is_contiguous() or y.movedim(1, -1).is_contiguous() == given.movedim(1, -1).is_contiguous()
                # Small integers, so that sums are exact in any order.
                cotangent = torch.randint(-2, 3, expected.shape).to(dtype)
                gradients = (torch.autograd.grad(a, b, cotangent)[0] for a, b in ((y, ours), (expected, torchs)))
                torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_max_pool_keeps_places_alone() -> None:
    x = torch.randn(2, 3, 4, 16, 16, requires_grad=True)
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.max_pool(x, (2, 2)).sum()
    assert kept == x.nbytes // 4


@pytest.mark.parametrize("place", [-1, 25])
def test_max_pool_refuses_places_outside(place: int) -> None:
    """Of the registered operators, which anyone can call: a place outside would be a write into other memory."""
    settings = [1, 2, 2], [1, 1, 1], [0, 0, 0], [1, 5, 5]
    x = torch.randn(1, 1, 5, 5, 2)
    y, index = torch.ops.isotypic.max_pool(x, *settings)
    index[0, 0, 1, 2, 1] = place
    with pytest.raises(ValueError, match="max_pool_scatter kernel: index must be a place in the plane"):
        torch.ops.isotypic.max_pool_scatter(y, index, *settings)
    with pytest.raises(ValueError, match="max_pool_select kernel: index must be a place in the plane"):
        torch.ops.isotypic.max_pool_select(x, index, *settings)
