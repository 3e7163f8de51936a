"""groups.generate: what it recognises, what it refuses."""

import numpy as np
import pytest

from isotypic import groups

TURN = [[0, -1], [1, 0]]


def test_a_named_group_is_recognised():
    for name in groups.names():
        assert groups.generate(groups.get(name).elements[::-1]) is groups.get(name)


def test_names_and_keys():
    g = groups.generate([[[-1, 0], [0, 1]]])
    assert (g.name, g.key) == ("G2", "G2[-1,0,0,1]")
    named = groups.generate([[[-1, 0], [0, 1]]], name="mirror rows")
    assert (named.name, named.key) == ("mirror rows", "mirror rows[-1,0,0,1]")
    assert named == g
    assert hash(named) == hash(g)
    assert groups.get("mirror rows[-1,0,0,1]") is named
    assert g != groups.get("pm")
    assert g != "G2[-1,0,0,1]"


def test_another_basis_shares_tables_and_fourier_matrix():
    """p4m on sheared coordinates: no element order was promised, but it follows the named group."""
    shear, back = np.array([[1, 1], [0, 1]]), np.array([[1, -1], [0, 1]])
    g = groups.generate([shear @ h @ back for h in groups.get("p4m").elements])
    assert np.array_equal(g.multiply, groups.get("p4m").multiply)
    assert np.array_equal(g.fourier, groups.get("p4m").fourier)
    assert groups.fourier_program(g) == "p4m"


def test_the_other_orientation_of_the_triangle():
    p31m = groups.generate([[[-1, -1], [1, 0]], [[0, -1], [-1, 0]]], name="p31m")
    assert p31m.order == 6
    assert p31m != groups.get("p3m1")
    assert groups.fourier_program(p31m) == "p3m1"


def test_the_quaternion_group():
    i = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]
    j = [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]]
    g = groups.generate([i, j])
    assert [(r.dim, r.kind, r.rows) for r in g.irreps] == [(1, "real", 1)] * 4 + [(4, "quaternionic", 1)]
    assert set(np.unique(g.irreps[-1].matrices)) == {-1.0, 0.0, 1.0}
    assert groups.fourier_program(g) == ""


def test_the_largest_group():
    """The symmetry group of the 24-cell: reflections in the short and long roots of F4, in its root basis."""
    cartan = np.array([[2, -1, 0, 0], [-1, 2, -2, 0], [0, -1, 2, -1], [0, 0, -1, 2]])
    reflections = []
    for k in range(4):
        reflection = np.eye(4, dtype=int)
        reflection[k] -= cartan[k]
        reflections.append(reflection)
    g = groups.generate(reflections)
    assert g.order == 1152
    assert len(g.irreps) == len(g.conjugacy_classes) == 25  # all real


def test_integral_floats_are_integers():
    assert groups.generate([np.array(TURN, dtype=np.float32)]) is groups.get("p4")


@pytest.mark.parametrize(
    ("generators", "message"),
    [
        ([], "groups.generate: generators must hold at least one matrix, got none"),
        ([TURN, [[1, 2, 3]]], r"generators\[1\] must be a square matrix, got shape \(1, 3\)"),
        ([[]], r"generators\[0\] must be a square matrix, got shape \(0,\)"),
        ([np.eye(7)], r"generators\[0\] must be at most 6 x 6, got shape \(7, 7\)"),
        ([TURN, np.eye(3)], r"generators\[1\] must have shape \(2, 2\) like the first, got \(3, 3\)"),
        ([[[0.5, 0], [0, 2]]], r"generators\[0\] must have integer entries, got \[\[0.5"),
        ([[[np.nan]]], r"generators\[0\] must have integer entries, got \[\[nan\]\]"),
        ([[["a"]]], r"generators\[0\] must have integer entries"),
        ([[[2**40, 1], [-1, 0]]], r"generators\[0\] must have entries of at most 2\^31"),
        ([[[1, 1], [1, 1]]], r"generators\[0\] must have determinant 1 or -1, got determinant 0"),
        ([[[0, 2, 0], [1, 0, 0], [0, 0, 1]]], r"generators\[0\] must have determinant 1 or -1, got determinant -2"),
        ([[[1, 1], [0, 1]]], r"the generators \[\[\[1, 1\], \[0, 1\]\]\] close to no finite group"),
        ([[[2, 1], [1, 1]]], "close to no finite group"),
        ([TURN, [[-1, -1], [1, 0]]], "close to no finite group"),
        ([[[1, 0, 0, 2**30], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]], "close to no finite group"),
        (
            [np.eye(5, dtype=int)[[1, 2, 3, 4, 0]], np.diag([-1, 1, 1, 1, 1]), np.eye(5, dtype=int)[[1, 0, 2, 3, 4]]],
            "more than 1152 elements",
        ),
    ],
)
def test_refused_generators(generators, message):
    with pytest.raises(ValueError, match=message):
        groups.generate(generators)


def test_refused_names():
    with pytest.raises(ValueError, match="name 'p4m' is that of another group"):
        groups.generate([TURN], name="p4m")
    with pytest.raises(ValueError, match="name must be a text without brackets, commas and semicolons, got 'a,b'"):
        groups.generate([TURN], name="a,b")


@pytest.mark.parametrize("key", ["", "x[]", "x[1,2]", "x[1,0,0,1;1]", "x[-]", "x[1", "P4M"])
def test_keys_that_mean_nothing(key):
    with pytest.raises(ValueError, match=r"unknown group .*; known groups: p1, "):
        groups.get(key)


@pytest.mark.parametrize("entry", ["99999999999999999999", "-9223372036854775808", "2147483649"])
def test_keys_with_huge_entries_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"groups.get: the entries in 'x\[.*\]' must be at most 2\^31"):
        groups.get(f"x[{entry}]")
    with pytest.raises(ValueError, match="must be at most"):
        groups.get(f"x[0,-1,1,0;1,{entry},0,1]")
