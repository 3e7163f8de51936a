"""The test helpers, tested: the action is one and is the one of the definition, and broken layers fail with a message that says where."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic import groups
from isotypic.nn import GroupConv2d, GroupPool, LiftConv2d
from isotypic.testing import act, assert_equivariant, equivariance_error, hexagonal_mask

HEXAGONAL = ("p3", "p3m1", "p6", "p6m")


def definition(group: groups.Group, element: int, f: np.ndarray, regular: bool) -> np.ndarray:
    """(L_g f)[c, s](x) = f[c, g^-1 s](g^-1 x) about the centre, entry by entry, 0 where g^-1 x lies outside."""
    out = np.zeros_like(f)
    back = int(group.inverse[element])
    size = np.array(f.shape[-group.dim :])
    for x in product(*map(range, size)):
        doubled = group.elements[back] @ (2 * np.array(x) - (size - 1)) + (size - 1)
        if (doubled % 2).any() or (doubled < 0).any() or (doubled >= 2 * size).any():
            continue
        source = tuple(doubled // 2)
        if not regular:
            out[(..., *x)] = f[(..., *source)]
            continue
        for s in range(group.order):
            out[(slice(None), slice(None), s, *x)] = f[(slice(None), slice(None), int(group.multiply[back, s]), *source)]
    return out


@pytest.mark.parametrize("name", groups.names())
@pytest.mark.parametrize("regular", [True, False])
def test_act_is_the_definition(name: str, regular: bool) -> None:
    g = groups.get(name)
    size = (5,) * g.dim if g.dim == 2 else (2,) * g.dim
    x = torch.randn(1, 1, *((g.order,) if regular else ()), *size)
    if name in HEXAGONAL:
        x = x * hexagonal_mask(5, name)
    for element in range(g.order):
        expected = definition(g, element, x.numpy(), regular)
        assert np.array_equal(act(g, element, x, "regular" if regular else "scalar").numpy(), expected)


@pytest.mark.parametrize("name", ["p4m", "p6m", "D4h", "Oh"])
def test_act_is_an_action(name: str) -> None:
    """L_a L_b = L_ab, and the identity does nothing; on odd and, on the square lattice, even sizes."""
    g = groups.get(name)
    for size in (3,) if name in HEXAGONAL else (3, 4):
        x = act(g, 0, torch.randn(1, 2, g.order, *(size,) * g.dim))
        assert torch.equal(act(g, 0, x), x)
        for a, b in product(range(0, g.order, 3), range(g.order)):
            assert torch.equal(act(g, a, act(g, b, x)), act(g, int(g.multiply[a, b]), x))


def test_act_without_space_and_on_unequal_sizes() -> None:
    g = groups.get("p4")
    x = torch.arange(4.0).reshape(1, 1, 4)
    assert torch.equal(act("p4", 1, x)[0, 0], x[0, 0, g.multiply[g.inverse[1]].copy()])
    assert torch.equal(act("p4", 1, x[:, :, 0], "scalar"), x[:, :, 0])
    quarter = next(i for i, element in enumerate(g.elements) if (element == [[0, -1], [1, 0]]).all())
    image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None]
    # (row, column) -> (-column, row): the right-hand column comes to the top.
    assert torch.equal(act("p4", quarter, image, "scalar")[0, 0], torch.tensor([[3.0, 6.0], [2.0, 5.0], [1.0, 4.0]]))


def test_hexagonal_mask() -> None:
    for size in (1, 3, 5, 9):
        radius = (size - 1) // 2
        mask = hexagonal_mask(size)
        assert mask.sum() == 3 * radius * (radius + 1) + 1  # the hexagonal numbers
        assert torch.equal(mask, hexagonal_mask(size, "p3")) and torch.equal(mask, mask.T)
    with pytest.raises(ValueError, match="p6m has no centre on a grid of even size"):
        hexagonal_mask(4)


class Broken(nn.Module):
    """A group convolution with one number added in one place."""

    def __init__(self, group: str, dim: int = 5, amount: float = 1e-3) -> None:
        super().__init__()
        self.layer = GroupConv2d(2, 2, 3, group=group, padding="same").double()
        self.amount = amount

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).clone()
        y[0, 1, 2, 2, 1] += self.amount
        return y


@pytest.mark.parametrize("group", ["pm", "p4", "p4m", "p6"])
def test_a_broken_layer_fails(group: str) -> None:
    torch.manual_seed(0)
    order = groups.get(group).order
    x = torch.randn(1, 2, order, 5, 5, dtype=torch.float64)
    broken = Broken(group) if order > 2 else lambda x: x * torch.linspace(1, 2, 5, dtype=x.dtype)
    with pytest.raises(
        AssertionError, match=rf"does not commute with element \d+ of {group}, \[\[.*error .*tolerance .* at index \(0, "
    ) as error:
        assert_equivariant(broken, group, x)
    assert equivariance_error(broken, group, x) > 1e-5
    if order > 2:
        # Nothing but that number is wrong: the error is its size, at the place it was put or the place it was moved to.
        assert "error 0.001 (tolerance" in str(error.value)
        assert equivariance_error(Broken(group, amount=0.0), group, x) < 1e-12


WRONG: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("a plain convolution on flattened fields", lambda x: nn.Conv2d(8, 8, 3, padding=1).double()(x.flatten(1, 2)).unflatten(1, (2, 4))),
    ("a bias for every element", lambda x: x + torch.arange(4, dtype=x.dtype)[:, None, None]),
    ("a permutation of the group that is no right translation", lambda x: x[:, :, [1, 0, 2, 3]]),
    ("a shift", lambda x: x.roll(1, -1)),
    ("a shared maximum at the first element", lambda x: x.cumsum(2)),
]


@pytest.mark.parametrize("layer", [layer for _, layer in WRONG], ids=[name for name, _ in WRONG])
def test_usual_mistakes_fail(layer: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return layer(x)

    with pytest.raises(AssertionError, match="does not commute"):
        assert_equivariant(seeded, "p4", torch.randn(1, 2, 4, 5, 5, dtype=torch.float64))


def test_the_wrong_group_fails() -> None:
    """A p4 layer is not equivariant under reflections, and passes for the rotations alone."""
    torch.manual_seed(0)
    network = nn.Sequential(LiftConv2d(1, 4, 3, group="p4"), GroupPool("max"))
    x = torch.randn(1, 1, 6, 6)
    assert_equivariant(network, "p4", x, in_field="scalar")
    with pytest.raises(AssertionError, match="does not commute with element"):
        assert_equivariant(network, "p4m", x, in_field="scalar")
    p4m = groups.get("p4m")
    rotations = [i for i, element in enumerate(p4m.elements) if round(np.linalg.det(element)) == 1]
    assert_equivariant(network, "p4m", x, in_field="scalar", elements=rotations)


def test_outputs_that_prove_nothing_fail() -> None:
    x = torch.randn(1, 2, 4, 3, 3)
    with pytest.raises(AssertionError, match="zero everywhere"):
        assert_equivariant(torch.zeros_like, "p4", x)
    with pytest.raises(AssertionError, match="not finite"):
        assert_equivariant(lambda x: x / 0, "p4", x)
    assert np.isnan(equivariance_error(lambda x: x * float("nan"), "p4", x))
    with pytest.raises(AssertionError, match="the output has shape"):
        assert_equivariant(lambda x: x[..., :2], "p4", x)
    with pytest.raises(TypeError, match="floating-point"):
        assert_equivariant(nn.Identity(), "p4", x.long())


def test_tolerances_come_from_the_dtype() -> None:
    """An error of 1e-4 passes in bfloat16, whose rounding it is, and fails in float32; atol and rtol override."""
    x = torch.rand(1, 1, 4, 3, 3) + 1
    x[0, 0, 0, 0, 0] = 3

    def slightly_wrong(x: Tensor) -> Tensor:
        return x * (1 + 1e-4 * torch.arange(9).reshape(3, 3) / 8).to(x.dtype)

    assert_equivariant(slightly_wrong, "p4", x.bfloat16())
    for tolerances in ({}, dict(atol=1e-6, rtol=0.0), dict(rtol=1e-6)):
        with pytest.raises(AssertionError):
            assert_equivariant(slightly_wrong, "p4", x, **tolerances)
    assert_equivariant(slightly_wrong, "p4", x, atol=1e-2)
    assert_equivariant(slightly_wrong, "p4", x, rtol=1e-3)


def test_bad_fields() -> None:
    with pytest.raises(ValueError, match=r"act: a regular field of p4 must have shape \(B, C, \|G\|=4, \*spatial\).*got \(1, 2, 8, 3, 3\)"):
        act("p4", 0, torch.zeros(1, 2, 8, 3, 3))
    with pytest.raises(ValueError, match='act: field must be "regular" or "scalar", got \'vector\''):
        act("p4", 0, torch.zeros(1, 2, 3, 3), "vector")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="p6 has no centre on a grid of even size, got spatial sizes"):
        act("p6", 1, torch.zeros(1, 2, 4, 4), "scalar")
    with pytest.raises(ValueError, match="act: p6 acts on arrays with equal sides"):
        act("p6", 1, torch.zeros(1, 2, 3, 5), "scalar")
    with pytest.raises(TypeError, match=r"^act: tensor must be a torch\.Tensor, got list"):
        act("p4", 1, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^act: element must be an integer, got '1'"):
        act("p4", "1", torch.zeros(1, 2, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^act: unknown group 'p9'"):
        act("p9", 0, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"^assert_equivariant: unknown group 'p9'"):
        assert_equivariant(nn.ReLU(), "p9", torch.zeros(1, 2, 4))


@pytest.mark.parametrize("name", ["C8", "D12"])
def test_planar_groups_act_by_quarter_turns_exactly_and_by_the_others_up_to_interpolation(name: str) -> None:
    group = iso.nn.PlanarGroup(name)
    line = torch.linspace(-1, 1, 41, dtype=torch.float64)
    rows, columns = torch.meshgrid(line, line, indexing="ij")

    def bump(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-8 * ((a - 0.2) ** 2 + (b + 0.1) ** 2))

    image = bump(rows, columns)[None, None]
    exact = set(group.subgroup_indices(iso.groups.get(group.lattice)).tolist())
    for element in range(group.order):
        matrix = torch.tensor(group.elements[group.inverse[element]])
        expected = bump(matrix[0, 0] * rows + matrix[0, 1] * columns, matrix[1, 0] * rows + matrix[1, 1] * columns)
        found = act(group, element, image, "scalar")[0, 0]
        assert (found - expected).abs().max() < (1e-12 if element in exact else 0.02)
        field = act(name, element, image[:, :, None].expand(1, 1, group.order, 41, 41) * torch.arange(group.order).view(-1, 1, 1))
        source = group.multiply[group.inverse[element]]
        torch.testing.assert_close(field[0, 0], found * torch.tensor(source).view(-1, 1, 1))
    with pytest.raises(TypeError, match=r"^act: a turn between the positions needs a floating-point dtype, got torch.int64"):
        act(name, 1, torch.zeros(1, 1, 5, 5, dtype=torch.int64), "scalar")


def test_planar_layers_are_compared_under_the_lattice_unless_asked_for_more() -> None:
    torch.manual_seed(0)
    layer = iso.nn.SteerableConv2d(2, 3, 5, "C8", padding=2).double()
    x = torch.randn(1, 2, 8, 9, 9, dtype=torch.float64)
    assert_equivariant(layer, "C8", x)
    assert equivariance_error(layer, "C8", x, elements=[1]) > 1e-3
    assert_equivariant(iso.nn.GroupLinear(2, 3, "C8").double(), "C8", x[..., 0, 0])
    with pytest.raises(AssertionError, match="does not commute with element 1 of C8"):
        assert_equivariant(lambda y: y * torch.arange(8.0), "C8", torch.randn(1, 2, 8))
