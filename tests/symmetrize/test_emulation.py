"""The CUDA kernels of symmetrization on the host emulation, against the plain operators: what they compute, not how fast."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from emulate import build, view
from torch import Tensor

from isotypic.ops.symmetrize import _sinkhorn_operators, reference

COUNT = 131  # no multiple of a block's 128 threads


@pytest.fixture(scope="session")
def module() -> ModuleType:
    return build("symmetrize")


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def emulation(module: ModuleType, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    module.configure(request.param)
    yield module
    module.configure(False)


def close(result: Tensor, expected: Tensor) -> bool:
    return bool((result.double() - expected.double()).norm() <= 256 * torch.finfo(result.dtype).eps * expected.double().norm())


def empty(*tensors: Tensor) -> list[Tensor]:
    return [torch.full_like(tensor, float("nan")) for tensor in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("d", [2, 3, 4])
def test_small_matrices(emulation: ModuleType, d: int, dtype: torch.dtype) -> None:
    a = (torch.eye(d, dtype=dtype) + 0.3 * torch.randn(COUNT, d, d, dtype=dtype)).contiguous()
    values = torch.randn(COUNT, d, dtype=dtype)

    def run(operation: int, inputs: list[Tensor], *like: Tensor, proper: bool = False) -> list[Tensor]:
        outputs = empty(*like)
        emulation.small_matrix(operation, [view(t) for t in inputs], proper, [view(t) for t in outputs])
        return outputs

    wide = a.double().requires_grad_()
    weight = torch.randn_like(a)
    expected, inverse, _ = reference.orthonormal_frame(wide)
    frame, found = run(0, [a], a, a)
    assert close(frame, expected) and close(found, inverse)
    (gradient,) = torch.autograd.grad(expected, wide, weight.double())
    assert close(run(1, [weight, frame, found], a)[0], gradient)
    proper, _ = run(0, [-a], a, a, proper=True)
    assert close(torch.linalg.det(proper), torch.ones(COUNT))

    spread = torch.diag_embed(torch.arange(1.0, d + 1, dtype=dtype)) + 0.05 * (a + a.mT)
    wide = spread.double().requires_grad_()
    expected_values, expected, _ = reference.symmetric_eigen(wide)
    found_values, vectors = run(2, [spread.contiguous()], values, a)
    assert close(found_values, expected_values) and close(vectors, expected)
    (gradient,) = torch.autograd.grad([expected_values, expected], wide, [values.double(), weight.double()])
    assert close(run(3, [values, weight, found_values, vectors], a)[0], (gradient + gradient.mT) / 2)

    wide = a.double().requires_grad_()
    rotation, stretch, _ = reference.polar(wide)
    found = run(4, [a], a, a)
    assert close(found[0], rotation) and close(found[1], stretch)
    (gradient,) = torch.autograd.grad([rotation, stretch], wide, [weight.double(), 2 * weight.double()])
    assert close(run(5, [weight, 2 * weight, *found], a)[0], gradient)
    positive = (a @ a.mT).contiguous()
    assert close(run(6, [positive, weight], a)[0], reference.sylvester(positive.double(), weight.double()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sort_sinkhorn(emulation: ModuleType, dtype: torch.dtype) -> None:
    t, tau, iterations = torch.rand(37, 9, dtype=dtype).sort().values, 0.2, 5
    x, y = torch.randn(2, 37, 9, 3, dtype=dtype)
    w, lengths = torch.randn(37, dtype=dtype), torch.randint(0, 10, (37,))
    for given in (None, lengths):
        address = 0 if given is None else given.data_ptr()
        dense = _sinkhorn_operators._dense(t.double(), given, tau, iterations)
        (entropy,) = empty(w)
        emulation.sort_sinkhorn_entropy(view(t), address, tau, iterations, view(entropy))
        assert close(entropy, _sinkhorn_operators._entropy_of(dense, given))
        for arguments in ((x, y, w), (x, y, None), (None, None, w)):
            (gradient,) = empty(t)
            emulation.sort_sinkhorn_gradient(view(t), *(view(a) for a in arguments), address, tau, iterations, view(gradient))
            wide = [None if a is None else a.double() for a in arguments]
            assert close(gradient, _sinkhorn_operators._gradient_formula(t.double(), *wide, given, tau, iterations))


@pytest.mark.parametrize("d", [2, 3, 4])
def test_rotate_mean(emulation: ModuleType, d: int) -> None:
    r, y, x = torch.randn(2, 3, d, d), torch.randn(2, 3, 45, d), torch.randn(2, 45, d)
    (found,) = empty(x)
    emulation.rotate_sum(view(r), view(y), 0.5, view(found))
    assert close(found, 0.5 * torch.einsum("bkij,bknj->bni", r.double(), y.double()))
    (found,) = empty(y)
    emulation.rotate_each(view(r), view(x), 0.5, view(found))
    assert close(found, 0.5 * torch.einsum("bkij,bni->bknj", r.double(), x.double()))
    (found,) = empty(r)
    emulation.rotate_outer(view(x), view(y), 0.5, view(found))
    assert close(found, 0.5 * torch.einsum("bni,bknj->bkij", x.double(), y.double()))
    sums, turned = empty(r, y)
    emulation.rotate_both(view(x), view(r), view(y), 0.5, view(sums), view(turned))
    assert torch.equal(sums, found) and close(turned, 0.5 * torch.einsum("bkij,bni->bknj", r.double(), x.double()))


@pytest.mark.parametrize("bytes_", [2, 4, 12])
@pytest.mark.parametrize("inverse", [False, True])
def test_permute(emulation: ModuleType, bytes_: int, inverse: bool) -> None:
    order = torch.stack([torch.randperm(19) for _ in range(2)])
    for axes, plain in ((1, reference.permute_nodes), (2, reference.permute_adjacency)):
        x = torch.randint(0, 255, (2, *(19,) * axes, bytes_), dtype=torch.uint8)
        y = torch.zeros_like(x)
        emulation.permute(x.data_ptr(), order.data_ptr(), inverse, axes, y.data_ptr(), 2, 19, bytes_)
        assert torch.equal(y, plain(x, order, inverse))
