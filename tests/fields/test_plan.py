"""The plan by itself, in float64: its sums over irreps against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from fields.definition import EVERY_GROUP, group_convolution

from isotypic import groups
from isotypic.ops.fields import _plan

GROUPS = [pytest.param(g, id=name.replace(" ", "-")) for name, g in EVERY_GROUP.items() if g.dim <= 3]


def evaluate(plan: _plan.Plan, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """out (|G|) of a field x (sources, *kernel) as large as the kernel, by the formulas of csrc/ops/group_conv.hpp."""
    box = x.reshape(x.shape[0], *_plan.embed(x.shape[1:], 1))
    total = np.zeros(plan.order)
    for orbit in plan.orbits:
        v = orbit.analysis @ box[(orbit.source, *orbit.tap.T)]
        w = orbit.weight_matrix @ weight.reshape(-1)[orbit.weight_index]
        products, first_v, first_w = [], 0, 0
        for (dim, rows), inner in zip(plan.irreps, orbit.inner, strict=True):
            v_block = v[first_v : first_v + rows * inner].reshape(rows, inner)
            w_block = w[first_w : first_w + dim * inner].reshape(dim, inner)
            products.append((v_block @ w_block.T).reshape(-1))
            first_v, first_w = first_v + rows * inner, first_w + dim * inner
        assert first_v == len(v) and first_w == len(w)
        total += np.concatenate(products)
    return plan.synthesis.T @ total


@pytest.mark.parametrize("field", ["regular", "scalar"])
@pytest.mark.parametrize("group", GROUPS)
def test_plan_computes_the_definition(group: groups.Group, field: str) -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 3) if group.order < 24 else (2, 3):
        kernel = (size,) * group.dim
        try:
            plan = _plan.build(group.key, field, kernel)
        except ValueError:
            assert size % 2 == 0  # an even box has no support on the hexagonal lattice
            continue
        x, weight = random.standard_normal((plan.sources, *kernel)), random.standard_normal((plan.sources, *kernel))
        shape = (slice(None),) if field == "regular" else (0,)
        expected = group_convolution(x[shape][None, None], weight[shape][None, None], group).reshape(group.order)
        actual = evaluate(plan, x, weight)
        assert np.linalg.norm(actual - expected) < 1e-13 * group.order * np.linalg.norm(expected)


@pytest.mark.parametrize("group", GROUPS)
def test_work_of_a_lift_shrinks_by_the_stabilisers(group: groups.Group) -> None:
    """The blocks of an orbit hold |G / H| numbers, counted once for every kept row: sum of d q / m over irreps = |G / H|."""
    for orbit in _plan.build(group.key, "scalar", (3,) * group.dim).orbits:
        assert len(orbit.analysis) == len(orbit.source) == len(orbit.weight_index)
    for orbit in _plan.build(group.key, "regular", (3,) * group.dim).orbits:
        assert len(orbit.analysis) == group.order


@pytest.mark.parametrize("name", ["p4", "p6m", "O"])
def test_adjoint_index(name: str) -> None:
    """psi~[c, o, u](u t) = psi[o, c, u^-1](-t): the filter of the transposed convolution with stride 1."""
    group, size = groups.get(name), 3
    for orbit in _plan.build(group.key, "regular", (size,) * group.dim).orbits:
        taps = np.stack(np.unravel_index(orbit.weight_index % size**group.dim, (size,) * group.dim), axis=1) - size // 2
        for u in range(group.order):
            element, flat = divmod(int(orbit.adjoint_index[u]), size**group.dim)
            assert element == group.inverse[u]
            position = np.array(np.unravel_index(flat, (size,) * group.dim)) - size // 2
            assert (group.elements[u] @ position == -taps[u]).all()
