"""Orbits of kernel taps against their definition, for odd and even boxes."""

import itertools

import numpy as np
import pytest

from isotypic import groups

CASES = [
    ("p1", 3), ("p2", (2, 3)), ("pm", (3, 2)), ("pmm", (4, 3)), ("p4", 4), ("p4m", 5), ("p4m", (3, 5)), ("p3", 3), ("p3m1", 5),
    ("p6", (5, 3)), ("p6m", 7), ("C4", (2, 3, 3)), ("D4h", (3, 2, 2)), ("T", 3), ("O", 2), ("Oh", 3), ("Td", (3, 3, 5)),
]  # fmt: skip


def largest_invariant_set(g, sizes):
    """Removes taps that an element moves out, until nothing changes: the definition, in doubled coordinates."""
    taps = set(itertools.product(*[range(-k + 1, k, 2) for k in sizes]))
    while True:
        kept = {t for t in taps if all(tuple((h @ np.array(t)).tolist()) in taps for h in g.elements)}
        if kept == taps:
            return taps
        taps = kept


@pytest.mark.parametrize(("name", "kernel_size"), CASES)
def test_orbits(name, kernel_size):
    g = groups.get(name)
    sizes = (kernel_size,) * g.dim if isinstance(kernel_size, int) else kernel_size
    wanted = largest_invariant_set(g, sizes)

    mask = groups.support(g, kernel_size)
    assert mask.shape == sizes
    assert {tuple((2 * t - np.array(sizes) + 1).tolist()) for t in np.argwhere(mask)} == wanted

    covered = []
    for orbit in groups.orbits(g, kernel_size):
        t = np.array(orbit.representative)
        for h in range(g.order):
            assert np.array_equal(2 * orbit.taps[h] - np.array(sizes) + 1, g.elements[h] @ t)
            assert (h in orbit.stabiliser) == np.array_equal(g.elements[h] @ t, t)
        different = {tuple(tap) for tap in orbit.taps.tolist()}
        assert len(different) == orbit.length == g.order // len(orbit.stabiliser)
        covered += different
    assert sorted(covered) == [tuple(t) for t in np.argwhere(mask).tolist()]


def test_the_hexagon_lacks_two_corners():
    assert groups.support(groups.get("p6m"), 3).tolist() == [[False, True, True], [True, True, True], [True, True, False]]


def test_one_odd_box_of_p4m():
    assert [(o.representative, o.length) for o in groups.orbits(groups.get("p4m"), 3)] == [((-2, -2), 4), ((-2, 0), 4), ((0, 0), 1)]


@pytest.mark.parametrize(("name", "kernel_size"), [("p4m", (2, 3)), ("p6", 2), ("p3", 4), ("O", (2, 2, 3))])
def test_empty_support(name, kernel_size):
    for function in (groups.orbits, groups.support):
        with pytest.raises(ValueError, match=rf"kernel_size \(.*\) holds no tap whose orbit under {name} stays in the box"):
            function(groups.get(name), kernel_size)


@pytest.mark.parametrize("kernel_size", [0, (3, 0), (3,), (3, 3, 3), -1])
def test_bad_kernel_size(kernel_size):
    with pytest.raises(ValueError, match="kernel_size must be 2 positive integers for p4m, got"):
        groups.orbits(groups.get("p4m"), kernel_size)
