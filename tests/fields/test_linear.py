"""The group-linear layer against its definition, and the plain linear layer it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isotypic import groups
from isotypic.nn import GroupConv2d, GroupLinear, PlanarGroup
from isotypic.testing import assert_equivariant


@pytest.mark.parametrize("group", ["p1", "p4", "p6m", "T", "Oh"])
def test_definition(group: str) -> None:
    """out[o, r] = bias[o] + sum_{c, s} f[c, s] weight[o, c, r^-1 s], by loops."""
    torch.manual_seed(0)
    g = groups.get(group)
    layer = GroupLinear(2, 3, group, dtype=torch.float64)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 2, g.order, dtype=torch.float64)
    expected = layer.bias.detach()[:, None].expand(2, 3, g.order).clone()
    for r in range(g.order):
        for s in range(g.order):
            expected[:, :, r] += x[:, :, s] @ layer.weight.detach()[:, :, g.multiply[g.inverse[r], s]].T
    assert torch.allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert_equivariant(layer, group, x, rtol=1e-12)


def test_a_group_on_no_grid() -> None:
    """The quaternion group, by four-dimensional matrices: any finite group will do."""
    i = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]
    j = [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]]
    quaternions = groups.generate([i, j])
    layer = GroupLinear(2, 3, quaternions).double()
    assert quaternions.order == 8
    assert_equivariant(layer, quaternions, torch.randn(2, 2, 8, dtype=torch.float64), rtol=1e-12)


def test_space_is_a_pointwise_convolution() -> None:
    layer = GroupLinear(2, 3, "p4m")
    conv = GroupConv2d(2, 3, 1, group="p4m")
    conv.weight.data.copy_(layer.weight[..., None, None])
    conv.bias.data.copy_(layer.bias)
    x = torch.randn(2, 2, 8, 5, 4)
    assert torch.allclose(layer(x), conv(x), rtol=1e-5, atol=1e-5)
    assert torch.allclose(layer(x)[..., 1, 2], layer(x[..., 1, 2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_to_linear_and_back(bias: bool) -> None:
    torch.manual_seed(0)
    layer = GroupLinear(2, 3, "O", bias=bias, dtype=torch.float64)
    x = torch.randn(4, 2, 24, dtype=torch.float64)
    assert torch.allclose(layer.to_linear()(x.flatten(1)), layer(x).flatten(1), rtol=1e-12, atol=1e-12)
    back = GroupLinear.from_linear(layer.to_linear(), "O")
    assert repr(back) == repr(layer) and torch.allclose(back.weight, layer.weight, rtol=1e-14, atol=1e-15)


def test_from_linear_is_the_group_average() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 8).double()
    layer = GroupLinear.from_linear(linear, "p4m")
    g, x = groups.get("p4m"), torch.randn(3, 2, 8, dtype=torch.float64)
    average = torch.zeros(3, 1, 8, dtype=torch.float64)
    for r in range(g.order):
        moved = linear(x[:, :, g.multiply[r].copy()].flatten(1)).unflatten(1, (1, 8))
        average += moved[:, :, g.multiply[g.inverse[r]].copy()] / g.order
    assert torch.allclose(layer(x), average, rtol=1e-12, atol=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown group 'E5'; known groups: p1"):
        GroupLinear(2, 3, "E5")
    with pytest.raises(ValueError, match="GroupLinear: in_fields must be a positive integer, got 0"):
        GroupLinear(0, 3)
    with pytest.raises(ValueError, match=r"GroupLinear.from_linear: linear.out_features=9 must be a multiple of \|G\|=4"):
        GroupLinear.from_linear(nn.Linear(8, 9), "p4")
    for shape in [(2, 2, 8), (2, 3, 4), (2, 8)]:
        with pytest.raises(ValueError, match="GroupLinear: input must have shape"):
            GroupLinear(2, 3, "p4")(torch.zeros(shape))


@pytest.mark.parametrize("name", ["C4", "C8", "D8", "C12", "D16"])
def test_planar_groups(name: str) -> None:
    """Against the sum over the group, and the matrix of the whole."""
    torch.manual_seed(0)
    group = PlanarGroup(name)
    layer = GroupLinear(2, 3, group).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 2, group.order, 3, 3, dtype=torch.float64)
    expected = torch.zeros(2, 3, group.order, 3, 3, dtype=torch.float64) + layer.bias[:, None, None, None]
    for r in range(group.order):
        for s in range(group.order):
            expected[:, :, r] += torch.einsum("bcij,oc->boij", x[:, :, s], layer.weight[:, :, group.multiply[group.inverse[r], s]])
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[..., 0, 0]), expected[..., 0, 0])
    linear = layer.to_linear()
    torch.testing.assert_close(linear(x[..., 1, 2].flatten(1)).unflatten(1, (3, -1)), expected[..., 1, 2])
    # The projection is a mean: a layer keeps its weight, and what is orthogonal to all layers goes.
    noise = torch.randn_like(linear.weight)
    with torch.no_grad():
        linear.weight.copy_(noise)
    near = GroupLinear.from_linear(linear, group)
    rest = noise - near.to_linear().weight
    assert abs(float((rest * layer.to_linear().weight).sum())) < 1e-10 * float(noise.norm() * layer.to_linear().weight.norm())
    again = GroupLinear.from_linear(layer.to_linear(), group)
    torch.testing.assert_close(again.weight, layer.weight)
    with pytest.raises(ValueError, match=r"GroupLinear: input must have shape"):
        layer(x[:, :, 1:])
