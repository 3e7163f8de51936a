"""FlopCounterMode counts every operator of the package: products counted by hand, and no operator without a formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import isotypic as iso
from isotypic import _flops


def counted(call: Callable[[], Tensor], backward: bool = False) -> int:
    with FlopCounterMode(display=False) as counter:
        y = call()
        if backward:
            y.sum().backward()
    return int(counter.get_total_flops())


def test_every_operator_has_a_formula() -> None:
    counted_operators = {str(packet) for packet in flop_registry}
    shipped = [name for name in _flops.operators() if not name.startswith("isotypic::test_")]
    missing = sorted(name for name in shipped if name.replace("::", ".") not in counted_operators)
    assert len(shipped) > 20
    assert not missing, f"{missing} have no flop formula: add them to ops/<family>/flops.py"


@pytest.mark.parametrize(("group", "products"), [("p4m", 12), ("p4", 5), ("p1", 1), ("pmm", 4)])
def test_group_conv(group: str, products: int) -> None:
    """The blocks of p4m: four of one product, one of 2 x 2 matrices with 8; of p4: two and a complex one with 3."""
    order = iso.groups.get(group).order
    x, weight = torch.randn(2, 3, order, 5, 6), torch.randn(4, 3, order, 3, 3, requires_grad=True)
    once = 2 * (2 * 5 * 6) * (3 * 4) * 9 * products
    call = lambda: iso.ops.group_conv(x, weight, group=group, padding=1)  # noqa: E731
    assert counted(call) == once
    assert counted(call, backward=True) == 2 * once  # and the gradient of the weight
    x.requires_grad_()
    assert counted(call, backward=True) == 3 * once


def test_group_conv_of_channel_groups_strides_and_scalars() -> None:
    x, weight = torch.randn(2, 4, 8, 5, 5), torch.randn(6, 2, 8, 3, 3)
    assert counted(lambda: iso.ops.group_conv(x, weight, group="p4m", stride=2, groups=2, padding=1)) == 2 * (2 * 9) * (6 * 2) * 9 * 12
    image, bank = torch.randn(2, 3, 6, 6), torch.randn(5, 3, 3, 3)
    assert counted(lambda: iso.ops.lift_conv(image, bank, group="p4m")) == 2 * (2 * 16) * (5 * 3) * 9 * 8
    field, matrix = torch.randn(2, 3, 8, 7), torch.randn(5, 3, 8)
    assert counted(lambda: iso.ops.group_linear(field, matrix, group="p4m")) == 2 * (2 * 7) * (5 * 3) * 12


def test_weight_linear() -> None:
    """[2, 4, 4, 1]: W_2 mixes its 16 entries; a neuron of either label has rho, kap and b; g has 2 + 1 + 1 and 3 biases."""
    layout = iso.ops.weight_layout([2, 4, 4, 1])
    slots = {node.label: node.slots for node in layout.nodes}
    assert slots == {1: 2 + 1 + 1, 2: 1 + 1 + 1}
    products = 16 + 4 * 4**2 + 4 * 3**2 + 7**2
    x = torch.randn(3, layout.entries, 5)
    weight, bias = torch.randn(layout.linear, 5, 7, requires_grad=True), torch.randn(layout.affine, 7)
    call = lambda: iso.ops.weight_linear(x, weight, bias, widths=layout.widths)  # noqa: E731
    assert counted(call) == 2 * 3 * 5 * 7 * products
    assert counted(call, backward=True) == 2 * counted(call)


def test_forms() -> None:
    p, g = torch.randn(3, 7), torch.randn(3, 2, 2)
    assert counted(lambda: iso.ops.form_action(p, g)) == 2 * 3 * 5 * 36 // 2
    # (f, f)_2 of a quadratic: a c twice and b^2, one number, mixed into 3 channels.
    f, weight = torch.randn(2, 4, 3, requires_grad=True), torch.randn(4, 1, 3, requires_grad=True)
    call = lambda: iso.ops.transvectants(f, weight, degrees=[2], paths=[(0, 0, 2)])  # noqa: E731
    assert counted(call) == 2 * 2 * 4 * (3 + 3)
    assert counted(call, backward=True) == 3 * counted(call)
    form = torch.tensor([[1.0, 0, 2, 0, 1]])
    assert counted(lambda: iso.ops.max_det_gram(form).gram) > 0


def test_multivectors() -> None:
    """192, 81 and 24 entries; their gradients cost as much each."""
    x, y = torch.randn(5, 3, 16, requires_grad=True), torch.randn(5, 3, 16, requires_grad=True)
    assert counted(lambda: iso.ops.geometric_product(x, y)) == 2 * 15 * 192
    assert counted(lambda: iso.ops.geometric_product(x, y, "sta")) == 2 * 15 * 256
    assert counted(lambda: iso.ops.geometric_product(x, y), backward=True) == 3 * 2 * 15 * 192
    assert counted(lambda: iso.ops.equi_join(x, y, torch.ones(16)), backward=True) == 3 * 2 * 15 * 81
    weight = torch.randn(4, 3, 9, requires_grad=True)
    assert counted(lambda: iso.ops.multivector_linear(x, weight), backward=True) == 3 * 2 * 5 * 4 * 3 * 24
    for maps, entries in ((10, 32), (5, 16)):
        assert counted(lambda maps=maps: iso.ops.multivector_linear(x, torch.randn(4, 3, maps), "sta")) == 2 * 5 * 12 * entries


@pytest.mark.parametrize(("shared", "heads"), [(True, 4), (False, 2)])
def test_distance_attention(shared: bool, heads: int) -> None:
    """A logit has 8 terms of the inner product, 10 of the distance and a term for each scalar."""
    keys = 1 if shared else heads
    sizes = (5, 3 * heads, 16), (7, 3 * keys, 16), (7, keys, 16), (5, 2 * heads), (7, 2 * keys), (7, keys)
    tensors = [torch.empty(2, *size, device="meta", requires_grad=True) for size in sizes]
    pairs, logit, value = 2 * 5 * 7 * heads, 3 * (8 + 10) + 2, 16 + 1
    call = lambda: torch.ops.isotypic.distance_attention(*tensors, None, None, None, heads, "pga")[0]  # noqa: E731
    assert counted(call) == 2 * pairs * (logit + value)
    assert counted(call, backward=True) == 2 * pairs * (4 * logit + 3 * value)


def test_set_conv_counts_the_nodes_in_windows() -> None:
    """Windows of 6 lengthscales: of 2 x 3 nodes inside to either side 5 x 7 = 35, and 3 x 7 for a point at the first row."""
    t, s = torch.tensor([[[10.0, 20.0], [0.0, 20.0]]], dtype=torch.float64), torch.tensor([0.4, -0.5], dtype=torch.float64)
    y, grid = torch.randn(1, 2, 3), torch.randn(1, 3, 21, 41)
    nodes = (5 + 3) * 7
    assert counted(lambda: torch.ops.isotypic.set_conv(y, t, s, [21, 41], [0, 0])) == 2 * 3 * nodes
    assert counted(lambda: torch.ops.isotypic.set_conv_decode(grid, t, s, [0, 0])) == 2 * 3 * nodes
    assert counted(lambda: torch.ops.isotypic.set_conv_moments(t, s, y, grid, True)) == 2 * (2 * 3 + 2) * nodes
    assert counted(lambda: torch.ops.isotypic.set_conv_moments(t, s, y, grid, False)) == 2 * (3 + 2) * nodes
    everywhere = [tensor.to("meta") for tensor in (y, t, s)]
    assert counted(lambda: torch.ops.isotypic.set_conv(*everywhere, [21, 41], [0, 0])) == 2 * 3 * 2 * 21 * 41


def test_pair_attention() -> None:
    """The MLP of 2 + 2 inputs, the scores and the values of a pair; in the gradient 3 and 5 times as much as one of them."""
    q, k, v = (torch.randn(2, 2, n, 3, requires_grad=True) for n in (5, 7, 7))
    sizes = ((6, 4), (5, 6), (2, 5))
    mlp = [(torch.randn(size, requires_grad=True), torch.randn(size[0])) for size in sizes]
    pairs, layers, scores = 2 * 5 * 7, 4 * 6 + 6 * 5 + 5 * 2, 2 * 3
    call = lambda: iso.ops.pair_attention(q, k, v, torch.randn(2, 5, 2), torch.randn(2, 7, 2), mlp)  # noqa: E731
    assert counted(call) == 2 * pairs * (layers + 2 * scores)
    assert counted(call, backward=True) == 2 * pairs * (4 * layers + 7 * scores)


def test_symmetrization() -> None:
    """A rotation of d x d for each of k samples of n nodes; 3 recursions' worth a step of Sinkhorn; permutations only move."""
    rotation, y = torch.randn(2, 5, 3, 3, requires_grad=True), torch.randn(2, 5, 7, 3, requires_grad=True)
    call = lambda: iso.ops.rotate_mean(rotation, y)  # noqa: E731
    assert counted(call) == 2 * 2 * 5 * 7 * 9
    assert counted(call, backward=True) == 3 * counted(call)
    assert counted(lambda: iso.ops.permute_nodes(y, torch.arange(5).expand(2, 5))) == 0

    def entropy(iterations: int, dtype: torch.dtype = torch.float32) -> int:
        return counted(lambda: iso.ops.sort_sinkhorn(torch.randn(2, 9, dtype=dtype), tau=0.1, iterations=iterations).entropy)

    assert entropy(20) - entropy(10) == 2 * 2 * 9 * 10 * 2 * 2  # two half steps of two recursions each


def test_small_matrices() -> None:
    """Of 2 x 2 matrices by hand: a column of length 2, a projection twice, Q^T v; a Jacobi rotation. More sweeps in float64."""
    v = torch.randn(4, 2, 2)
    columns = 2 * (2 + 2 + 2) + 2 * (2 + 2)  # lengths before and after, scaled; two passes of an inner product and an update
    assert counted(lambda: iso.ops.orthonormal_frame(v).frame) == 2 * 4 * (columns + 8 + 1)
    assert counted(lambda: torch.ops.isotypic.symmetric_eigen(v)[0]) == 2 * 4 * (5 + 8 + 8)
    a = torch.randn(4, 3, 3, requires_grad=True)
    assert counted(lambda: iso.ops.symmetric_eigen(a.double()).values) * 4 == counted(lambda: iso.ops.symmetric_eigen(a).values) * 5
    frame = lambda: iso.ops.orthonormal_frame(a).frame  # noqa: E731
    assert counted(frame, backward=True) == counted(frame) + 2 * 4 * 2 * 27
    assert counted(lambda: iso.ops.polar(a).rotation) > counted(frame)


def test_normalisation_is_not_products() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert counted(lambda: iso.ops.batch_norm(x, training=True)) == 0
