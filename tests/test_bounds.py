"""Kernels read nothing beyond their tensors: what lies around them in memory is NaN, and does not show.

Vector loads under a mask are seen by no sanitizer. What they read too much of would be multiplied into sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from contract_case import Case
from contract_cases import CASES
from torch import Tensor

_C = pytest.importorskip("isotypic._C")
GUARD = 128  # values on each side: more than any vector and any panel
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@pytest.fixture(params=_C.cpu_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _C.cpu_isa()
    _C.set_cpu_isa(request.param)
    yield
    _C.set_cpu_isa(before)


def among_nan(tensor: Tensor) -> Tensor:
    """The same values between NaN, at an address that is aligned to its own size alone."""
    buffer = torch.full((tensor.numel() + 2 * GUARD + 1,), torch.nan, dtype=tensor.dtype)
    view = buffer[GUARD + 1 : GUARD + 1 + tensor.numel()].view(tensor.shape)
    view.copy_(tensor)
    return view


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("size", [1, 17])
@pytest.mark.usefixtures("isa")
def test_nothing_beyond_the_bounds_is_read(case: Case, size: int) -> None:
    override = {name: max(size, case.at_least.get(name, 0)) for name in list(case.sizes)[:2]}
    tensors = case.inputs(override)
    for dtype in DTYPES:
        try:
            inputs = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
            plain = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
            expected = case.call(*plain)
        except (TypeError, ValueError):  # a dtype that the operator does not take
            continue
        guarded = [among_nan(t).requires_grad_() if t.is_floating_point() else t for t in inputs]
        found = case.call(*guarded)
        assert torch.equal(found, expected) and found.isfinite().all()
        cotangent = torch.linspace(-1, 1, expected.numel(), dtype=dtype).reshape(expected.shape)
        wanted = [t for t in plain if t.requires_grad]
        for one, other in zip(
            torch.autograd.grad(found, [t for t in guarded if t.requires_grad], among_nan(cotangent), allow_unused=True),
            torch.autograd.grad(expected, wanted, cotangent, allow_unused=True),
            strict=True,
        ):
            assert (one is None) == (other is None) and (one is None or torch.equal(one, other))
