"""The named groups against what the literature says of them, and their closed forms against the general decomposition."""

import numpy as np
import pytest

from isotypic import groups
from isotypic.groups.decompose import decompose

# order, dimension of space, multiplicity of each irrep by (real dimension, kind)
KNOWN = {
    "p1": (1, 2, {(1, "real"): 1}),
    "p2": (2, 2, {(1, "real"): 2}),
    "pm": (2, 2, {(1, "real"): 2}),
    "pmm": (4, 2, {(1, "real"): 4}),
    "p4": (4, 2, {(1, "real"): 2, (2, "complex"): 1}),
    "p4m": (8, 2, {(1, "real"): 4, (2, "real"): 1}),
    "p3": (3, 2, {(1, "real"): 1, (2, "complex"): 1}),
    "p3m1": (6, 2, {(1, "real"): 2, (2, "real"): 1}),
    "p6": (6, 2, {(1, "real"): 2, (2, "complex"): 2}),
    "p6m": (12, 2, {(1, "real"): 4, (2, "real"): 2}),
    "C4": (4, 3, {(1, "real"): 2, (2, "complex"): 1}),
    "D4": (8, 3, {(1, "real"): 4, (2, "real"): 1}),
    "D4h": (16, 3, {(1, "real"): 8, (2, "real"): 2}),
    "T": (12, 3, {(1, "real"): 1, (2, "complex"): 1, (3, "real"): 1}),
    "Th": (24, 3, {(1, "real"): 2, (2, "complex"): 2, (3, "real"): 2}),
    "Td": (24, 3, {(1, "real"): 2, (2, "real"): 1, (3, "real"): 2}),
    "O": (24, 3, {(1, "real"): 2, (2, "real"): 1, (3, "real"): 2}),
    "Oh": (48, 3, {(1, "real"): 4, (2, "real"): 2, (3, "real"): 4}),
}


def test_the_table_is_complete():
    assert set(KNOWN) == set(groups.names())


@pytest.mark.parametrize("name", KNOWN)
def test_orders_and_irreps(name):
    g = groups.get(name)
    order, dim, irreps = KNOWN[name]
    assert (g.name, g.key, g.order, g.dim, len(g)) == (name, name, order, dim, order)
    found = [(i.dim, i.kind) for i in g.irreps]
    assert {entry: found.count(entry) for entry in found} == irreps


@pytest.mark.parametrize("name", KNOWN)
def test_closed_forms_have_the_characters_of_the_decomposition(name):
    g = groups.get(name)
    closed = sorted(tuple(np.round(i.character, 9) + 0.0) for i in g.irreps)
    general = sorted(tuple(np.round(i.character, 9) + 0.0) for i in decompose(g))
    assert np.allclose(closed, general, atol=1e-9)


@pytest.mark.parametrize("name", KNOWN)
def test_entries_are_exact(name):
    exact = [0.0, 0.5, np.sqrt(3) / 2, 1.0]
    assert set(np.unique(np.abs(groups.get(name).fourier))) <= set(exact)
    if name in ("p2", "pm", "pmm", "p4", "p4m", "C4", "D4", "D4h"):
        assert set(np.unique(np.abs(groups.get(name).fourier))) <= {0.0, 1.0}


@pytest.mark.parametrize("names", [("p2", "pm"), ("p4", "C4"), ("p4m", "D4"), ("O", "Td")])
def test_equal_abstract_groups_share_their_tables(names):
    first, second = map(groups.get, names)
    assert np.array_equal(first.multiply, second.multiply)
    assert np.array_equal(first.fourier, second.fourier)
    assert first != second


def test_determinants_tell_rotations_from_reflections():
    for name, proper in {"C4": 4, "D4": 8, "D4h": 8, "T": 12, "Th": 12, "Td": 12, "O": 24, "Oh": 24, "p4m": 4, "p6m": 6, "p3m1": 3}.items():
        assert (np.round(np.linalg.det(groups.get(name).elements)) == 1).sum() == proper, name


def test_hexagonal_groups_keep_the_hexagonal_metric():
    metric = np.array([[2, 1], [1, 2]])  # axes at 60 degrees
    for name in ("p3", "p3m1", "p6", "p6m"):
        for h in groups.get(name).elements:
            assert np.array_equal(h.T @ metric @ h, metric)


def test_p3m1_mirrors_lie_along_no_shortest_lattice_vector():
    shortest = [(1, 0), (0, 1), (1, -1)]
    mirrors = [h for h in groups.get("p3m1").elements if round(np.linalg.det(h)) == -1]
    assert len(mirrors) == 3
    assert not any(np.array_equal(h @ v, v) for h in mirrors for v in shortest)


def test_the_axis_of_c4_is_depth():
    for name in ("C4", "D4", "D4h"):
        assert (np.abs(groups.get(name).elements[:, 0, 0]) == 1).all()


@pytest.mark.parametrize(
    ("group", "subgroup"),
    [("p4m", "p4"), ("p4m", "pm"), ("p6m", "p3m1"), ("Oh", "O"), ("Oh", "Td"), ("Oh", "D4h"), ("O", "D4"), ("p4", "p4")],
)
def test_subgroups_and_cosets(group, subgroup):
    g, h = groups.get(group), groups.get(subgroup)
    indices = g.subgroup_indices(h)
    assert g.is_subgroup(h)
    assert np.array_equal(g.elements[indices], h.elements)
    for cosets, product in ((g.left_cosets(h), g.multiply), (g.right_cosets(h), g.multiply.T)):
        assert cosets.shape == (g.order // h.order, h.order)
        assert sorted(cosets.ravel()) == list(range(g.order))
        for coset in cosets:
            assert np.array_equal(coset, product[coset.min(), indices])
    assert np.array_equal(g.left_cosets(indices), g.left_cosets(h))


def test_subgroup_errors():
    p4m = groups.get("p4m")
    assert not p4m.is_subgroup(groups.get("p3"))
    with pytest.raises(ValueError, match=r"subgroup of p4m: p3 is not a subgroup, its element \[\[-1, -1\], \[1, 0\]\] is not in p4m"):
        p4m.subgroup_indices(groups.get("p3"))
    with pytest.raises(ValueError, match="subgroup of p4m: must act on dimension 2, got C4 on dimension 3"):
        p4m.subgroup_indices(groups.get("C4"))
    with pytest.raises(ValueError, match=r"cosets of p4m: the indices \[0, 1\] are not closed"):
        p4m.left_cosets([0, 1])


def test_index():
    g = groups.get("Oh")
    assert [g.index(element) for element in g.elements] == list(range(48))
    with pytest.raises(ValueError, match=r"\[\[1, 1\], \[0, 1\]\] is no element of p4"):
        groups.get("p4").index([[1, 1], [0, 1]])


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown group 'p5'; known groups: p1, p2, pm, pmm, p4, p4m, p3, .*, Oh"):
        groups.get("p5")
    with pytest.raises(TypeError, match="group must be a name, a key or a Group, got int"):
        groups.get(4)


def test_repr():
    assert repr(groups.get("T")) == "Group('T', order=12, dim=3, irreps=[1, 2 complex, 3])"
    assert repr(groups.get("T").irreps[1]) == "Irrep(dim=2, kind='complex')"
