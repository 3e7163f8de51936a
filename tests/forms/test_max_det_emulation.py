"""The CUDA kernels of max_det on the host emulation, beside the CPU kernels: the same arithmetic by threads and by warps."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from emulate import build, view
from torch import Tensor

import isotypic as iso
from isotypic.ops.forms import circle
from isotypic.ops.forms.max_det import max_det, max_det_adjoint, max_det_solve, split


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
