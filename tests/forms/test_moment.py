"""The moment layer: symmetric under SL(2, R), near the largest determinant, and not bound by what holds for polynomial networks."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor

import isotypic as iso

MomentLayer = iso.nn.MomentLayer


def forms(degree: int, count: int, ridge: float = 0.3) -> Tensor:
    n = degree // 2 + 1
    a = torch.randn(count, n, n, dtype=torch.float64)
    return iso.ops.gram_to_form(a.mT @ a + ridge * torch.eye(n, dtype=torch.float64))


def action_matrix(g: Tensor, degree: int) -> Tensor:
    """Column i: (a x + b y)^i (c x + e y)^(degree - i), multiplied out by convolutions."""
    columns = []
    for i in range(degree + 1):
        column = [1.0]
        for y, x in [g[0].flip(0).tolist()] * i + [g[1].flip(0).tolist()] * (degree - i):
            column = [y * a + x * b for a, b in zip([*column, 0.0], [0.0, *column], strict=True)]
        columns.append(column)
    return torch.tensor(columns, dtype=torch.float64).T


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("degree", [0, 2, 4, 6, 10])
def test_equivariant(degree: int, steps: int) -> None:
    """Exactly, with nodes enough for the integrals of both sides."""
    p, layer = forms(degree, 4), MomentLayer(degree, steps, nodes=4000)
    g = iso.sl2.random_sl2(max_condition=2.0, dtype=torch.float64)
    small, large = action_matrix(g, degree // 2), action_matrix(g, degree)
    expected = small @ layer(p) @ small.T
    assert (layer(p @ large.T) - expected).norm() < 1e-10 * expected.norm()
    assert (layer(3 * p) - 3 * layer(p)).norm() < 1e-12 * layer(3 * p).norm()


@pytest.mark.parametrize("degree", [6, 8, 10, 12, 14])
def test_error_before_any_training(degree: int) -> None:
    p = forms(degree, 300, ridge=1e-8)
    p = p / p.norm(dim=1, keepdim=True)
    exact = iso.ops.max_det_gram(p).gram
    sizes = exact.square().sum((1, 2)) + 1
    errors = [float(((MomentLayer(degree, steps)(p) - exact).square().sum((1, 2)) / sizes).mean()) for steps in (0, 1, 2)]
    assert errors[0] < 2e-2 and errors[1] < errors[0] / 8 and errors[2] < errors[1] / 2
    for steps in (0, 1):
        gram = MomentLayer(degree, steps)(p)
        assert (iso.ops.gram_to_form(gram) - p).abs().max() < 1e-11
        assert torch.equal(gram, gram.mT)


def test_steps_lead_to_the_largest_determinant() -> None:
    p = forms(8, 5)
    assert (MomentLayer(8, 12)(p) - iso.ops.max_det_gram(p).gram).norm() < 1e-10 * p.norm()


def test_sum_of_eighth_powers_is_within_reach() -> None:
    """The part of degree 4 of the Gram of x^8 + y^8 vanishes at x^4 and y^4 for every polynomial equivariant map, but not here."""
    p = torch.zeros(9, dtype=torch.float64)
    p[0] = p[8] = 1
    for gram in (MomentLayer(8)(p), iso.ops.max_det_gram(p).gram):
        deviation = gram - iso.ops.project_gram(torch.zeros(5, 5, dtype=torch.float64), p)
        # What remains is made of degrees 4 and 0; degree 0 has no entry at (0, 2), (2, 0), (0, 1), ...
        assert deviation[0, 2].abs() > 0.1 and deviation[2, 4].abs() > 0.1


def test_not_positive() -> None:
    p = torch.tensor(
        [[1.0, 0, -3, 0, 1], [0.0] * 5, [1.0, 0, torch.nan, 0, 1], [torch.inf, 0, 0, 0, 1], [1.0, 0, 1, 0, 1]], dtype=torch.float64
    )
    p.requires_grad_()
    for steps in (0, 1):
        gram = MomentLayer(4, steps)(p)
        assert gram.isfinite().all() and not gram[:4].any() and gram[4].any()
        (gradient,) = torch.autograd.grad(gram.square().sum(), p)
        assert gradient[[0, 1, 3, 4]].isfinite().all() and not gradient[[0, 1]].any() and gradient[4].any()


def test_scales() -> None:
    p = forms(6, 3)
    for scale in (1e-100, 1e100):
        assert (MomentLayer(6, 1)(p * scale) / scale - MomentLayer(6, 1)(p)).norm() < 1e-12 * p.norm()


def test_derivatives_and_graphs() -> None:
    p = forms(4, 2).requires_grad_()
    layer = MomentLayer(4, 1)
    assert torch.autograd.gradcheck(layer, p, check_forward_ad=True) and torch.autograd.gradgradcheck(layer, p)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(p), layer(p), rtol=1e-12, atol=1e-12)
    stored = io.BytesIO()
    torch.export.save(torch.export.export(layer, (p.detach(),)), stored)
    stored.seek(0)
    torch.testing.assert_close(torch.export.load(stored).module()(p.detach()), layer(p), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(layer)(p), layer(p), rtol=1e-12, atol=1e-12)
    assert torch.equal(iso.ops.moment_gram(p, newton_steps=1), layer(p))


def test_is_a_module() -> None:
    layer, p = MomentLayer(6, newton_steps=1), forms(6, 2)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(p), layer(p)) and repr(other) == repr(layer)
    assert not layer.state_dict() and not list(layer.parameters())
    assert repr(layer) == "MomentLayer(degree=6, newton_steps=1, nodes=64)"
    single = layer.float()(p.float())
    assert single.dtype == torch.float32 and (single - MomentLayer(6, 1)(p)).norm() < 1e-3 * p.norm()
    assert layer(p[:0].float()).shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: MomentLayer(5), "MomentLayer: degree must be even and between 0 and 40, got 5"),
        (lambda: MomentLayer(42), "MomentLayer: degree must be even and between 0 and 40, got 42"),
        (lambda: MomentLayer(4, -1), "MomentLayer: newton_steps must be an integer of at least 0, got -1"),
        (lambda: MomentLayer(4, nodes=4), "MomentLayer: nodes must be an integer greater than the degree, 4, got 4"),
        (lambda: MomentLayer(4.0), "MomentLayer: degree must be even and between 0 and 40, got 4.0"),
        (lambda: MomentLayer(4)([1.0]), "MomentLayer: input must be a torch.Tensor, got list"),
        (
            lambda: iso.ops.moment_gram(torch.ones(5), nodes=20.0),
            "moment_gram: nodes must be an integer greater than the degree, 4, got 20.0",
        ),
        (lambda: MomentLayer(4)(torch.ones(3)), r"MomentLayer: input must have shape \(..., degree \+ 1 = 5\), got \(3,\)"),
        (lambda: MomentLayer(4)(torch.ones(5).half()), "MomentLayer: input must have dtype float32 or float64, got torch.float16"),
        (lambda: iso.ops.moment_gram(torch.ones(5), nodes=3), "moment_gram: nodes must be an integer greater than the degree, 4, got 3"),
    ],
)
def test_wrong_arguments(call, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match="^" + text):
        call()


def test_constants_survive_a_change_of_dtype() -> None:
    p = forms(6, 3)
    for change in (lambda layer: layer.float().double(), lambda layer: layer.half(), lambda layer: layer.to(torch.float32)):
        assert torch.equal(change(MomentLayer(6, 1))(p), MomentLayer(6, 1)(p))
