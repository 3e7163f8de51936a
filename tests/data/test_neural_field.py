"""Rendering and fitting of many networks at once, against one network at a time in plain torch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from isotypic import data
from isotypic.data import NeuralField, fit_fields
from isotypic.data.fitting import _gradient

ACTIVATIONS = {"sine": torch.sin, "tanh": torch.tanh, "relu": torch.relu}


def one_by_one(field: NeuralField, network: Tensor, points: Tensor) -> Tensor:
    """The formula, for one network and from its entries."""
    widths, start, state = field.spec.widths, 0, points
    for layer, (columns, rows) in enumerate(itertools.pairwise(widths)):
        weight = network[start : start + rows * columns].reshape(rows, columns)
        bias = network[start + rows * columns : start + rows * (columns + 1)]
        start += rows * (columns + 1)
        state = state @ weight.T + bias
        if layer < len(widths) - 2:
            state = ACTIVATIONS[field.activation](field.frequency * state)
    return state + field.offset


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(2, 3), (1, 4, 2), (2, 5, 6, 3), (3, 1, 4, 2, 1)])
def test_rendering(activation: str, widths: tuple[int, ...]) -> None:
    field = NeuralField(widths, activation)
    networks, points = field.initial(3, torch.Generator().manual_seed(0)).double(), torch.rand(7, widths[0], dtype=torch.float64)
    expected = torch.stack([one_by_one(field, network, points) for network in networks])
    torch.testing.assert_close(field.render(networks, points), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(field.render(networks, points.expand(3, -1, -1)), expected, rtol=0, atol=1e-12)
    assert field.render(networks[:0], points).shape == (0, 7, widths[-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_that_of_autograd(activation: str) -> None:
    field = NeuralField([2, 5, 6, 3], activation)
    networks = field.initial(4, torch.Generator().manual_seed(1)).double().requires_grad_()
    points, targets = torch.rand(9, 2, dtype=torch.float64), torch.rand(4, 9, 3, dtype=torch.float64)
    losses = (field.render(networks, points) - targets).square().mean((1, 2))
    (expected,) = torch.autograd.grad(losses.sum(), networks)
    gradient = torch.empty_like(networks.detach())
    totals = _gradient(field, networks.detach(), gradient, points.T, targets.mT)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(totals, losses.detach() * 27, rtol=1e-11, atol=0)


def test_fitting_is_adam_on_each_network_alone() -> None:
    field = NeuralField([1, 6, 1], "tanh")
    points, targets = torch.linspace(-1, 1, 11).unsqueeze(1), torch.rand(3, 11, 1)
    initial = field.initial(3, torch.Generator().manual_seed(2))
    fitted = fit_fields(field, targets, points, steps=25, learning_rate=1e-2, initial=initial, chunk=2)
    for network, target, found in zip(initial, targets, fitted.networks, strict=True):
        parameter = nn.Parameter(network.clone())
        adam = torch.optim.Adam([parameter], 1e-2)
        for _ in range(25):
            adam.zero_grad()
            (one_by_one(field, parameter, points) - target).square().mean().backward()
            adam.step()
        # 25 steps of Adam, whose quotient m / sqrt(v) carries roundings of the gradient on.
        torch.testing.assert_close(found, parameter.detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fitted.psnr, data.psnr(field.render(fitted.networks, points), targets))
    assert fitted.steps.tolist() == [25] * 3


def test_sirens_fit_images_and_chunks_do_not_matter() -> None:
    field, grid = NeuralField([2, 16, 16, 1]), data.image_grid(8, 8)
    images = (6 * grid[:, 0] + torch.arange(5)[:, None]).sin()[..., None] / 2 + 0.5
    options = {"steps": 200, "learning_rate": 3e-3, "schedule": "cosine", "point_batches": 2}
    finished: list[int] = []
    fitted = fit_fields(field, images, grid, chunk=2, progress=finished.append, **options)
    assert fitted.psnr.min() > 30 and sum(finished) == 5
    whole = fit_fields(field, images, grid, **options)
    assert (whole.psnr - fitted.psnr).abs().max() < 3, "roundings grow over 200 steps, the quality stays"
    none = fit_fields(field, images[:0], grid)
    assert none.networks.shape == (0, 337)


def test_a_goal_ends_the_fit_of_each_network_alone() -> None:
    field, grid = NeuralField([2, 16, 16, 1]), data.image_grid(6, 6)
    flat, busy = torch.full((1, 36, 1), 0.5), torch.rand(1, 36, 1, generator=torch.Generator().manual_seed(0))
    fitted = fit_fields(field, torch.cat([flat, busy]), grid, steps=400, psnr_goal=25.0)
    assert (fitted.psnr >= 25).all()
    assert fitted.steps[0] < fitted.steps[1] < 400


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    fit_fields(NeuralField([1, 2, 1]), torch.rand(2, 3, 1), torch.rand(3, 1), steps=1, progress=True)
    assert "fitting networks" in capsys.readouterr().out


def test_psnr() -> None:
    assert data.psnr(torch.zeros(2, 3), torch.tensor([[0.1] * 3, [1.0] * 3])).tolist() == pytest.approx([20, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: NeuralField([2]), "widths"),
        (lambda: NeuralField([2, 3], "cosine"), "activation must be one of sine, tanh, relu, got 'cosine'"),
        (lambda: NeuralField([2, 3], frequency=0.0), "frequency must be positive, got 0.0"),
        (lambda: NeuralField([2, 3]).render(torch.zeros(1, 8), torch.zeros(1, 2)), r"networks must have shape \(N, P=9\)"),
        (lambda: NeuralField([2, 3]).render(torch.zeros(1, 9), torch.zeros(4, 3)), r"coordinates must have shape \(Q, d_0=2\)"),
        (lambda: fit_fields(NeuralField([2, 1]), torch.zeros(1, 4, 1), torch.zeros(4)), r"coordinates must have shape \(Q >= 1, d_0=2\)"),
        (lambda: fit_fields(NeuralField([2, 1]), torch.zeros(1, 3, 1), torch.zeros(4, 2)), r"targets must have shape \(N, Q=4, d_M=1\)"),
        (lambda: fit_fields(NeuralField([2, 1]), torch.full((1, 4, 1), math.nan), torch.zeros(4, 2)), "targets must be finite"),
        (lambda: fit_fields(NeuralField([2, 1]), torch.zeros(1, 4, 1), torch.zeros(4, 2), schedule="step"), 'schedule must be "constant"'),
        (lambda: fit_fields(NeuralField([2, 1]), torch.zeros(1, 4, 1), torch.zeros(4, 2), point_batches=5), "point_batches from 1 to Q=4"),
        (
            lambda: fit_fields(NeuralField([2, 1]), torch.zeros(1, 4, 1), torch.zeros(4, 2), initial=torch.zeros(2, 3)),
            r"initial must have shape \(N=1, P=3\), got \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_settings_that_would_be_taken_for_others() -> None:
    field, targets, points = NeuralField([2, 1]), torch.zeros(1, 4, 1), torch.zeros(4, 2)
    for call, text in (
        (lambda: fit_fields(field, [[0.0]], points), "fit_fields: targets must be a torch.Tensor, got list"),
        (lambda: fit_fields(field, targets, [[0.0, 0.0]]), "fit_fields: coordinates must be a torch.Tensor, got list"),
        (lambda: fit_fields(field, targets.int(), points), "fit_fields: targets must be of a floating-point dtype, got torch.int32"),
        (lambda: fit_fields(field, targets, points, initial=[0.0]), "fit_fields: initial must be a torch.Tensor, got list"),
        (lambda: fit_fields(field, targets, points, steps=2.0), "fit_fields: steps must be an integer, got 2.0"),
        (lambda: fit_fields(field, targets, points, chunk=True), "fit_fields: chunk must be an integer, got True"),
    ):
        with pytest.raises(TypeError, match=f"^{text}"):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"^fit_fields: psnr_goal must be a number of dB, or infinite, got nan"):
        fit_fields(field, targets, points, psnr_goal=math.nan)
