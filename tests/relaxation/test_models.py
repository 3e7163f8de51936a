"""Relaxed neural processes and geometric algebra transformers: strict without fixed inputs, jointly equivariant with them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic import pga
from isotypic.relaxation.state import Motion
from isotypic.testing import Action, assert_jointly_equivariant, equivariance_gap, random_versor


def perturb(module: nn.Module, scale: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter), alpha=scale)
    return module


PROCESSES: dict[str, Any] = {
    "ConvCNP": lambda: iso.models.ConvCNP(2, 1, 6, points_per_unit=4, num_blocks=2),
    "ConvCNP, U-Net": lambda: iso.models.ConvCNP(2, 1, 6, points_per_unit=4, num_blocks=2, architecture="unet"),
    "EquivCNP": lambda: iso.models.EquivCNP(2, 1, 4, points_per_unit=4, num_blocks=1, kernel_size=3, group="p4m"),
    "TETNP": lambda: iso.models.TETNP(2, 1, 8, heads=2, num_blocks=2, width=8),
    "PTTETNP": lambda: iso.models.PTTETNP(2, 1, 8, heads=2, num_blocks=2, num_latents=3, width=8),
    "RCNP": lambda: iso.models.RCNP(2, 1, 8, heads=2, num_blocks=2, width=8),
}
every_process = pytest.mark.parametrize("name", PROCESSES)


def strict(name: str) -> Any:
    torch.manual_seed(0)
    return PROCESSES[name]().double()


def relaxed(name: str, **options: Any) -> Any:
    """Fixed inputs at every site that the model names."""
    model = strict(name)
    at = {site: iso.FixedInput(2, channels, representation) for site, (_, channels, representation) in model.relax_sites.items()}
    return iso.relax(model, at, **{"domain": iso.Box([-2.0, -2.0], [2.0, 2.0]), "p": 0.0, **options})


def tasks(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return (
        2 * torch.rand(count, 9, 2, generator=g, dtype=torch.float64) - 1,
        torch.randn(count, 9, 1, generator=g, dtype=torch.float64),
        2 * torch.rand(count, 5, 2, generator=g, dtype=torch.float64) - 1,
    )


@every_process
def test_processes(name: str) -> None:
    data = tasks()
    model = relaxed(name)
    expected = strict(name).predict(*data)
    assert all(torch.equal(a, b) for a, b in zip(model.predict(*data), expected, strict=True)), "strict at the start"
    perturb(model.relaxation)
    with model.equivariant():
        assert all(torch.equal(a, b) for a, b in zip(model.predict(*data), expected, strict=True))
    assert not torch.allclose(model.predict(*data)[0], expected[0])
    assert_jointly_equivariant(model, data, "translation")
    assert equivariance_gap(model, data, "translation") > 1e-3
    far = (data[0] + 100, data[1], data[2] + 100)
    with model.equivariant():
        outside = model.predict(*far)
    assert all(torch.equal(a, b) for a, b in zip(model.predict(*far), outside, strict=True)), "strict outside the domain"


def test_equivcnp_under_its_group() -> None:
    data = tasks()
    model = perturb(relaxed("EquivCNP"), 0.1)
    with model.equivariant():
        strict_gap = equivariance_gap(model, data, "p4m")
    assert strict_gap < 1e-9 < 1e-3 < equivariance_gap(model, data, "p4m")
    assert_jointly_equivariant(model, data, "p4m")


@every_process
def test_samples_and_ragged_sets(name: str) -> None:
    xc, yc, xt = tasks()
    model = perturb(relaxed(name), 0.2)
    mean, _ = model.predict([x[: 4 + i] for i, x in enumerate(xc)], [y[: 4 + i] for i, y in enumerate(yc)], [x[:3] for x in xt])
    torch.testing.assert_close(mean[0], model.predict(xc[:1, :4], yc[:1, :4], xt[:1, :3])[0][0], rtol=1e-6, atol=1e-8)
    assert model.sample(xc, yc, xt[:, :2], 2, autoregressive=True).shape == (2, 3, 2, 1)
    assert model.loglik(xc, yc, xt, torch.zeros(3, 5, 1, dtype=torch.float64)).shape == (3,)


@pytest.mark.parametrize("name", ["ConvCNP", "TETNP"])
def test_copies_of_processes(name: str) -> None:
    data = tasks()
    model = perturb(relaxed(name, p=0.5), 0.2).eval()
    expected = model(*data)[0]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(*data)[0], expected)
        with other.equivariant():
            assert not torch.equal(other(*data)[0], expected)
    assert torch.equal(model(*data)[0], expected)


def test_tetnp_compiles() -> None:
    torch._dynamo.reset()
    data = tasks()
    model = perturb(relaxed("TETNP"), 0.2)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(*data)[0], model(*data)[0])
    with model.equivariant():
        torch.testing.assert_close(compiled(*data)[0], model(*data)[0])


def positions(mv: Tensor, s: Tensor | None = None) -> Tensor:
    return pga.extract_point(mv[..., 0, :])


@pytest.mark.parametrize("dim_x", [3, 0])
def test_gatr(dim_x: int) -> None:
    """Multivectors that depend on the place, and constant ones, which break the pose; under E(3) with mirrors."""
    torch.manual_seed(0)
    model = iso.models.GATr(1, 1, 4, 1, 1, 4, num_blocks=2, num_heads=2).double()
    points, scalars = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 6, 1, dtype=torch.float64)
    data = (pga.embed_point(points).unsqueeze(-2), scalars)
    expected = model(*data)
    site = iso.Site(positions, 4, "multivector", output=0)
    model = iso.relax(model, {"linear_in": (iso.FixedInput(dim_x, 4, "multivector"), site)}, p=0.0)
    assert all(torch.equal(a, b) for a, b in zip(model(*data), expected, strict=True))
    perturb(model.relaxation)
    versors = random_versor(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    actions = []
    for versor in versors:
        # Points move by g; g^-1 is the versor's reverse up to a sign, whose action on points is found from three of them and the origin.
        frame = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
        image = pga.extract_point(pga.sandwich(versor.expand(4, 16), pga.embed_point(frame)))
        offset, matrix = image[0], (image[1:] - image[0]).T

        def move(mv: Tensor, versor: Tensor = versor) -> Tensor:
            return pga.sandwich(versor.expand_as(mv), mv)

        def pull(x: Tensor, offset: Tensor = offset, matrix: Tensor = matrix) -> Tensor:
            return (x - offset) @ matrix  # the inverse of an orthogonal matrix is its transpose

        motion = Motion(pull, lambda representation, values, move=move: move(values))  # type: ignore[misc]
        actions.append(
            Action(
                "a motion", lambda data, move=move: (move(data[0]), data[1]), lambda output, move=move: (move(output[0]), output[1]), motion
            )  # type: ignore[misc]
        )
    with model.equivariant():
        assert equivariance_gap(model, data, actions) < 1e-9
    assert equivariance_gap(model, data, actions) > 1e-3
    assert_jointly_equivariant(model, data, actions)


def test_egnn() -> None:
    """Features that depend on the place, under rotations, reflections and translations; padding stays zero."""
    torch.manual_seed(0)
    model = iso.models.EGNN(1, hidden_channels=8, layers=2).double()
    data = (torch.randn(2, 6, 3).double(), torch.randn(2, 6, 3).double(), torch.randn(2, 6, 1).double())
    expected = model(*data)
    model = iso.relax(model, {"embed": iso.FixedInput(3, 8)}, domain=iso.Box([-5.0] * 3, [5.0] * 3), p=0.0)
    assert all(torch.equal(a, b) for a, b in zip(model(*data), expected, strict=True))
    perturb(model.relaxation)
    # The first steps of a network are small, and positions would say little about its features.
    perturb(model.layers, 0.1)
    actions = []
    for _ in range(3):
        matrix = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        shift = torch.randn(3, dtype=torch.float64)

        def place(x: Tensor, matrix: Tensor = matrix, shift: Tensor = shift) -> Tensor:
            return x @ matrix.T + shift

        def moved(data: tuple[Tensor, ...], matrix: Tensor = matrix, place: Any = place) -> tuple[Tensor, ...]:
            return place(data[0]), data[1] @ matrix.T, data[2]

        def pull(x: Tensor, matrix: Tensor = matrix, shift: Tensor = shift) -> Tensor:
            return (x - shift) @ matrix

        motion = Motion(pull, lambda representation, values: values)
        actions.append(Action("a motion", moved, lambda output, place=place: (place(output[0]), output[1]), motion))  # type: ignore[misc]
    with model.equivariant():
        assert equivariance_gap(model, data, actions) < 1e-10
    assert equivariance_gap(model, data, actions) > 1e-3
    assert_jointly_equivariant(model, data, actions)
    far = (data[0] + 50, *data[1:])
    with model.equivariant():
        outside = model(*far)
    assert all(torch.equal(a, b) for a, b in zip(model(*far), outside, strict=True))
    short = model(*data, lengths=torch.tensor([6, 3]))
    assert short.nodes[1, 3:].abs().max() == 0 and copy.deepcopy(model)(*data).nodes.equal(model(*data).nodes)
