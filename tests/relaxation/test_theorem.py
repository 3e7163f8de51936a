"""Every compact linear operator is a limit of relaxed equivariant networks with 2 n fixed inputs: on a circle of 96 points.

E(u, t) = sum_i t_i <t_{n + i}, u> is equivariant in u and t together. With the singular functions of T as its fixed inputs it is the best
operator of rank n, so that its relative error is the tail of the singular values.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic.relaxation.state import Motion
from isotypic.testing import Action, assert_jointly_equivariant

POINTS = 96


class Bilinear(nn.Module):
    """sum_i t_i <t_{n + i}, u> over the fixed inputs that come in at `place`; zero without them."""

    def __init__(self, terms: int) -> None:
        super().__init__()
        self.terms, self.place = terms, nn.Identity()

    def forward(self, u: Tensor) -> Tensor:
        fixed = self.place(u.new_zeros(1, POINTS, 2 * self.terms))
        left, right = fixed.split(self.terms, -1)
        return torch.einsum("bxn,byn,by->bx", left.expand(len(u), -1, -1), right.expand(len(u), -1, -1), u)


class Table(iso.FixedInput):
    """A fixed input that is known at every point of the circle."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(1, values.shape[1])
        self.values = nn.Parameter(values)

    def forward(self, x: Tensor | None = None) -> Tensor:
        assert x is not None
        return self.values[x[..., 0].round().long() % POINTS]


def operator() -> Tensor:
    """A smoothing operator (1 - d^2/dx^2)^-1 with a coefficient that depends on the place on both sides: compact, not equivariant."""
    x = 2 * torch.pi * torch.arange(POINTS, dtype=torch.float64) / POINTS
    frequency = torch.fft.fftfreq(POINTS, 1 / POINTS, dtype=torch.float64)
    smoothing = torch.fft.ifft(torch.fft.fft(torch.eye(POINTS, dtype=torch.float64), dim=0) / (1 + frequency.square())[:, None], dim=0).real
    return smoothing @ torch.diag(1 + 0.9 * torch.sin(x) + 0.5 * torch.cos(3 * x)) @ smoothing


def relaxed(t: Tensor, terms: int) -> nn.Module:
    left, values, right = torch.linalg.svd(t)
    root = values[:terms].sqrt()
    table = torch.cat([left[:, :terms] * root, right[:terms].T * root], 1)
    places = torch.arange(POINTS, dtype=torch.float64)[:, None]
    return iso.relax(Bilinear(terms), {"place": (Table(table), lambda u: places)}, p=0.0).double()


def test_the_error_is_the_tail_of_the_singular_values() -> None:
    t = operator()
    u = torch.eye(POINTS, dtype=torch.float64)
    values = torch.linalg.svdvals(t)
    errors = []
    for terms in (1, 2, 4, 8, 16, 32):
        error = ((relaxed(t, terms)(u).T - t).norm() / t.norm()).item()
        assert error == pytest.approx(float(values[terms:].norm() / values.norm()), rel=1e-9)
        errors.append(error)
    # At least as fast as an operator with singular values of k^-3.
    for error, bound in zip(errors, (6e-1, 3e-1, 1e-1, 1e-2, 1e-3, 1e-4), strict=True):
        assert error < bound
    assert errors == sorted(errors, reverse=True)


# Relative errors of rank n = 1, 2, 4, 8, 16, 32 that were measured once on a discretised circle: singular values of about n^-3.
FIGURES = {1: 1.7e-1, 2: 5.3e-2, 4: 1.6e-2, 8: 2.9e-3, 16: 5.3e-4, 32: 6.8e-5}


def test_an_operator_with_these_errors() -> None:
    """Nothing but the singular values counts: with random singular vectors, and tails through the figures, the errors are the figures."""
    places, logs = torch.tensor([0.0, *(float(n) for n in FIGURES), POINTS]), torch.tensor([1.0, *FIGURES.values(), 1e-9]).log()
    n = torch.arange(POINTS + 1, dtype=torch.float64)
    right = torch.searchsorted(places, n, right=True).clamp(1, len(places) - 1)
    left = right - 1
    part = (n - places[left]) / (places[right] - places[left])
    tails = ((1 - part) * logs[left].double() + part * logs[right].double()).exp()
    tails[-1] = 0
    values = (tails[:-1].square() - tails[1:].square()).sqrt().sort(descending=True).values
    assert values.norm().item() == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(POINTS, POINTS, dtype=torch.float64, generator=generator)).Q for _ in range(2))
    t = u @ torch.diag(values) @ v.T
    for terms, figure in FIGURES.items():
        error = ((relaxed(t, terms)(torch.eye(POINTS, dtype=torch.float64)).T - t).norm() / t.norm()).item()
        assert error == pytest.approx(figure, rel=1e-2)


@pytest.mark.parametrize("terms", [1, 8])
def test_joint_equivariance_on_the_circle(terms: int) -> None:
    model = relaxed(operator(), terms)
    u = torch.randn(3, POINTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotations = [
        Action(
            f"rotation by {k}",
            lambda data, k=k: (data[0].roll(k, -1),),  # type: ignore[misc]
            lambda y, k=k: y.roll(k, -1),  # type: ignore[misc]
            Motion(lambda x, k=k: x - k, lambda representation, values: values),  # type: ignore[misc]
        )
        for k in (1, 17, 95)
    ]
    assert_jointly_equivariant(model, u, rotations)
    with model.equivariant():
        assert model(u).abs().max() == 0
    assert iso.testing.equivariance_gap(model, u, rotations) > 0.1
