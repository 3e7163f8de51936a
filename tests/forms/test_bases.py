"""The bases of binary forms against evaluation at points, and the distribution of random elements against rejection."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from isotypic.ops import transvectant
from isotypic.sl2 import circle_matrix, from_circle, from_scaled, random_sl2, to_circle, to_scaled

DEGREES = (0, 1, 2, 3, 6, 14, 40)


def evaluate(p: Tensor, x: Tensor, y: Tensor) -> Tensor:
    degree = p.shape[-1] - 1
    return sum((p[..., i] * x**i * y ** (degree - i) for i in range(degree + 1)), torch.zeros((), dtype=p.dtype))


@pytest.mark.parametrize("degree", DEGREES)
def test_round_trips(degree: int) -> None:
    a = torch.randn(5, degree + 1, dtype=torch.float64)
    p = from_scaled(a)
    assert torch.allclose(to_scaled(p), a, rtol=1e-15, atol=0)
    error = to_scaled(from_circle(to_circle(p))) - a
    assert error.norm() <= 8 * (degree + 1) * torch.finfo(torch.float64).eps * a.norm()


@pytest.mark.parametrize("degree", DEGREES)
def test_circle_values(degree: int) -> None:
    a = torch.randn(degree + 1, dtype=torch.float64)
    p = from_scaled(a)
    c = to_circle(p)
    assert torch.allclose(c.flip(-1), c.conj(), rtol=0, atol=1e-14 * c.abs().max().item())
    t = torch.linspace(0, 2 * math.pi, 17, dtype=torch.float64)
    series = sum(c[j] * torch.exp(1j * (2 * j - degree) * t) for j in range(degree + 1))
    assert torch.allclose(series.real, evaluate(p, t.cos(), t.sin()), rtol=0, atol=1e-13 * a.norm().item() * (degree + 1))
    assert series.imag.abs().max() <= 1e-13 * a.norm() * (degree + 1)


@pytest.mark.parametrize("degree", DEGREES)
def test_circle_matrix_is_unitary(degree: int) -> None:
    matrix = circle_matrix(degree)
    assert np.abs(matrix @ matrix.conj().T - np.eye(degree + 1)).max() <= 1e-14


def test_known_values() -> None:
    # 2 x y = Im u^2 = (u^2 - v^2) / 2i
    c = to_circle(torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64))
    assert torch.allclose(c, torch.tensor([0.5j, 0, -0.5j], dtype=torch.complex128), rtol=0, atol=1e-16)


@pytest.mark.parametrize("function", [to_scaled, from_scaled, to_circle, from_circle])
def test_derivatives(function: Callable[[Tensor], Tensor]) -> None:
    p = torch.randn(2, 5, dtype=torch.complex128 if function is from_circle else torch.float64)
    assert torch.autograd.gradcheck(function, p.requires_grad_())


@pytest.mark.parametrize("function", [to_scaled, from_scaled, to_circle, from_circle])
def test_wrong_arguments(function: Callable[[Tensor], Tensor]) -> None:
    dtype = torch.complex64 if function is from_circle else torch.float32
    for value, error in (([1.0], TypeError), (torch.zeros(3, dtype=torch.int64), TypeError), (torch.zeros((), dtype=dtype), ValueError)):
        with pytest.raises(error, match=rf"^{function.__name__}: [pac] must"):
            function(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [to_scaled, from_scaled, to_circle, from_circle])
def test_compiles(function: Callable[[Tensor], Tensor]) -> None:
    """In one graph, with its derivative, and with sizes that are symbols."""
    p = torch.randn(2, 5, dtype=torch.complex128 if function is from_circle else torch.float64, requires_grad=True)
    for dynamic in (False, True):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        assert torch.allclose(compiled(p), function(p), rtol=1e-14, atol=1e-14)
        found, expected = (torch.autograd.grad(f(p).abs().square().sum(), p)[0] for f in (compiled, function))
        assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)
    assert torch.allclose(compiled(p[:, :3]), function(p[:, :3]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 260), (torch.float64, 1029)], ids=str)
def test_the_largest_degree(dtype: torch.dtype, largest: int) -> None:
    """Binomials stay in the range: their roots in that of float32, and they themselves in that of float64."""
    bound = int(torch.finfo(dtype).max) ** (2 if dtype == torch.float32 else 1)
    assert largest == max(d for d in range(1100) if math.comb(d, d // 2) <= bound)
    p = from_scaled(torch.ones(largest + 1, dtype=dtype))
    assert p.isfinite().all() and torch.allclose(to_scaled(p), torch.ones(largest + 1, dtype=dtype))
    for function in (to_scaled, from_scaled, to_circle):
        with pytest.raises(ValueError, match=rf"^{function.__name__}: . must have degree at most {largest} in {dtype}, got {largest + 1}"):
            function(torch.ones(largest + 2, dtype=dtype))
    with pytest.raises(ValueError, match=f"^transvectant: p must have degree at most {largest}"):
        transvectant(torch.ones(largest + 2, dtype=dtype), torch.ones(2, dtype=dtype), 1)


@pytest.mark.parametrize("bound", [1.0, 1.5, 2.0, 10.0, math.inf])
def test_random_sl2(bound: float) -> None:
    generator = torch.Generator().manual_seed(1)
    g = random_sl2((40, 100), max_condition=bound, generator=generator, dtype=torch.float64)
    assert g.shape == (40, 100, 2, 2) and g.isfinite().all()
    condition = torch.linalg.cond(g)
    determinant = g[..., 0, 0] * g[..., 1, 1] - g[..., 0, 1] * g[..., 1, 0]
    assert ((determinant - 1).abs() <= 8 * torch.finfo(torch.float64).eps * condition).all()
    assert (condition <= bound * (1 + 1e-12)).all()
    if bound == 1.0:
        return
    # The same by rejection: the two samples of condition numbers have the same quantiles (Kolmogorov-Smirnov at 1e-6).
    gaussian = torch.randn(200_000, 2, 2, generator=generator, dtype=torch.float64)
    kept = torch.linalg.cond(gaussian[:20_000] if bound > 5 else gaussian)
    kept = kept[kept <= bound].sort().values
    mine = condition.flatten().sort().values
    rank = torch.searchsorted(kept, mine).double() / len(kept)
    distance = (rank - torch.arange(len(mine), dtype=torch.float64) / len(mine)).abs().max()
    assert distance < 2.7 * math.sqrt(1 / len(mine) + 1 / len(kept))


def test_random_sl2_arguments() -> None:
    assert random_sl2().shape == (2, 2) and random_sl2().dtype == torch.float32
    with pytest.raises(ValueError, match=r"^random_sl2: max_condition must be at least 1"):
        random_sl2(max_condition=0.5)
    with pytest.raises(ValueError, match=r"^random_sl2: size must hold integers of at least 0, got \(2, -1\)"):
        random_sl2((2, -1))
    assert random_sl2((np.int64(3),), max_condition=np.float32(2)).shape == (3, 2, 2)
    with pytest.raises(TypeError, match=r"^random_sl2: size must be a sequence of integers, got 5"):
        random_sl2(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^random_sl2: max_condition must be a number, got 'a'"):
        random_sl2((2,), max_condition="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^random_sl2: dtype"):
        random_sl2(dtype=torch.float16)
