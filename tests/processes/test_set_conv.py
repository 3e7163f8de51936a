"""Set convolutions against their definition, a loop over points in float64; what holds beyond the contract, and bad input."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.interpolate import BarycentricInterpolator
from torch import Tensor

import isotypic as iso
from isotypic._extension import kernels
from isotypic.ops.processes import _separable
from isotypic.ops.processes.set_conv import OutsideGridWarning

SHAPES = {1: (33,), 2: (20, 35), 3: (7, 9, 18)}


def grid_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.linspace(-1, 1, n, dtype=dtype) for n in shape)


def by_definition(x: Tensor, y: Tensor, grid: tuple[Tensor, ...], lengthscale: Tensor) -> Tensor:
    """One point after the other, all nodes."""
    nodes = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1)
    tasks = []
    for points, values in zip(x, y, strict=True):
        total = torch.zeros(1 + y.shape[-1], *nodes.shape[:-1], dtype=torch.float64)
        for point, value in zip(points, values, strict=True):
            weight = torch.exp(-0.5 * ((nodes - point) / lengthscale).square().sum(-1))
            extended = torch.cat([value.new_ones(1), value])
            total = total + extended.reshape(-1, *(1,) * len(grid)) * weight
        tasks.append(total)
    return torch.stack(tasks)


def operands(dim: int, dtype: torch.dtype, points: int = 12) -> tuple[Tensor, Tensor]:
    return 2 * torch.rand(2, points, dim, dtype=dtype) - 1, torch.randn(2, points, 3, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [0.06, 0.15, 3.0])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_against_a_loop(dim: int, scale: float, dtype: torch.dtype) -> None:
    """1e-6 in values and gradients, at lengthscales below the distance of the nodes and beyond the grid."""
    x, y = operands(dim, dtype, 70 if scale > 1 and dim == 2 else 12)
    lengthscale = scale * torch.linspace(1, 1.5, dim, dtype=dtype)
    leaves = [t.requires_grad_() for t in (x, y, lengthscale)]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    found = iso.ops.set_conv(x, y, grid_of(SHAPES[dim], dtype), lengthscale)
    expected = by_definition(doubles[0], doubles[1], tuple(g.double() for g in grid_of(SHAPES[dim], dtype)), doubles[2])
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert (found - expected).norm() < tolerance * expected.norm()
    cotangent = torch.randn_like(expected)
    actual = torch.autograd.grad(found, leaves, cotangent.to(dtype))
    for a, b in zip(actual, torch.autograd.grad(expected, doubles, cotangent.to(dtype).double()), strict=True):
        assert (a - b).norm() < 4 * tolerance * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [0.3, 0.8, 1.7, 50.0])
@pytest.mark.parametrize("shape", [(200,), (48, 57), (26, 8, 40)])
def test_products_of_matrices_agree_with_windows(
    shape: tuple[int, ...], scale: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lengthscales take another route, on fewer nodes, whatever their values: to the rounding of the dtype."""
    x, y = operands(len(shape), dtype, 100)
    fields, lengthscale = torch.randn(2, 5, *shape, dtype=dtype), torch.full((len(shape),), scale, dtype=dtype)
    leaves = [t.requires_grad_() for t in (x, y, lengthscale, fields)]
    runs, met, routes = [], _separable.met, []
    monkeypatch.setattr(_separable, "_LEAST", 0)

    def spy(*args: Any, **keywords: Any) -> list[int] | None:
        routes.append(met(*args, **keywords))
        return routes[-1]

    for separable in (True, False):
        monkeypatch.setattr(_separable, "met", spy if separable else lambda *_, **__: None)
        results = (iso.ops.set_conv(x, y, grid_of(shape), lengthscale), iso.ops.set_conv_decode(fields, grid_of(shape), x, lengthscale))
        total = sum((r * torch.linspace(-1, 1, r.numel()).view_as(r)).sum() for r in results)
        runs.append((*results, *torch.autograd.grad(total, leaves)))
    assert scale < 10 or all(route is not None for route in routes)
    for a, b in zip(*runs, strict=True):
        assert (a - b).norm() < (2e-6 if dtype == torch.float32 else 2e-14) * b.norm()


@pytest.mark.parametrize("scale", [0.4, 0.9])
def test_small_densities_keep_their_digits(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are divided by a density: it has to be right where all points are far away, whatever the route."""
    monkeypatch.setattr(_separable, "_LEAST", 0)
    x, y = -1 + 0.1 * torch.rand(1, 400, 2), torch.ones(1, 400, 1)
    grid = grid_of((64, 64), torch.float32)
    expected = by_definition(x.double(), y.double(), tuple(g.double() for g in grid), torch.full((2,), scale, dtype=torch.float64))
    found = iso.ops.set_conv(x, y, grid, scale)
    within = expected > 1e-6 * expected.max()
    assert ((found - expected).abs() <= 1e-3 * expected)[within].all()


def test_a_repeated_call_follows_its_lengthscale(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a call for the next of its shapes is not the route that an earlier lengthscale took."""
    x, y = operands(2, torch.float32, 300)
    routes, met = [], _separable.met

    def spy(*args: Any, **keywords: Any) -> list[int] | None:
        routes.append(met(*args, **keywords))
        return routes[-1]

    monkeypatch.setattr(_separable, "met", spy)
    leaves = [x.requires_grad_(), y.requires_grad_()]
    for scale in (0.05, 0.05, 0.05, 5.0, 5.0):
        routes.clear()
        torch.autograd.grad(iso.ops.set_conv(x, y, grid_of((128, 128), torch.float32), scale).sum(), leaves)
        assert [route is not None for route in routes] == [scale > 1] * 2


def interpolation_error(half: float, points: int) -> float:
    """Of r^p exp(-r^2 / 2), p = 0, 1, 2, about points of [-half, half], by scipy through that many Chebyshev points of it."""
    angles = (np.arange(points) + 0.5) * (np.pi / points)
    at, where = half * np.cos(angles), np.linspace(-half, half, 301)
    weights = (-1.0) ** np.arange(points) * np.sin(angles)

    def error(t: float, power: int) -> float:
        def bump(x: Any) -> Any:
            return (x - t) ** power * np.exp(-((x - t) ** 2) / 2)

        return float(np.abs(BarycentricInterpolator(at, bump(at), wi=weights)(where) - bump(where)).max())

    return max(error(t, power) for t in (-half, -0.3 * half, 0.0, half) for power in (0, 1, 2))


@pytest.mark.parametrize("half", [0.3, 1.0, 3.0, 9.0])
@pytest.mark.parametrize("error", [1e-8, 1e-13])
def test_few_points_hold_a_gaussian(half: float, error: float) -> None:
    """The points are enough for the stated error, and a third fewer are not."""
    points = _separable.rank(half, error)
    assert interpolation_error(half, points) < error < interpolation_error(half, points * 2 // 3)


def test_decode_is_the_adjoint() -> None:
    (x, y), shape = operands(2, torch.float64), SHAPES[2]
    fields = torch.randn(2, 3, *shape, dtype=torch.float64)
    encoded = iso.ops.set_conv(x, y, grid_of(shape), 0.1, density=False)
    decoded = iso.ops.set_conv_decode(fields, grid_of(shape), x, 0.1)
    assert torch.isclose((encoded * fields).sum(), (decoded * y).sum(), rtol=1e-12)


def test_results_do_not_depend_on_threads() -> None:
    x, y = operands(2, torch.float32, 600)
    leaves = [t.requires_grad_() for t in (x, y)]
    runs, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        result = iso.ops.set_conv(x, y, grid_of(SHAPES[2]), 0.1)
        runs.append((result, *torch.autograd.grad(result.square().sum(), leaves)))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


def test_no_denormals() -> None:
    """What a kernel writes is zero or far from the smallest normal number, for values of ordinary size."""
    result = iso.ops.set_conv(torch.zeros(1, 1, 2), torch.ones(1, 1, 1), grid_of((64, 64), torch.float32), 0.05)
    assert result[result != 0].abs().min() > 1e-20


def test_grids_of_any_direction() -> None:
    (x, y), (first, second) = operands(2, torch.float64), grid_of(SHAPES[2])
    result = iso.ops.set_conv(x, y, (first.flip(0), second), 0.1)
    assert torch.allclose(result.flip(2), iso.ops.set_conv(x, y, (first, second), 0.1))
    one = iso.ops.set_conv(x, y, (first[:1], second), 0.1)
    assert torch.allclose(one, iso.ops.set_conv(x, y, (first, second), 0.1)[:, :, :1])


def test_grid_has_a_gradient_where_it_is_asked_for() -> None:
    (x, y), (nodes,) = operands(1, torch.float64), grid_of((9,))
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = iso.ops.set_conv(x, y, (nodes + shift,), 0.3).square().sum()
    leaf = x.requires_grad_()
    by_x = torch.autograd.grad(iso.ops.set_conv(leaf, y, (nodes,), 0.3).square().sum(), leaf)[0]
    assert torch.isclose(torch.autograd.grad(moved, shift)[0], -by_x.sum())


# Bad input


def test_points_outside_are_counted() -> None:
    x = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [0.0, -7.0]]])
    for call in (
        lambda: iso.ops.set_conv(x, torch.ones(1, 3, 1), grid_of((9, 9), torch.float32), 0.1),
        lambda: iso.ops.set_conv_decode(torch.ones(1, 1, 9, 9), grid_of((9, 9), torch.float32), x, 0.1),
    ):
        with pytest.warns(OutsideGridWarning, match="2 of 3 points lie outside the grid"):
            assert call().isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iso.ops.set_conv(x[:, :1], torch.ones(1, 1, 1), grid_of((9, 9), torch.float32), 0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("lengthscale", [0.1, 5.0])
def test_positions_must_be_finite(value: float, lengthscale: float) -> None:
    x = torch.zeros(1, 70, 2)
    x[0, 2, 1] = value
    with pytest.raises(ValueError, match=r"set_conv: x must be finite, got 1"):
        iso.ops.set_conv(x, torch.ones(1, 70, 1), grid_of((20, 20), torch.float32), lengthscale)


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 2, 1), (1, 3)])
def test_values_must_fit_the_positions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^set_conv: y must have shape \(B=1, N=3, C\), got"):
        iso.ops.set_conv(torch.zeros(1, 3, 1), torch.ones(shape), grid_of((9,), torch.float32), 0.1)


def test_nodes_must_be_equally_spaced() -> None:
    with pytest.raises(ValueError, match=r"set_conv: grid\[0\] must have equally spaced nodes"):
        iso.ops.set_conv(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), (torch.tensor([0.0, 1.0, 3.0]),), 0.1)
    with pytest.raises(ValueError, match=r"set_conv: grid\[0\] must have equally spaced nodes"):
        iso.ops.set_conv(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), (torch.zeros(3),), 0.1)
    for grid in (None, [torch.zeros(2, 2)], [torch.zeros(0)], [1.0], ()):
        with pytest.raises((TypeError, ValueError), match="set_conv: grid"):
            iso.ops.set_conv(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), grid, 0.1)  # type: ignore[arg-type]


def test_empty_sets_and_no_channels() -> None:
    grid = grid_of((5, 6), torch.float32)
    assert not iso.ops.set_conv(torch.zeros(2, 0, 2), torch.zeros(2, 0, 1), grid, 0.1).any()
    assert iso.ops.set_conv(torch.zeros(2, 3, 2), torch.zeros(2, 3, 0), grid, 0.1).shape == (2, 1, 5, 6)
    assert iso.ops.set_conv_decode(torch.zeros(2, 0, 5, 6), grid, torch.zeros(2, 3, 2), 0.1).shape == (2, 3, 0)
    # Enough points and a long lengthscale: the route of products of matrices.
    grid = grid_of((20, 20), torch.float32)
    for batch, channels in ((0, 1), (0, 0), (2, 0)):
        x, scale = torch.zeros(batch, 70, 2, requires_grad=True), torch.tensor(3.0, requires_grad=True)
        y, field = torch.zeros(batch, 70, channels, requires_grad=True), torch.zeros(batch, channels, 20, 20, requires_grad=True)
        for result, shape in (
            (iso.ops.set_conv(x, y, grid, scale, density=False), (batch, channels, 20, 20)),
            (iso.ops.set_conv_decode(field, grid, x, scale), (batch, 70, channels)),
        ):
            assert result.shape == shape
            assert not any(g is not None and g.any() for g in torch.autograd.grad(result.sum(), (x, y, field, scale), allow_unused=True))


def test_kernels_refuse_what_does_not_fit() -> None:
    extension = kernels("test")
    y, t, s, field = torch.zeros(1, 3, 2), torch.zeros(1, 3, 1).double(), torch.ones(1).double(), torch.zeros(1, 2, 5)
    extension.set_conv(y, t, s, [0], field)
    for wrong in ((y.double(), t, s, [0], field), (y, t.float(), s, [0], field), (y, t, s, [0, 0], field), (y, t, s, [0], field[:, :1])):
        with pytest.raises(ValueError, match="set_conv kernel"):
            extension.set_conv(*wrong)
    with pytest.raises(ValueError, match="lengthscale must be positive and finite"):
        extension.set_conv(y, t, 0 * s, [0], field)
