"""Spectral factors: against products of known zeros, and what every operator guarantees."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import isotypic as iso
from isotypic._extension import kernels
from isotypic.ops.forms import wilson
from isotypic.ops.forms.spectral_factor import solve, wilson_matrix

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
    torch.library.opcheck(torch.ops.isotypic.spectral_factor.default, (r, 2e-16))
    mapped = torch.func.vmap(torch.func.jacrev(factor))(r.detach())
    whole = torch.func.jacrev(factor)(r.detach())
    torch.testing.assert_close(mapped, torch.stack([whole[i, :, i] for i in range(3)]))
    torch.testing.assert_close(torch.compile(factor, fullgraph=True)(r), factor(r))


@pytest.mark.parametrize("n", [1, 3, 8, 31])
def test_solves_the_linear_equations_and_their_transposes(n: int) -> None:
    h, b = factor(autocorrelation(torch.randn(11, n + 1, dtype=torch.float64))), torch.randn(11, n + 1, dtype=torch.float64)
    matrix = wilson_matrix(h)
    for transposed, dense in ((False, matrix), (True, matrix.mT)):
        x = solve(h, b, transposed)
        assert ((dense @ x[..., None])[..., 0] - b).norm(dim=-1).max() < 1e-9
    assert not solve(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), False).any()


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives_of_the_solution(transposed: bool) -> None:
    h = torch.stack([minimum_phase([0.5, 0.9], [0.3, 1.0]), minimum_phase([0.2, 0.4], [2.0, 1.0])]).requires_grad_()
    b = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda h, b: solve(h, b, transposed), (h, b), check_forward_ad=True)
    assert gradgradcheck(lambda h, b: solve(h, b, transposed), (h, b))
    torch.library.opcheck(torch.ops.isotypic.spectral_solve.default, (h, b, transposed))


def test_the_steps_in_torch_agree() -> None:
    """What tensors on other devices take."""
    r = autocorrelation(minimum_phase([0.5, 0.9, 0.2, 0.97], [0.3, 1.0, 2.5, 0.1]))[None]
    unit = r / r[:, :1]
    response = 2 * torch.fft.rfft(unit, 256).real - unit[:, :1]
    h, error = wilson.factor(unit, response)
    assert float(error) < 1e-14
    torch.testing.assert_close(h * r[:, :1].sqrt(), factor(r), rtol=0, atol=1e-9)


@pytest.mark.parametrize("isa", iso.info()["cpu_isas"])
def test_instruction_sets(isa: str) -> None:
    extension, r = kernels("test"), autocorrelation(torch.randn(9, 12, dtype=torch.float64))
    before = extension.cpu_isa()
    try:
        extension.set_cpu_isa(isa)
        h = factor(r)
        assert (autocorrelation(h) - r).abs().max() < 1e-12 * r.max()
        assert torch.equal(h[4], factor(r[4]))  # whatever else is in the batch
    finally:
        extension.set_cpu_isa(before)


def test_next_to_the_boundary_against_mpmath() -> None:
    """A response with min / max = 1e-8: zeros at 1 - 1e-4 of the circle and others; h and its gradient from the zeros in 60 digits."""
    h0 = minimum_phase([1 - 1e-4, 0.6], [1.1, 2.3])
    r = autocorrelation(h0).requires_grad_()
    response = (2 * torch.fft.rfft(r.detach(), 4096).real - r[0]).abs()
    assert float(response.min() / response.max()) < 1e-7
    cotangent, direction = torch.tensor([0.3, -1.0, 0.7, 0.2, 1.1]).double(), torch.tensor([1.0, 0.4, -0.3, 0.8, -0.5]).double()
    h = factor(r)
    (gradient,) = torch.autograd.grad(h @ cotangent, r)

    def exact(r: list) -> list:
        zeros = mpmath.polyroots([*reversed(r[1:]), *r], maxsteps=500, extraprec=400)
        taps = [mpmath.mpf(1)]
        for zero in zeros:
            if abs(zero) < 1:
                taps = [a - zero * b for a, b in zip([*taps, 0], [0, *taps], strict=True)]
        taps = [mpmath.re(t) for t in taps]
        return [t * mpmath.sqrt(r[0] / sum(t * t for t in taps)) for t in taps]

    with mpmath.workdps(60):
        base, step = [mpmath.mpf(v) for v in r.tolist()], mpmath.mpf(10) ** -24
        expected = exact(base)
        ends = [exact([a + sign * step * b for a, b in zip(base, direction.tolist(), strict=True)]) for sign in (1, -1)]
        slope = sum((a - b) * c for a, b, c in zip(*ends, cotangent.tolist(), strict=True)) / (2 * step)
        off = max(abs(a - b) for a, b in zip(expected, h.tolist(), strict=True))
    assert float(off) < 1e-10  # epsilon times the condition, 1e4 for each of two zeros, with some room
    assert abs(float(gradient @ direction) / float(slope) - 1) < 2e-6


def with_zeros(zeros: list[float], others: int, seed: int) -> torch.Tensor:
    """An autocorrelation whose R has double zeros at these places of the circle, r_0 = 1."""
    h = np.random.default_rng(seed).standard_normal(others + 1)
    for zero in zeros:
        h = np.convolve(h, [1, -2 * np.cos(zero), 1])
    r = autocorrelation(torch.from_numpy(h))
    return r / r[0]


@pytest.mark.parametrize("others", [0, 3, 12, 60])
@pytest.mark.parametrize("dip", [1e-3, 1e-6, 1e-7, 1e-9, 1e-11])
def test_dips_below_zero_are_refused(others: int, dip: float) -> None:
    for seed, zeros in enumerate(([0.7], [1.2345], [2.9], [0.4, 1.9])):
        r = with_zeros(zeros, others, seed)
        if len(zeros) == 1:
            assert (autocorrelation(factor(r)) - r).abs().max() < 1e-6
        r[0] -= dip
        with pytest.raises(ValueError, match=r"nonnegative on the circle, .* in 1 of 1 rows"):
            factor(r)


def test_zeros_of_high_order_are_not_called_negative() -> None:
    r = with_zeros([1.0, 1.0, 1.0], 2, 0)
    assert (autocorrelation(factor(r)) - r).abs().max() < 1e-6
    r[0] += 1e-5
    assert (autocorrelation(factor(r)) - r).abs().max() < 1e-9


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_zeros_of_the_response_and_dips_below(dtype: torch.dtype, n: int) -> None:
    """Rounding takes R below zero next to its zeros: such rows have factors, and what dips by more is refused."""
    generator = np.random.default_rng(n)
    eps = torch.finfo(dtype).eps
    points = np.exp(-2j * np.pi * np.arange(2 * n + 2) / (2 * n + 2))
    for trial in range(12):
        taps = np.ones_like(points)
        for k in range(n // 2):
            angle = generator.uniform(0.002, 0.02) if trial == 0 and k == 0 else generator.uniform(0, np.pi)  # nearly a fourfold zero
            radius = 1.0 if k == 0 or generator.random() < 0.3 else generator.uniform(0, 0.95)
            taps = taps * (1 - 2 * radius * np.cos(angle) * points + (radius * points) ** 2)
        exact = autocorrelation(torch.from_numpy(np.real(np.fft.ifft(taps))[: n + 1]))
        r = (exact / exact[0]).to(dtype)
        allowed = max(16 * (n + 1) * 2.0**-52, eps) * float(r.abs().sum())
        h = factor(r)
        assert (autocorrelation(h.double()) - r.double()).abs().max() < 1.1 * allowed + 2e-7
        dip = r.double()
        dip[0] -= 4 * allowed
        with pytest.raises(ValueError, match="nonnegative on the circle"):
            factor(dip.to(dtype))
