"""What holds for every finite group, checked on all named groups and on generated ones of every kind of irrep."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotypic import groups

QUATERNION_I = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]
QUATERNION_J = [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]]
# Left multiplication by (1 + i + j + k) / 2 and by i on the Hurwitz quaternions, in the basis ((1 + i + j + k) / 2, i, j, k).
HURWITZ = [[[-1, -1, -1, -1], [1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 1, 1]], [[-1, -2, 0, 0], [1, 1, 0, 0], [0, 1, 0, -1], [1, 1, 1, 0]]]
PERMUTATIONS_5 = [
    [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    [[-1, -1, -1, -1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
]

GENERATED = {
    "sign": [[[-1]]],
    "quaternion": [QUATERNION_I, QUATERNION_J],
    "binary tetrahedral": HURWITZ,
    "fifth of a turn": [[[0, 0, 0, -1], [1, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, -1]]],
    "permutations of five": PERMUTATIONS_5,
    "three mirrors": [np.diag([-1, 1, 1]), np.diag([1, -1, 1]), np.diag([1, 1, -1])],
    "hyperoctahedral": [np.diag([-1, 1, 1, 1]), np.eye(4, dtype=int)[[1, 0, 2, 3]], np.eye(4, dtype=int)[[1, 2, 3, 0]]],
}
EXAMPLES = [*groups.names(), *GENERATED]


def example(name):
    return groups.generate(GENERATED[name], name) if name in GENERATED else groups.get(name)


def assert_group(g):
    order = np.arange(g.order)
    assert np.array_equal(g.elements[0], np.eye(g.dim))
    assert len({element.tobytes() for element in g.elements}) == g.order
    assert np.array_equal(g.elements[g.multiply], np.einsum("aij,bjk->abik", g.elements, g.elements))
    assert np.array_equal(g.multiply[g.multiply], g.multiply[order[:, None, None], g.multiply[None]])  # (a b) c = a (b c)
    assert np.array_equal(g.multiply[order, g.inverse], np.zeros(g.order))
    assert np.array_equal(g.multiply[g.inverse, order], np.zeros(g.order))


def assert_irreps(g, tolerance=1e-12):
    assert sum(i.dim * i.rows for i in g.irreps) == g.order
    assert np.array_equal(g.irreps[0].matrices, np.ones((g.order, 1, 1)))
    assert [i.dim for i in g.irreps] == sorted(i.dim for i in g.irreps)
    for i in g.irreps:
        m = i.matrices
        for h in range(g.order):
            assert np.abs(m[g.multiply[h]] - m[h] @ m).max() <= tolerance
        assert np.abs(m @ m.transpose(0, 2, 1) - np.eye(i.dim)).max() <= tolerance
        assert (i.character**2).mean() == pytest.approx({"real": 1, "complex": 2, "quaternionic": 4}[i.kind])
        assert i.rows * {"real": 1, "complex": 2, "quaternionic": 4}[i.kind] == i.dim
        assert_adapted(i, tolerance)
    # Schur orthogonality of the rows, and its completeness: F is square.
    weights = g.fourier_weights
    assert np.abs(g.fourier @ g.fourier.T * weights - np.eye(g.order)).max() <= 10 * tolerance
    assert np.abs(g.fourier.T @ np.diag(weights) @ g.fourier - np.eye(g.order)).max() <= 10 * tolerance


def assert_adapted(i, tolerance):
    blocks = i.matrices.reshape(len(i.matrices), -1, i.rows, i.matrices.shape[1] // i.rows, i.rows).transpose(0, 1, 3, 2, 4)
    if i.kind == "complex":
        re, im = blocks[:, 0, 0], blocks[:, 1, 0]
        wanted = [[re, -im], [im, re]]
    elif i.kind == "quaternionic":
        a, b, c, d = blocks[:, 0, 0], blocks[:, 1, 0], blocks[:, 2, 0], blocks[:, 3, 0]
        wanted = [[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]
    else:
        return
    for row, wanted_row in enumerate(wanted):
        for column, block in enumerate(wanted_row):
            assert np.abs(blocks[:, row, column] - block).max() <= tolerance


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "hyperoctahedral"])
def test_tables(name):
    assert_group(example(name))


@pytest.mark.parametrize("name", EXAMPLES)
def test_irreps(name):
    assert_irreps(example(name))


@pytest.mark.parametrize("name", EXAMPLES)
def test_conjugacy_classes_and_characters(name):
    g = example(name)
    assert sorted(sum(g.conjugacy_classes, ())) == list(range(g.order))
    assert g.conjugacy_classes[0] == (0,)
    for members in g.conjugacy_classes:
        conjugates = {int(g.multiply[g.multiply[x, members[0]], g.inverse[x]]) for x in range(g.order)}
        assert conjugates == set(members)
        for i in g.irreps:
            assert np.ptp(i.character[list(members)]) < 1e-12
    sizes = np.array([len(members) for members in g.conjugacy_classes])
    products = (g.character_table * sizes) @ g.character_table.T / g.order
    assert np.abs(products - np.diag([i.dim / i.rows for i in g.irreps])).max() < 1e-12
    assert g.character_table[:, 0].tolist() == [i.dim for i in g.irreps]


@pytest.mark.parametrize("name", EXAMPLES)
def test_copies_are_the_group_itself(name):
    g = example(name)
    assert pickle.loads(pickle.dumps(g)) is g
    assert copy.deepcopy(g) is g
    assert groups.get(g.key) is g
    assert groups.get(g) is g


def test_key_rebuilds_in_another_process():
    g = example("binary tetrahedral")
    code = "import sys, pickle; g = pickle.load(sys.stdin.buffer); print(g.name, g.key, g.fourier.tobytes().hex(), sep='|')"
    arguments = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    answer = subprocess.run(arguments, input=pickle.dumps(g), capture_output=True, check=True).stdout.decode()
    assert answer.strip() == "|".join([g.name, g.key, g.fourier.tobytes().hex()])


@pytest.mark.parametrize("name", EXAMPLES)
def test_arrays_are_read_only(name):
    g = example(name)
    for array in (g.elements, g.multiply, g.inverse, g.fourier, g.irreps[-1].matrices, g.irreps[-1].character):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def signed_permutation(draw, n):
    permutation = draw(st.permutations(range(n)))
    signs = draw(st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n))
    return np.diag(signs) @ np.eye(n, dtype=int)[permutation]


def shear(draw, n):
    """An integer matrix of determinant 1, so that the groups are not only of signed permutations."""
    matrix = np.eye(n, dtype=int)
    if n > 1:
        i, j = draw(st.sampled_from([(i, j) for i in range(n) for j in range(n) if i != j]))
        matrix[i, j] = draw(st.integers(-3, 3))
    return matrix


@st.composite
def generators(draw):
    n = draw(st.integers(1, 4))
    change = shear(draw, n)
    inverse = np.round(np.linalg.inv(change)).astype(int)
    return [change @ signed_permutation(draw, n) @ inverse for _ in range(draw(st.integers(1, 2)))]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(generators())
def test_generated_groups(matrices):
    g = groups.generate(matrices)
    for matrix in matrices:
        g.index(matrix)
    assert groups.generate([*matrices[::-1], matrices[0] @ matrices[-1]]) is g  # the order of elements is the group's own
    if g.order <= 96:
        assert_group(g)
        assert_irreps(g)
