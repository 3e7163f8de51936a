"""Spectral factors: against products of known zeros, and what every operator guarantees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import isotypic as iso

factor = iso.ops.spectral_factor


def autocorrelation(h: Tensor) -> Tensor:
    n = h.shape[-1]
    return torch.stack([(h[..., : n - k] * h[..., k:]).sum(-1) for k in range(n)], -1)


def minimum_phase(radii: list[float], angles: list[float]) -> Tensor:
    """The polynomial with conjugate pairs of zeros there, first coefficient 1."""
    zeros = [r * np.exp(1j * s * a) for r, a in zip(radii, angles, strict=True) for s in (1, -1)]
    return torch.from_numpy(np.real(np.poly(zeros)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_known_factors(dtype: torch.dtype) -> None:
    h = torch.stack([minimum_phase([0.5, 0.9, 0.2], [0.3, 1.0, 2.5]), minimum_phase([0.95, 0.1, 0.7], [3.0, 0.1, 1.5]) * 7])
    found = factor(autocorrelation(h).to(dtype))
    assert found.dtype == dtype
    # The condition is that of R, whose largest and smallest values are 1e5 apart.
    torch.testing.assert_close(found.double(), h, rtol=0, atol=1e5 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 33, 128])
def test_residual_and_phase(n: int) -> None:
    r = autocorrelation(torch.randn(20, n + 1, dtype=torch.float64))  # zeros on both sides of the circle, some close to it
    h = factor(r)
    assert ((autocorrelation(h) - r).abs().amax(-1) < 1e-13 * r[:, 0]).all() and (h[:, 0] > 0).all()
    if 0 < n < 40:  # the companion matrix of more is too far from its zeros
        assert all(np.abs(np.roots(row)).max() < 1 + 1e-9 for row in h.numpy())


def test_zeros_on_the_circle() -> None:
    torch.testing.assert_close(factor(torch.tensor([2.0, 1.0]).double()), torch.ones(2).double(), rtol=0, atol=1e-5)
    # A double zero of the factor at 1, a fourfold one of R.
    torch.testing.assert_close(factor(torch.tensor([6.0, -4.0, 1.0]).double()), torch.tensor([1.0, -2, 1]).double(), rtol=0, atol=1e-3)


def test_scales_and_zero_rows() -> None:
    r = torch.tensor([5.0, 2.0]).double()
    for scale in (1e-200, 1e-30, 1e30, 1e200):
        torch.testing.assert_close(factor(r * scale) / scale**0.5, factor(r), rtol=1e-14, atol=0)
    assert torch.equal(factor(torch.zeros(2, 3)), torch.zeros(2, 3)) and factor(torch.zeros(0, 3)).shape == (0, 3)
    h = factor(torch.stack([r, torch.zeros(2).double(), 4 * r]))
    torch.testing.assert_close(h, torch.tensor([[2.0, 1.0], [0, 0], [4, 2]]).double())
    assert factor(torch.tensor([4.0])).item() == 2


def test_derivatives_of_every_kind() -> None:
    r = (autocorrelation(torch.randn(3, 5, dtype=torch.float64)) + torch.eye(5, dtype=torch.float64)[0] / 2).requires_grad_()
    assert gradcheck(factor, (r,), check_forward_ad=True) and gradgradcheck(factor, (r,))
    torch.library.opcheck(torch.ops.isotypic.spectral_factor.default, (r,))
    mapped = torch.func.vmap(torch.func.jacrev(factor))(r.detach())
    whole = torch.func.jacrev(factor)(r.detach())
    torch.testing.assert_close(mapped, torch.stack([whole[i, :, i] for i in range(3)]))
    torch.testing.assert_close(torch.compile(factor, fullgraph=True)(r), factor(r))


def test_what_has_no_factor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"r must be nonnegative on the circle, .* in 2 of 3 rows \(1, 2\)"):
        factor(torch.tensor([[5.0, 2.0], [1.0, 0.6], [-1.0, 0.0]]))
    for wrong, error, words in (
        (torch.tensor([1.0, float("nan")]), ValueError, "finite"),
        (torch.tensor(1.0), ValueError, r"must have shape \(\.\.\., n \+ 1\)"),
        (torch.zeros(2, 0), ValueError, r"must have shape"),
        (torch.tensor([1, 0]), TypeError, "r must have a dtype"),
        (torch.tensor([1.0]).half(), TypeError, "float32 or float64"),
        ([5.0, 2.0], TypeError, "r must be a torch.Tensor"),
    ):
        with pytest.raises(error, match=words):
            factor(wrong)
