"""Restriction to a subgroup, dropout of whole fields, and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isotypic import groups
from isotypic.nn import FieldDropout, FieldMask, GroupConv2d, GroupPool, LiftConv2d, PlanarGroup, Restrict
from isotypic.testing import act, assert_equivariant

PAIRS = [
    ("p4m", "p4"),
    ("p4m", "pmm"),
    ("p4m", "pm"),
    ("p4", "p2"),
    ("p6m", "p6"),
    ("p6", "p3"),
    ("Oh", "O"),
    ("O", "T"),
    ("O", "D4"),
    ("Oh", "Oh"),
]


@pytest.mark.parametrize("group, subgroup", PAIRS)
def test_regular_fields_of_the_subgroup(group: str, subgroup: str) -> None:
    """An element of H acts on the restricted field as on any regular field of H; nothing is lost or doubled."""
    g, h = groups.get(group), groups.get(subgroup)
    layer, x = Restrict(group, subgroup), torch.randn(2, 3, g.order, *(3,) * g.dim)
    x = act(group, 0, x)
    y = layer(x)
    assert y.shape == (2, 3 * g.order // h.order, h.order, *(3,) * g.dim)
    assert torch.equal(y[:, :, :].flatten(1, 2).sort(dim=1).values, x.flatten(1, 2).sort(dim=1).values)
    for element in range(h.order):
        index = next(i for i in range(g.order) if (g.elements[i] == h.elements[element]).all())
        # Outside the hexagon the larger group may know less than the smaller one.
        assert torch.equal(
            act(group, 0, layer(act(group, index, x)).reshape(x.shape)), act(group, 0, act(subgroup, element, y).reshape(x.shape))
        )


@pytest.mark.parametrize("group, subgroup", [("D8", "C8"), ("C8", "p4"), ("D12", "p4m"), ("D16", "D8"), ("C8", "p2"), ("D8", "pm")])
def test_planar_groups(group: str, subgroup: str) -> None:
    """The matrices say which element of the whole an element of the part is."""
    whole = PlanarGroup(group)
    part: Any = PlanarGroup(subgroup) if subgroup[0] in "CD" else groups.get(subgroup)
    layer, pool = Restrict(group, subgroup), GroupPool("mean", group=group, subgroup=subgroup)
    x = torch.randn(2, 3, whole.order)
    for element in range(part.order):
        index = next(i for i in range(whole.order) if np.allclose(whole.elements[i], part.elements[element]))
        moved = x[:, :, whole.multiply[whole.inverse[index]]]
        expected = layer(x)[:, :, part.multiply[part.inverse[element]]]
        assert torch.equal(layer(moved), expected)
    # Pooling over cosets a H forgets what H on the right does.
    index = next(i for i in range(whole.order) if np.allclose(whole.elements[i], part.elements[-1]))
    torch.testing.assert_close(pool(x[:, :, whole.multiply[:, index]]), pool(x))
    assert pool(x).shape == (2, 3, whole.order // part.order)


def test_parts_of_planar_groups_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^Restrict: the elements of p3 must be among those of C8"):
        Restrict("C8", "p3")
    with pytest.raises(ValueError, match=r"^Restrict: the elements of C8 must be among those of p4m"):
        Restrict("p4m", "C8")
    with pytest.raises(ValueError, match=r"^GroupPool: the elements of D8 must be among those of C8"):
        GroupPool("max", group="C8", subgroup="D8")


def test_a_network_that_lowers_its_symmetry() -> None:
    network = nn.Sequential(LiftConv2d(1, 2, 3, group="p4m"), nn.ReLU(), Restrict("p4m", "p4"), GroupConv2d(4, 2, 3, group="p4")).double()
    x = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    assert_equivariant(network, "p4", x, in_field="scalar")


def test_generated_groups_and_their_subgroups() -> None:
    quarter = groups.generate([[[0, -1], [1, 0]]])
    assert Restrict(quarter, groups.generate([[[-1, 0], [0, -1]]]))(torch.zeros(1, 1, 4, 2, 2)).shape == (1, 2, 2, 2, 2)


def test_restriction_errors() -> None:
    with pytest.raises(ValueError, match="Restrict: the elements of p4m must be among those of p4"):
        Restrict("p4", "p4m")
    with pytest.raises(ValueError, match="Restrict: the elements of p4 must be among those of O"):
        Restrict("O", "p4")
    with pytest.raises(ValueError, match=r"Restrict: input must have shape \(B, C, \|G\|=8, \*spatial\), got \(1, 2, 4, 5, 5\)"):
        Restrict("p4m", "p4")(torch.zeros(1, 2, 4, 5, 5))


def test_dropout_drops_whole_fields() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 40, 4, 3, 3)
    y = FieldDropout(0.25)(x)
    flat = y.flatten(2)
    assert torch.equal(flat.amax(2), flat.amin(2)) and flat.unique().tolist() == pytest.approx([0, 1 / 0.75])
    # 2000 fields: 5 standard deviations of the fraction dropped are 5 sqrt(0.25 * 0.75 / 2000).
    assert abs((flat[..., 0] == 0).float().mean().item() - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert torch.equal(FieldDropout(0.25).eval()(x), x)


def test_dropout_is_equivariant_in_training() -> None:
    """With the same fields dropped."""

    def layer(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return FieldDropout(0.5)(x)

    assert_equivariant(layer, "p4m", torch.randn(2, 6, 8, 4, 4), rtol=0.0)


def test_dropout_in_place_and_errors() -> None:
    x = torch.ones(2, 8, 4)
    assert FieldDropout(0.5, inplace=True)(x) is x and 0 < (x == 0).float().mean() < 1
    with pytest.raises(ValueError, match=r"FieldDropout: p must be in \[0, 1\], got 1.5"):
        FieldDropout(1.5)
    with pytest.raises(ValueError, match=r"FieldDropout: input must have shape \(B, C, ...\), got \(3,\)"):
        FieldDropout()(torch.zeros(3))


def test_masks_keep_padded_hexagonal_networks_exact() -> None:
    torch.manual_seed(0)
    first, second = LiftConv2d(1, 2, 3, group="p6m", padding=1).double(), GroupConv2d(2, 2, 3, group="p6m", padding=1).double()
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    assert_equivariant(nn.Sequential(first, nn.ReLU(), FieldMask(9, "p6m"), second), "p6m", x, in_field="scalar", rtol=1e-12)
    with pytest.raises(AssertionError, match="does not commute"):
        assert_equivariant(nn.Sequential(first, nn.ReLU(), second), "p6m", x, in_field="scalar")


def test_mask_errors() -> None:
    assert FieldMask((4, 6), "p4").mask.sum() == 16 and FieldMask((4, 6), "pmm").mask.all()
    with pytest.raises(ValueError, match=r"FieldMask: size \(4, 4\) has no position at its centre for p6; use odd sizes"):
        FieldMask(4, "p6")
    with pytest.raises(ValueError, match=r"FieldMask: input must have spatial size \(5, 5\), got shape \(1, 1, 6, 5, 7\)"):
        FieldMask(5, "p6")(torch.zeros(1, 1, 6, 5, 7))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mask_is_zero_outside_whatever_lay_there(value: float, dtype: torch.dtype) -> None:
    mask = FieldMask(5, "p6")
    x = torch.randn(2, 3, 6, 5, 5).to(dtype).masked_fill(~mask.mask, value).requires_grad_()
    y = mask(x)
    assert y.dtype == dtype and torch.equal(y, x.detach().nan_to_num(0, 0, 0) * mask.mask)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, mask.mask.to(dtype).expand_as(x))
