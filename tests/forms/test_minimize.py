"""Global minima and rigorous bounds, against fine grids and polynomials whose minimum is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import isotypic as iso


def products(factors: int, batch: int) -> tuple[list[Tensor], Tensor]:
    """The homogeneous parts of products of (x - a)^2 + (y - b)^2 + c^2 with Gaussian a, b, c, and the (a, b, c)."""
    f = torch.zeros(batch, 2 * factors + 1, 2 * factors + 1, dtype=torch.float64)
    f[:, 0, 0] = 1
    abc = torch.randn(batch, factors, 3, dtype=torch.float64)
    for a, b, c in abc.permute(1, 2, 0)[..., None, None]:
        new = (a * a + b * b + c * c) * f
        new[:, 2:] += f[:, :-2]
        new[:, :, 2:] += f[:, :, :-2]
        new[:, 1:] -= 2 * a * f[:, :-1]
        new[:, :, 1:] -= 2 * b * f[:, :, :-1]
        f = new
    return [torch.stack([f[:, i, k - i] for i in range(k + 1)], -1) for k in range(2 * factors + 1)], abc


@pytest.mark.parametrize("factors", [1, 2, 3, 5, 7])
def test_products_of_distances(factors: int) -> None:
    parts, abc = products(factors, 60)
    found = iso.sl2.minimize(parts)
    assert not found.status.any()
    axis = torch.linspace(-4, 4, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    for value, point, low, factor in zip(found.value, found.point, found.lower, abc, strict=True):

        def f(z: Tensor, factor: Tensor = factor) -> Tensor:
            return ((z[..., None, :] - factor[:, :2]).square().sum(-1) + factor[:, 2] ** 2).prod(-1)

        assert low <= value <= f(grid).min() * (1 + 1e-6)
        assert low > 0.999 * value
        torch.testing.assert_close(value, f(point), rtol=1e-6, atol=1e-10)


def test_a_known_minimum_and_its_gradient() -> None:
    """(x^2 + y^2 - 1)^2 + x / 4: two wells on the axis, the lower one on the left."""
    parts = [torch.tensor(part, dtype=torch.float64) for part in ([1.0], [0.0, 0.25], [-2.0, 0.0, -2.0], [0.0] * 4, [1.0, 0, 2, 0, 1])]
    parts = [part.requires_grad_() for part in parts]
    found = iso.sl2.minimize(parts)
    x = found.point[0]
    assert abs(float(4 * x * (x * x - 1) + 0.25)) < 1e-10 and x < -1 and abs(float(found.point[1])) < 1e-8
    gradients = torch.autograd.grad(found.value, parts)
    torch.testing.assert_close(gradients[2], torch.stack([0 * x, 0 * x, x * x]), rtol=0, atol=1e-8)
    moved = iso.sl2.minimize([part + 3 if k == 0 else part for k, part in enumerate(parts)])
    torch.testing.assert_close(moved.value, found.value + 3)


def test_far_from_the_origin_and_other_scales() -> None:
    for shift, scale in ((100.0, 1.0), (0.0, 1e8), (3.0, 1e-8)):
        parts = [
            torch.tensor([scale * 2 * shift**2 + scale]).double(),
            torch.tensor([-2 * shift * scale] * 2).double(),
            torch.tensor([scale, 0, scale]).double(),
        ]
        found = iso.sl2.minimize(parts)
        torch.testing.assert_close(found.point, torch.full((2,), shift, dtype=torch.float64), rtol=1e-7, atol=1e-7)
        assert abs(float(found.value) / scale - 1) < 1e-6 * max(shift**2, 1)


@pytest.mark.parametrize("slope", [1.0, -0.3, 1e-3])
@pytest.mark.parametrize("stiffness", [1.0, 1e3, 1e6])
def test_narrow_valleys(slope: float, stiffness: float) -> None:
    """x^2 (x + 2)^2 + slope x + stiffness y^2 + y^4: the lower well lies in a valley that no ray of a grid follows."""
    found = iso.sl2.minimize(parts_of({(2, 0): 4, (4, 0): 1, (3, 0): 4, (1, 0): slope, (0, 2): stiffness, (0, 4): 1}))
    t = torch.linspace(-4, 2, 600001, dtype=torch.float64)
    least = float((t**2 * (t + 2) ** 2 + slope * t).min())
    assert int(found.status) == 0 and float(found.lower) <= least + 1e-9 and abs(float(found.value) - least) < 1e-9


def test_wells_along_a_turned_line() -> None:
    """(product of (x - y - a)^2) + (x - y) + 1e4 (x + y)^2 + (x + y)^4, whose least well is the last one."""
    u, v = {(1, 0): 1.0, (0, 1): -1.0}, {(1, 0): 1.0, (0, 1): 1.0}

    def times(f: dict, g: dict) -> dict:
        result: dict = {}
        for (i, j), a in f.items():
            for (k, m), b in g.items():
                result[i + k, j + m] = result.get((i + k, j + m), 0.0) + a * b
        return result

    total: dict = {(0, 0): 1.0}
    for a in (-1.0, 0.5, 2.0):
        factor = u | {(0, 0): -a}
        total = times(total, times(factor, factor))
    square = times(v, v)
    for extra, weight in ((u, 1.0), (square, 1e4), (times(square, times(square, square)), 1.0)):
        for key, c in extra.items():
            total[key] = total.get(key, 0.0) + weight * c
    found = iso.sl2.minimize(parts_of(total))
    t = torch.linspace(-3, 3, 600001, dtype=torch.float64)
    least = float((((t + 1) * (t - 0.5) * (t - 2)) ** 2 + t).min())
    assert int(found.status) == 0 and abs(float(found.value) - least) < 1e-8 and float(found.lower) <= least + 1e-9


def test_unbounded_and_undecided() -> None:
    zero = [torch.zeros(2, 1), torch.zeros(2, 2)]
    found = iso.sl2.minimize([*zero, torch.tensor([[1.0, 0.0, -1.0], [1.0, 0.0, 0.0]])])
    assert found.status.tolist() == [1, 2]
    assert found.value[0] == -torch.inf and found.value[1] == 0
    x, y = found.point[0]
    assert y**2 - x**2 < 0 and found.point.isfinite().all()


def parts_of(coefficients: dict[tuple[int, int], float]) -> list[Tensor]:
    """The homogeneous parts of sum of c x^i y^j."""
    degree = max(i + j for i, j in coefficients)
    parts = [torch.zeros(k + 1, dtype=torch.float64) for k in range(degree + degree % 2 + 1)]
    for (i, j), c in coefficients.items():
        parts[i + j][i] += c
    return parts


@pytest.mark.parametrize(
    ("coefficients", "least"),
    [
        ({(4, 2): 1, (2, 4): 1, (2, 2): -3, (0, 0): 1}, 0.0),  # Motzkin
        (
            {(6, 0): 1, (0, 6): 1, (4, 2): -1, (2, 4): -1, (4, 0): -1, (0, 4): -1, (2, 0): -1, (0, 2): -1, (2, 2): 3, (0, 0): 1},
            0.0,
        ),  # Robinson
        ({(2, 0): 4, (4, 0): -2.1, (6, 0): 1 / 3, (1, 1): 1, (0, 2): -4, (0, 4): 4}, -1.031628453489877),  # six-hump camel
        ({(4, 0): 100, (2, 1): -200, (0, 2): 100, (0, 0): 1, (1, 0): -2, (2, 0): 1}, 0.0),  # Rosenbrock
    ],
)
def test_a_part_of_highest_degree_with_zeros_on_the_circle(coefficients: dict[tuple[int, int], float], least: float) -> None:
    found = iso.sl2.minimize(parts_of(coefficients))
    assert abs(float(found.value) - least) < 1e-10 and int(found.status) == 2


@pytest.mark.parametrize(
    "coefficients",
    [
        {(4, 0): 1, (0, 1): -1},  # along y the part of highest degree vanishes
        {(4, 0): 1, (0, 3): 1},
        # (x - 1.3 y)^2 (x^2 + y^2) - 1e-5 (x^2 + y^2)^2: negative between samples
        {(4, 0): 1 - 1e-5, (3, 1): -2.6, (2, 2): 2.69 - 2e-5, (1, 3): -2.6, (0, 4): 1.69 - 1e-5},
    ],
)
def test_unbounded_in_one_direction(coefficients: dict[tuple[int, int], float]) -> None:
    found = iso.sl2.minimize(parts_of(coefficients))
    assert int(found.status) == 1 and float(found.value) == -torch.inf
    x, y = (1e6 * found.point).tolist()
    assert sum(c * x**i * y**j for (i, j), c in coefficients.items()) < -1e5


def test_shapes_and_wrong_arguments() -> None:
    parts, _ = products(2, 6)
    stacked = iso.sl2.minimize([part.reshape(2, 3, -1) for part in parts])
    assert stacked.value.shape == (2, 3) and stacked.point.shape == (2, 3, 2)
    torch.testing.assert_close(stacked.value.flatten(), iso.sl2.minimize(parts).value)
    single = iso.sl2.minimize([part.float() for part in parts])
    assert single.value.dtype == torch.float32
    for wrong, text in (
        (parts[:4], "parts must be the homogeneous parts of degree 0 to D, D even and at least 2, got 4 of them"),
        ([*parts[:-1], parts[0]], r"parts\[4\] must have shape \(..., 5\)"),
    ):
        with pytest.raises(ValueError, match=rf"^minimize: {text}"):
            iso.sl2.minimize(wrong)
    for wrong, name in ((5, "int"), (torch.zeros(3, 1), "Tensor"), ("abc", "str")):
        with pytest.raises(TypeError, match=f"^minimize: parts must be a sequence of tensors, got {name}"):
            iso.sl2.minimize(wrong)  # type: ignore[arg-type]


def test_rows_that_are_not_finite() -> None:
    """They have a status of their own, gradients of zero, and change nothing for the others."""
    parts, _ = products(2, 4)
    broken = [part.clone() for part in parts]
    broken[0][1], broken[4][3, 2] = torch.nan, torch.inf
    broken = [part.requires_grad_() for part in broken]
    found, expected = iso.sl2.minimize(broken), iso.sl2.minimize(parts)
    assert found.status.tolist() == [0, 3, 0, 3]
    assert found.value[[1, 3]].isnan().all() and found.point[[1, 3]].isnan().all()
    assert torch.equal(found.value[::2], expected.value[::2]) and torch.equal(found.point[::2], expected.point[::2])
    gradients = torch.autograd.grad(found.value.nansum(), broken)
    assert all(not gradient[1::2].any() and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("cross", [-0.48, 0.51, -0.519])
def test_a_minimum_of_zero_at_the_origin(cross: float) -> None:
    """0.26 x^2 + cross x y + 0.26 y^2 (Matyas' function): no size, no rounding there, and boxes beside it look alike at every size."""
    found = iso.sl2.minimize(parts_of({(2, 0): 0.26, (1, 1): cross, (0, 2): 0.26}))
    assert int(found.status) == 0 and float(found.value) == 0 and -1e-30 < float(found.lower) <= 0


@pytest.mark.parametrize("ratio", [1e-6, 1e6])
def test_axes_of_different_scale(ratio: float) -> None:
    """(x^2 - 1)^2 + x / 3 + (y^2 - 2)^2 - y / 5 + (x y)^2 / 4 in x / ratio: as without the ratio."""
    terms = {(4, 0): 1, (2, 0): -2, (0, 0): 5, (1, 0): 1 / 3, (0, 4): 1, (0, 2): -4, (0, 1): -0.2, (2, 2): 0.25}
    expected = iso.sl2.minimize(parts_of(terms))
    found = iso.sl2.minimize(parts_of({(i, j): c * ratio**i for (i, j), c in terms.items()}))
    assert int(expected.status) == int(found.status) == 0
    torch.testing.assert_close(found.value, expected.value, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.point * torch.tensor([ratio, 1.0]), expected.point, rtol=1e-5, atol=1e-5)


def test_constants() -> None:
    found = iso.sl2.minimize([torch.tensor([[3.0], [-2.0]]), torch.zeros(2), torch.zeros(3)])
    assert found.status.tolist() == [0, 0] and found.value.tolist() == [3.0, -2.0] and found.point.isfinite().all()


def test_values_are_rounded_once() -> None:
    """(x - 1000)^2 + (y - 1000)^2 + 1 in float32: the terms are 1e6 and cancel."""
    found = iso.sl2.minimize([torch.tensor([2e6 + 1]), torch.tensor([-2000.0, -2000.0]), torch.tensor([1.0, 0.0, 1.0])])
    assert found.value.dtype == torch.float32 and abs(float(found.value) - 1) < 1e-6


@pytest.mark.parametrize("degree", [0, 2, 6, 20])
def test_circle_bounds(degree: int) -> None:
    p = torch.randn(50, degree + 1, dtype=torch.float64)
    angle = torch.linspace(0, torch.pi, 20001, dtype=torch.float64)
    k = torch.arange(degree + 1)
    values = p @ (angle.cos()[:, None] ** k * angle.sin()[:, None] ** (degree - k)).T
    span = values.amax(1) - values.amin(1)
    for samples, excess in ((degree + 2, None), (None, 2e-3)):
        low, high = iso.sl2.circle_bounds(p, samples)
        assert (low <= values.amin(1) + 1e-12).all() and (high >= values.amax(1) - 1e-12).all()
        if excess:
            assert (values.amin(1) - low <= excess * span + 1e-12).all()
    # (x^2 + y^2)^(degree / 2) is 1 on the circle: what is left is the bound of the rounding errors.
    for dtype in (torch.float32, torch.float64):
        constant = torch.tensor([math.comb(degree // 2, i // 2) * (1 - i % 2) for i in range(degree + 1)], dtype=dtype)
        low, high = iso.sl2.circle_bounds(constant)
        tolerance = 100 * (degree + 1) * torch.finfo(dtype).eps
        assert 1 - tolerance < low < 1 < high < 1 + tolerance
    p[3], p[4, 0], p[5] = torch.nan, torch.inf, 1e308
    low, high = iso.sl2.circle_bounds(p)
    assert (low[3:5] == -torch.inf).all() and (high[3:5] == torch.inf).all()
    assert not low.isnan().any() and not high.isnan().any() and low[6:].isfinite().all()
    for wrong in (degree, 99.5, True):
        with pytest.raises(ValueError, match=r"^circle_bounds: samples must be more than 2 d"):
            iso.sl2.circle_bounds(p, wrong)
