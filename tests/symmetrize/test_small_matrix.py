"""Frames, eigenvectors and polar factors at every scale that the numbers of a type have, in every instruction set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import isotypic as iso
from isotypic import _C

# Powers of two from subnormal numbers to where sums of the matrices' entries overflow, on both sides of where the kernels rescale.
SCALES = {
    torch.float32: (-146, -126, -110, -61, -59, 0, 59, 61, 100, 124),
    torch.float64: (-1060, -1022, -990, -481, -479, 0, 479, 481, 1020),
}


@pytest.fixture(params=_C.cpu_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _C.cpu_isa()
    _C.set_cpu_isa(request.param)
    yield
    _C.set_cpu_isa(before)


def matrices(d: int) -> Tensor:
    """Of few digits, so that they are exact at every scale: generic ones, and zeros, multiples of the identity and rank one at the end."""
    generic = torch.randint(-8, 9, (37, d, d)).double() / 8 + 2 * torch.eye(d, dtype=torch.float64)
    special = torch.stack([torch.zeros(d, d), torch.eye(d), torch.ones(d, d), torch.diag(torch.arange(d))])
    return torch.cat([generic, special.double()])


def results(a: Tensor) -> dict[str, tuple[Tensor, int, Tensor]]:
    """name -> (result, its degree in the matrix, whether it is flagged)."""
    frame, eigen, polar = iso.ops.orthonormal_frame(a, True), iso.ops.symmetric_eigen(a), iso.ops.polar(a)
    return {
        "frame": (frame.frame, 0, frame.degenerate),
        "values": (eigen.values, 1, eigen.degenerate),
        "vectors": (eigen.vectors, 0, eigen.degenerate),
        "rotation": (polar.rotation, 0, polar.degenerate),
        "stretch": (polar.stretch, 1, polar.degenerate),
    }


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", SCALES, ids=str)
@pytest.mark.parametrize("d", [2, 3, 4])
def test_powers_of_two_scale_everything(d: int, dtype: torch.dtype) -> None:
    """f(c a) = c^degree f(a) and its gradient is c^(degree - 1) that at a, for c a power of two: exactly, up to the rounding of results
    that are subnormal, and infinite where they are too large."""
    at_one = matrices(d).to(dtype).requires_grad_()
    weight = torch.randn(len(at_one), d, d, dtype=dtype)
    smallest, eps = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).eps

    def gradient(result: Tensor, x: Tensor) -> Tensor:
        cotangent = weight[..., 0] if result.dim() == 2 else weight
        return torch.autograd.grad(result, x, cotangent, retain_graph=True)[0]

    def scaled(x: Tensor, exponent: int) -> Tensor:
        half = exponent // 2  # two steps, because 2^exponent itself may not be a number
        return x * 2.0**half * 2.0 ** (exponent - half)

    def close(found: Tensor, expected: Tensor) -> bool:
        # As large as the matrices' largest entry, because the small ones are differences.
        size = torch.where(expected.isfinite(), expected, 0).abs().flatten(1).amax(1).view(-1, *(1,) * (expected.dim() - 1))
        near = (found - expected).abs() <= 64 * eps * size + 4 * smallest * eps
        return bool((near | (found == expected)).all())

    expected = results(at_one)
    for exponent in SCALES[dtype]:
        a = scaled(at_one.detach(), exponent).requires_grad_()
        for name, (result, degree, degenerate) in results(a).items():
            value, _, flag = expected[name]
            assert close(result, scaled(value, degree * exponent)), (name, exponent)
            found, wanted = gradient(result, a), scaled(gradient(value, at_one), (degree - 1) * exponent)
            assert not found.isnan().any(), (name, exponent)
            # Below, values and stretch are short of digits, and gradients and flags are functions of them.
            if 2.0**exponent >= smallest / eps**0.5:
                assert torch.equal(degenerate, flag) and close(found, wanted), (name, exponent)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_reach_as_far(dtype: torch.dtype) -> None:
    """Where 1 / |column| is too large for 16 bits, nothing is NaN."""
    for scale in (torch.finfo(dtype).smallest_normal / 4, torch.finfo(dtype).max / 8):
        a = (scale * matrices(3)).to(dtype).requires_grad_()
        for name, (result, _, _) in results(a).items():
            (gradient,) = torch.autograd.grad(result.sum(), a, retain_graph=True)
            assert result.isfinite().all() and not gradient.isnan().any(), (name, scale)


def test_the_symmetric_part_of_a_large_matrix() -> None:
    """Its numbers may be far smaller than those of the matrix, and are found all the same."""
    turn = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]])
    values = torch.tensor([1.0, 2.0, 4.0])
    for large, small in ((2.0**127 / 4, 2.0**-20), (1.0, 2.0**-130), (2.0**-100, 2.0**-140)):
        found = iso.ops.symmetric_eigen(large * turn + torch.diag(small * values))
        assert torch.equal(found.values, small * values), (large, small)
