"""Polynomials that are positive by construction, and their projection: against exact certificates and the definition of a projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import isotypic as iso

PositivePolynomial = iso.nn.PositivePolynomial
DOMAINS = [None, (None, None), (0, None), (None, 2), (-1, 1), (0.5, 3), "circle"]


def values(p: Tensor, domain: object, count: int = 400) -> Tensor:
    """On points of the domain, half-lines cut off."""
    if domain == "circle":
        s, k = torch.linspace(0, 2 * np.pi, count, dtype=p.dtype), torch.arange(1, p.shape[-1])
        return p[..., :1] + 2 * p[..., 1:] @ torch.cos(k[:, None] * s)
    low, high = (None, None) if domain is None else domain  # type: ignore[misc]
    t = torch.linspace(*(end if end is not None else sign * 4.0 for end, sign in ((low, -1), (high, 1))), count, dtype=p.dtype)
    return p @ t ** torch.arange(p.shape[-1])[:, None]


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
@pytest.mark.parametrize("degree", [0, 1, 2, 5, 8])
def test_positive_by_construction(degree: int, domain: object) -> None:
    if degree % 2 and domain in (None, (None, None)):
        with pytest.raises(ValueError, match=r"^PositivePolynomial: degree must be even on domain"):
            PositivePolynomial(degree, domain)
        return
    layer = PositivePolynomial(degree, domain)
    p = layer(torch.randn(30, layer.in_features, dtype=torch.float64))
    assert p.shape == (30, degree + 1)
    for row in p[:5].tolist():
        assert iso.sl2.certify(row, domain=domain).verdict == "positive"
    assert (values(layer(torch.randn(30, layer.in_features, dtype=torch.float64)), domain) > 0).all()
    assert layer(torch.randn(2, 3, layer.in_features)).dtype == torch.float32
    x = torch.randn(2, layer.in_features, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_projection(domain: object) -> None:
    """Nonnegative, itself where the argument is; and nearest: <p - q, r - q> <= 0 for every other nonnegative r, <p - q, q> = 0."""
    layer = PositivePolynomial(4, domain)
    p = torch.randn(20, 5, dtype=torch.float64)
    q = layer.project(p)
    scale = p.norm(dim=-1)
    assert (values(q, domain) > -1e-5 * (1 + values(q.abs(), domain).abs())).all()
    assert (((p - q) * q).sum(-1).abs() < 1e-4 * scale**2).all()
    others = layer(torch.randn(50, layer.in_features, dtype=torch.float64))
    assert ((p - q) @ others.T < 1e-4 * scale[:, None] * others.norm(dim=-1)).all()
    positive = layer(torch.randn(20, layer.in_features, dtype=torch.float64))
    assert ((layer.project(positive) - positive).norm(dim=-1) < 1e-5 * positive.norm(dim=-1)).all()
    assert not layer.project(torch.zeros(5)).any() and layer.project(p.float()).dtype == torch.float32


@pytest.mark.parametrize(("degree", "domain"), [(20, None), (12, (0, None)), (12, (-1, 1)), (2, (1e6, 1e6 + 1))], ids=str)
def test_projection_of_ill_conditioned_rows(degree: int, domain: object) -> None:
    """What the projection hands out is within its tolerance, where normal equations left the cone or ended far from the nearest."""
    layer = PositivePolynomial(degree, domain)
    p = torch.randn(8, degree + 1, dtype=torch.float64)
    q, size = layer.project(p), p.norm(dim=-1)
    assert (((p - q) * q).sum(-1).abs() < 1e-10 * size**2).all()
    others = layer(torch.randn(50, layer.in_features, dtype=torch.float64))
    assert ((p - q) @ others.T < 1e-5 * size[:, None] * others.norm(dim=-1)).all()
    assert ((layer.project(q) - q).norm(dim=-1) < 1e-5 * size).all()
    for scale in (2.0**-1060, 2.0**1020):
        small = PositivePolynomial(4)
        row = torch.tensor([-1.0, 0.0, 1.0, 0.0, 2.0], dtype=torch.float64)
        torch.testing.assert_close(small.project(row * scale) / scale, small.project(row), rtol=1e-3, atol=1e-3)


def test_projection_is_refused_where_it_is_out_of_reach() -> None:
    layer = PositivePolynomial(40)
    with pytest.raises(RuntimeError, match=r"^PositivePolynomial: float64 is too coarse for the projection of \d+ of 4 rows"):
        layer.project(torch.randn(4, 41, dtype=torch.float64))
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match=r"^PositivePolynomial: what is projected must be finite$"):
            layer.project(torch.full((41,), value))
    assert layer.project(torch.zeros(0, 41)).shape == (0, 41)


def test_infinite_ends() -> None:
    x = torch.randn(5, PositivePolynomial(4, (0, None)).in_features)
    for domain, same in (((0, torch.inf), (0, None)), ((-torch.inf, 2.0), (None, 2.0)), ((-torch.inf, torch.inf), (None, None))):
        layer, expected = PositivePolynomial(4, domain), PositivePolynomial(4, same)
        torch.testing.assert_close(layer(x[:, : layer.in_features]), expected(x[:, : layer.in_features]), rtol=0, atol=0)
    for wrong in ((torch.inf, None), (None, -torch.inf), (torch.nan, None), (0, torch.nan)):
        with pytest.raises(ValueError, match=r"^PositivePolynomial: domain must have low < high, got"):
            PositivePolynomial(4, wrong)
    with pytest.raises(ValueError, match=r"^PositivePolynomial: domain must be None"):
        PositivePolynomial(4, "12")


def test_reaches_any_positive_polynomial() -> None:
    """2 + t - t^2 / 2 on [-1, 1], through the gradient."""
    layer, target = PositivePolynomial(2, (-1, 1)), torch.tensor([2.0, 1.0, -0.5], dtype=torch.float64)
    x = torch.zeros(layer.in_features, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (layer(x) - target).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert (layer(x) - target).abs().max() < 1e-4


def test_conversions_and_errors() -> None:
    layer = PositivePolynomial(4, (0, 1))
    assert layer.half().table.dtype == torch.float64 and not layer.state_dict()
    assert repr(layer) == "PositivePolynomial(degree=4, domain=(0, 1), in_features=9)"
    torch.compile(layer, fullgraph=True, backend="aot_eager")(torch.randn(2, 9))
    for wrong, error, words in (
        (lambda: PositivePolynomial(-1), ValueError, "degree must be an integer between 0 and 40, got -1"),
        (lambda: PositivePolynomial(2, (1, 0)), ValueError, r"domain must have low < high, got \(1, 0\)"),
        (lambda: PositivePolynomial(2, "line"), ValueError, 'domain must be None, a pair .low, high. or "circle", got'),
        (lambda: layer(torch.ones(2, 8)), ValueError, r"input must have shape \(..., in_features = 9\), got \(2, 8\)"),
        (lambda: layer.project(torch.ones(2, 8)), ValueError, r"input must have shape \(..., degree \+ 1 = 5\), got \(2, 8\)"),
        (lambda: layer([1.0]), TypeError, "input must be a torch.Tensor, got list"),
        (lambda: layer(torch.ones(9).half()), TypeError, "input must have dtype float32 or float64"),
    ):
        with pytest.raises(error, match=f"^PositivePolynomial: {words}"):
            wrong()
