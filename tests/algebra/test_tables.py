"""The tables of the algebras: from first principles, by counts, and against two libraries that no one here wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic.ops.algebra.signature import BLADES, GRADES, SIGNATURES, algebra

ROOT = Path(__file__).parents[2]


def test_counts() -> None:
    pga, sta = algebra("pga"), algebra("sta")
    assert [int((t != 0).sum()) for t in (pga.geometric, pga.outer, pga.join, pga.linear)] == [192, 81, 81, 24]
    assert int((sta.geometric != 0).sum()) == 256 and sta.linear.shape == (10, 16, 16)
    assert [i for i in range(16) if pga.inner[i]] == [0, 2, 3, 4, 8, 9, 10, 14]
    assert list(pga.dual_signs) == [1, -1, 1, -1, 1, 1, -1, 1, 1, -1, 1, -1, 1, -1, 1, 1]
    squares = [int(sta.geometric[0, i, i]) for i in range(16)]
    assert squares == [1, 1, -1, -1, -1, 1, 1, 1, -1, -1, -1, -1, -1, -1, 1, -1]
    assert set(np.unique(pga.geometric)) == set(np.unique(sta.geometric)) == {-1, 0, 1}


@pytest.mark.parametrize("name", SIGNATURES)
def test_product_by_matrices(name: str) -> None:
    """Generators as operators on the exterior algebra, e_i = e_i ^ . + square_i (contraction with e_i), multiplied as matrices."""
    metric = SIGNATURES[name]

    def wedge(i: int) -> np.ndarray:
        matrix = np.zeros((16, 16))
        for column, blade in enumerate(BLADES):
            if i not in blade:
                row = BLADES.index(tuple(sorted((*blade, i))))
                matrix[row, column] = (-1) ** sum(j < i for j in blade)
        return matrix

    generators = [wedge(i) + metric[i] * wedge(i).T for i in range(4)]
    for j, blade in enumerate(BLADES):
        left = np.linalg.multi_dot([np.eye(16), np.eye(16), *(generators[i] for i in blade)])
        assert np.array_equal(left, algebra(name).geometric[:, j, :])


@pytest.mark.parametrize("name", SIGNATURES)
def test_product_against_kingdon(name: str) -> None:
    kingdon = pytest.importorskip("kingdon")
    other = kingdon.Algebra(signature=np.array(SIGNATURES[name]), start_index=0)
    x, y = np.random.default_rng(0).standard_normal((2, 16))
    names = ["e" + "".join(map(str, blade)) for blade in BLADES]
    a, b = (other.multivector(dict(zip(names, values, strict=True))) for values in (x, y))
    product = a * b
    expected = [float(np.asarray(getattr(product, n)).item()) for n in names]
    found = iso.ops.geometric_product(torch.from_numpy(x), torch.from_numpy(y), name)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_product_against_clifford() -> None:
    clifford = pytest.importorskip("clifford")
    layout = clifford.Layout(
        [1.0, -1.0, -1.0, -1.0], ids=clifford.BasisVectorIds.ordered_integers(4, first_index=0)
    )  # of a metric without zeros: those it cannot mix
    x, y = np.random.default_rng(0).standard_normal((2, 16))
    order = [BLADES.index(blade) for blade in layout.bladeTupList]
    product = layout.MultiVector(value=x[order]) * layout.MultiVector(value=y[order])
    expected = np.empty(16)
    expected[order] = product.value
    torch.testing.assert_close(iso.ops.geometric_product(torch.from_numpy(x), torch.from_numpy(y), "sta"), torch.from_numpy(expected))


def test_join_and_regressive_product() -> None:
    """The join is dual(dual x ^ dual y); the regressive product undoes the dual instead, which differs in sign at odd total grade."""
    pga = algebra("pga")
    dual = np.zeros((16, 16))
    for i in range(16):
        dual[i, 15 - i] = pga.dual_signs[i]
    x, y = np.random.default_rng(0).standard_normal((2, 16))
    grades = np.array(GRADES)
    reference = torch.zeros(16, dtype=torch.float64)
    reference[14] = 1.0
    for p in range(5):
        for q in range(5):
            a, b = x * (grades == p), y * (grades == q)
            wedge = np.einsum("ijk,j,k->i", pga.outer, dual @ a, dual @ b)
            join = iso.ops.equi_join(torch.from_numpy(a), torch.from_numpy(b), reference).numpy()
            assert np.allclose(join, dual @ wedge)
            regressive = np.linalg.inv(dual) @ wedge
            assert np.allclose(join, regressive * (-1) ** (p + q))
            assert p + q < 4 or np.abs(join).max() > 0


def test_join_of_points_is_their_line() -> None:
    """Two points span a line, three a plane; the plane is the one through the points."""
    points = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0], [2.0, -1.0, 0.0]], dtype=torch.float64)
    a, b, c = iso.pga.embed_point(points)
    reference = iso.pga.embed_point(torch.zeros(3, dtype=torch.float64))
    line = iso.ops.equi_join(a, b, reference)
    assert set(line.nonzero().flatten().tolist()) <= set(range(5, 11))
    plane = iso.ops.equi_join(line, c, reference)
    normal, distance = iso.pga.extract_plane(plane)
    expected = torch.linalg.cross(points[1] - points[0], points[2] - points[0])
    assert torch.linalg.cross(normal, expected).norm() < 1e-12
    torch.testing.assert_close(points @ normal, distance.expand(3))


def test_linear_maps_are_all_of_them() -> None:
    """Maps that commute with many versors form a space of 9 dimensions in G(3,0,1), 10 and 5 in G(1,3), and ours span it."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.eye(16, dtype=torch.float64)
    for name, mirrors, count in (("pga", True, 9), ("sta", False, 10), ("sta", True, 5)):
        versors = iso.testing.random_versor(8, dtype=torch.float64, mirrors=mirrors, algebra=name, generator=generator)
        actions = torch.stack([iso.pga.sandwich(u, basis, name).mT for u in versors])
        rows = torch.cat([torch.kron(basis, u) - torch.kron(u.mT.contiguous(), basis) for u in actions])
        assert int((torch.linalg.svdvals(rows) < 1e-9).sum()) == count
        for matrix in torch.from_numpy(algebra(name).linear[:count]):
            assert (rows @ matrix.mT.reshape(-1)).abs().max() < 1e-9


def test_generated_header_is_current() -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "generate_algebra.py"), "--check"], check=True)


def test_round_trips() -> None:
    pga = iso.pga
    v, w = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(pga.extract_point(pga.embed_point(v)), v)
    torch.testing.assert_close(pga.extract_direction(pga.embed_direction(v)), v)
    torch.testing.assert_close(pga.extract_translation(pga.embed_translation(v)), v)
    torch.testing.assert_close(pga.extract_rotation(pga.embed_rotation(torch.cat([v, w[:, :1]], -1))), torch.cat([v, w[:, :1]], -1))
    torch.testing.assert_close(pga.extract_scalar(pga.embed_scalar(v[:, :1])), v[:, :1])
    torch.testing.assert_close(pga.extract_pseudoscalar(pga.embed_pseudoscalar(v[:, :1])), v[:, :1])
    normal, distance = pga.extract_plane(pga.embed_plane(v, w))
    torch.testing.assert_close(normal * v.norm(dim=-1, keepdim=True), v)
    torch.testing.assert_close(distance, (normal * w).sum(-1, keepdim=True))


def test_versors_move_points() -> None:
    """The sandwich against matrices: R p + t, and mirrors."""
    pga = iso.pga
    p, t, n = torch.randn(3, 5, 3, dtype=torch.float64)
    quaternion = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=-1)
    i, j, k, w = quaternion.unbind(-1)
    axis = torch.stack([i, j, k], -1)
    turned = p + 2 * torch.linalg.cross(axis, torch.linalg.cross(axis, p) + w[:, None] * p)

    def moved(versor: Tensor) -> Tensor:
        return pga.extract_point(pga.sandwich(versor, pga.embed_point(p)))

    torch.testing.assert_close(moved(pga.embed_translation(t)), p + t)
    torch.testing.assert_close(moved(pga.embed_rotation(quaternion)), turned)
    unit = torch.nn.functional.normalize(n, dim=-1)
    torch.testing.assert_close(moved(pga.embed_reflection(n, t)), p - 2 * ((p - t) * unit).sum(-1, keepdim=True) * unit)
    both = iso.ops.geometric_product(pga.embed_translation(t), pga.embed_rotation(quaternion))
    torch.testing.assert_close(moved(3 * both), turned + t)


@pytest.mark.parametrize("w", [1e-9, -1e-9, 0.0, -2.0, 2.0, -0.0])
def test_degenerate_points(w: float) -> None:
    x = iso.pga.embed_point(torch.tensor([1.0, 2.0, 3.0]))
    x[14] = w
    x.requires_grad_()
    point = iso.pga.extract_point(x)
    divisor = w if abs(w) >= 1e-3 else (-1e-3 if w < 0 else 1e-3)
    torch.testing.assert_close(point.detach(), torch.tensor([1.0, 2.0, 3.0]) / divisor)
    point.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_wrong_embeddings() -> None:
    pga = iso.pga
    for function, size in ((pga.embed_point, 3), (pga.embed_rotation, 4), (pga.embed_scalar, 1), (pga.extract_point, 16)):
        with pytest.raises(ValueError, match=rf"{function.__name__}: \w+ must have shape \(\.\.\., {size}\)"):
            function(torch.zeros(size + 1))
        with pytest.raises(TypeError, match=f"{function.__name__}: .* floating-point"):
            function(torch.zeros(size, dtype=torch.int64))
        with pytest.raises(TypeError, match=rf"{function.__name__}: .* torch\.Tensor"):
            function([0.0] * size)
    with pytest.raises(ValueError, match="embed_reflection: normal must not be zero"):
        pga.embed_reflection(torch.zeros(3), torch.zeros(3))


def test_wrong_versors() -> None:
    for shape, more, error, word in (
        ((-1,), {}, ValueError, "shape"),
        ((2.0,), {}, ValueError, "shape"),
        (((2, 3),), {}, ValueError, "shape"),
        ((2,), {"dtype": torch.int32}, TypeError, "dtype"),
        ((2,), {"algebra": "cga"}, ValueError, "algebra"),
    ):
        with pytest.raises(error, match=rf"random_versor: {word} must be"):
            iso.testing.random_versor(*shape, **more)  # type: ignore[arg-type]
