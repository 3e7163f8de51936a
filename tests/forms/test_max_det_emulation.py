"""The CUDA kernels of max_det on the host emulation, beside the CPU kernels: the same arithmetic by threads and by warps."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from emulate import build, view
from forms.form_cases import exact_action, sums_of_squares
from torch import Tensor

import isotypic as iso
from isotypic.ops.forms import circle
from isotypic.ops.forms.max_det import (
    INACCURATE,
    NOT_POSITIVE,
    REFINE,
    SOLVED,
    max_det,
    max_det_adjoint,
    max_det_frame,
    max_det_solve,
    split,
)


@pytest.fixture(scope="module")
def emulation() -> ModuleType:
    return build("max_det")


def forms(degree: int, dtype: torch.dtype) -> Tensor:
    """Sums of squares, and a zero, a negative and an infinite form among them."""
    n = degree // 2 + 1
    a = torch.randn(5, n, n, dtype=torch.float64)
    p = iso.ops.gram_to_form(a.mT @ a + 0.1 * torch.eye(n, dtype=torch.float64))
    p[1], p[2], p[3, 0] = 0, -p[2], torch.inf
    return p.to(dtype)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize("degree", [0, 2, 6, 10, 12, 16, 40])
def test_max_det(emulation: ModuleType, degree: int, single: bool, reverse: bool) -> None:
    """`single`: for a result in float32."""
    emulation.configure(reverse)
    d, n, dtype = degree // 2, degree // 2 + 1, torch.float64
    p, tables = forms(degree, dtype), circle.table_tensor(d, dtype, torch.device("cpu"))
    solution = torch.full((5, n * n + 5), torch.nan, dtype=dtype)
    emulation.max_det(view(p), view(tables), single, False, False, view(solution))
    expected = split(max_det(p, single, False, False))
    assert solution[:, n * n].tolist() == expected.status.tolist()
    assert expected.status.tolist()[1:4] == [1, 1, 3] and set(expected.status.tolist()) <= {0, 1, 3, 4}
    gram = solution[:, : n * n].reshape(5, n, n).contiguous()
    tolerance = (1e5 if degree < 40 else 1e6) * torch.finfo(dtype).eps  # the condition of the Hessian
    assert ((gram - expected.gram).norm(dim=(1, 2)) <= tolerance * expected.gram.norm(dim=(1, 2))).all()
    assert torch.equal(solution[:, n * n + 2 : n * n + 4], expected.witness)
    torch.testing.assert_close(solution[:, n * n + 4], expected.error, rtol=1e-2, atol=0)  # of conditions, by arithmetic in another order

    gram, matrix = expected.gram.contiguous(), torch.randn(5, n, n, dtype=dtype)
    form, result = torch.randn(5, degree + 1, dtype=dtype), torch.full((5, degree + 1), torch.nan, dtype=dtype)
    emulation.max_det_adjoint(view(gram), view(matrix), None, view(tables), view(result))
    right = max_det_adjoint(gram, matrix)
    assert (result - right).norm() <= tolerance * right.norm()
    emulation.max_det_adjoint(view(gram), None, view(form), view(tables), view(result))
    right = max_det_solve(gram, form)
    assert (result - right).norm() <= tolerance * right.norm()


# Next to the boundary of the positive forms

OFFSETS = (1e-3, 1e-6, 1e-8, 1e-11, -1e-9)
"""One word is enough for the first alone, two are for the next two; the fourth is not accurate in either, the last is negative."""


def touching(degree: int) -> Tensor:
    """(x^2 - y^2)^2 (x^2 + y^2)^(d - 2) + e (x^2 + y^2)^d, for each e of OFFSETS."""
    square = torch.zeros(degree // 2 + 1, dtype=torch.float64)  # of the polynomial in x^2 and y^2
    for k in range(degree // 2 - 1):
        square[k : k + 3] += math.comb(degree // 2 - 2, k) * torch.tensor([1.0, -2, 1], dtype=torch.float64)
    circle_power = torch.tensor([math.comb(degree // 2, k) for k in range(degree // 2 + 1)], dtype=torch.float64)
    p = torch.zeros(len(OFFSETS), degree + 1, dtype=torch.float64)
    p[:, ::2] = square + torch.tensor(OFFSETS, dtype=torch.float64)[:, None] * circle_power
    return p


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("degree", [4, 10, 16])
def test_two_words_next_to_the_boundary(emulation: ModuleType, degree: int, reverse: bool) -> None:
    emulation.configure(reverse)
    n, p = degree // 2 + 1, touching(degree)
    tables = circle.table_tensor(degree // 2, torch.float64, torch.device("cpu"))
    for candidates in (False, True):
        solution = torch.full((len(p), n * n + 5), torch.nan, dtype=torch.float64)
        emulation.max_det(view(p), view(tables), False, candidates, True, view(solution))
        assert split(solution).status.tolist() == [SOLVED, *[REFINE] * 4]
        emulation.max_det(view(p), view(tables), False, candidates, False, view(solution))
        found, expected = split(solution), split(max_det(p, False, candidates, False))
        assert found.status.tolist() == expected.status.tolist() == [SOLVED, SOLVED, SOLVED, INACCURATE, NOT_POSITIVE]
        torch.testing.assert_close(found.error, expected.error, rtol=1e-2, atol=0)
        assert torch.equal(found.witness, expected.witness) and (p[-1] @ powers(found.witness[-1], degree)) < 0
        assert bool(found.gram[3].any()) == candidates
        off = (found.gram - expected.gram).norm(dim=(1, 2))
        assert (off <= (10 * expected.error + 1e5 * torch.finfo(torch.float64).eps) * expected.gram.norm(dim=(1, 2))).all()

    gram, errors = found.gram[:3].contiguous(), found.error[:3]
    matrix, form = torch.randn(3, n, n, dtype=torch.float64), torch.randn(3, degree + 1, dtype=torch.float64)
    for pair, right in (((matrix, None), max_det_adjoint(gram, matrix)), ((None, form), max_det_solve(gram, form))):
        result = torch.full((3, degree + 1), torch.nan, dtype=torch.float64)
        emulation.max_det_adjoint(view(gram), view(pair[0]), view(pair[1]), view(tables), view(result))
        assert ((result - right).norm(dim=1) <= (10 * errors + 1e5 * torch.finfo(torch.float64).eps) * right.norm(dim=1)).all()


def powers(point: Tensor, degree: int) -> Tensor:
    """x^k y^(degree - k) for k = 0, ..., degree."""
    k = torch.arange(degree + 1)
    return point[0] ** k * point[1] ** (degree - k)


@pytest.mark.parametrize("degree", [4, 12, 14, 40])
def test_frames(emulation: ModuleType, degree: int) -> None:
    """p o h is exact to rounding and about as small as on a CPU, also of forms next to the boundary; what is not finite stays so."""
    emulation.configure(False)
    stretch = 2.0 ** (2 * torch.arange(degree + 1, dtype=torch.float64) - degree)
    p = torch.cat([forms(degree, torch.float64), touching(degree), sums_of_squares(degree, 3) * stretch])
    tables = circle.table_tensor(degree // 2, torch.float64, torch.device("cpu"))
    found = torch.full((len(p), degree + 5), torch.nan, dtype=torch.float64)
    emulation.max_det_frame(view(p), view(tables), view(found))
    sizes, expected = (rows[:, : degree + 1].norm(dim=1) for rows in (found, max_det_frame(p)))  # frames are no better than they need be
    torch.testing.assert_close(sizes, expected, rtol=0.1, atol=0, equal_nan=True)
    assert (sizes[-3:] < 0.9 * p[-3:].norm(dim=1)).all()
    for i, row in enumerate(p):
        framed, h = found[i, : degree + 1], found[i, degree + 1 :].reshape(2, 2)
        assert abs(float(torch.linalg.det(h)) - 1) < 1e-9
        if not row.isfinite().all():
            assert framed.isnan().all()
            continue
        exact = torch.tensor([float(v) for v in exact_action(row, h)], dtype=torch.float64)
        assert (framed - exact).abs().max() <= 4 * torch.finfo(torch.float64).eps * exact.abs().max()


def test_empty_batch(emulation: ModuleType) -> None:
    """Nothing is written, though there is memory for one form."""
    tables = circle.table_tensor(3, torch.float64, torch.device("cpu"))
    p, matrix = forms(6, torch.float64)[:1], torch.eye(4, dtype=torch.float64)[None]
    solution, result = torch.full((1, 21), torch.nan, dtype=torch.float64), torch.full((1, 7), torch.nan, dtype=torch.float64)

    def none_of(tensor: Tensor) -> tuple[int, int, list[int], list[int]]:
        pointer, dtype, (_, *shape), strides = view(tensor)  # type: ignore[misc]
        return pointer, dtype, [0, *shape], strides

    emulation.max_det(none_of(p), view(tables), False, False, False, none_of(solution))
    emulation.max_det_adjoint(none_of(matrix), none_of(matrix), None, view(tables), none_of(result))
    assert solution.isnan().all() and result.isnan().all()
    emulation.max_det(view(p), view(tables), False, False, False, view(solution))
    emulation.max_det_adjoint(view(matrix), view(matrix), None, view(tables), view(result))
    assert solution.isfinite().all() and result.isfinite().all()
