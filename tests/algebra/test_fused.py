"""The operators that layers of multivectors are made of and that are no public functions: against the definitions, with all derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from isotypic.ops.algebra import linear, products, reference, scale
from isotypic.ops.algebra.signature import GRADES
from isotypic.ops.algebra.signature import algebra as signature

Function = Callable[..., Any]


def gate_by_autograd(x: Tensor, activation: str) -> Tensor:
    functions: dict[str, Function] = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": torch.nn.functional.silu,
    }
    return functions[activation](x[:, :1]) * x


def norm_by_autograd(x: Tensor, weight: Tensor | None, epsilon: float, algebra: str) -> Tensor:
    """A loop over grades."""
    inner = torch.as_tensor(signature(algebra).inner, dtype=x.dtype)
    squares = x.square() * inner
    total = sum(squares[..., [i for i in range(16) if GRADES[i] == grade]].sum(-1).abs() for grade in range(5))
    y = x * torch.maximum(total.mean(-1), total.new_tensor(epsilon)).rsqrt()[:, None, None]  # type: ignore[union-attr]
    return y if weight is None else y * weight[:, list(GRADES)]


def linear_by_autograd(x: Tensor, weight: Tensor, shift: Tensor | None, algebra: str) -> tuple[Tensor, Tensor]:
    scalars = signature(algebra).scalars[: 1 if weight.shape[2] == 5 else 2]
    return reference.multivector_linear(x, weight, shift, algebra), x[..., list(scalars)]


def bilinear_by_autograd(factors: Tensor, s: Tensor | None, algebra: str) -> Tensor:
    parts = factors.chunk(2 if s is None else 4, 1)
    found = [reference.product(parts[0], parts[1], None, f"{algebra} geometric")]
    if s is not None:
        found.append(reference.product(parts[2], parts[3], s[:, None], f"{algebra} join"))
    return torch.cat(found, 1)


def doubles(*shapes: tuple[int, ...] | None) -> tuple[Tensor | None, ...]:
    return tuple(None if shape is None else torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


ACTIVATIONS = ["gelu", "gelu_tanh", "relu", "sigmoid", "tanh", "silu"]
# operator, the same by autograd, shapes of the tensors, settings
CASES: dict[str, tuple[Function, Function, tuple[Any, ...], tuple[Any, ...]]] = {
    **{f"gate {name}": (scale.gate, gate_by_autograd, ((5, 16),), (name,)) for name in ACTIVATIONS},
    "norm pga": (scale.norm, norm_by_autograd, ((3, 4, 16), None), (0.01, "pga")),
    "norm pga weight": (scale.norm, norm_by_autograd, ((3, 4, 16), (4, 5)), (0.01, "pga")),
    "norm pga constant": (scale.norm, norm_by_autograd, ((3, 4, 16), (4, 5)), (100.0, "pga")),
    "norm sta": (scale.norm, norm_by_autograd, ((3, 2, 16), None), (0.01, "sta")),
    "norm sta weight": (scale.norm, norm_by_autograd, ((70, 1, 16), (1, 5)), (0.01, "sta")),
    "linear pga": (linear.linear_scalars, linear_by_autograd, ((3, 2, 16), (4, 2, 9), (3, 4, 1)), ("pga",)),
    "linear sta": (linear.linear_scalars, linear_by_autograd, ((3, 2, 16), (1, 2, 10), (3, 1, 2)), ("sta",)),
    "linear sta 5": (linear.linear_scalars, linear_by_autograd, ((3, 2, 16), (1, 2, 5), None), ("sta",)),
    "bilinear pga": (products.bilinear, bilinear_by_autograd, ((3, 8, 16), (3,)), ("pga",)),
    "bilinear pga 16": (products.bilinear, bilinear_by_autograd, ((2, 64, 16), (2,)), ("pga",)),
    "bilinear sta": (products.bilinear, bilinear_by_autograd, ((3, 6, 16), None), ("sta",)),
}
each = pytest.mark.parametrize("name", CASES)


def listed(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_against_definition(name: str, dtype: torch.dtype) -> None:
    operator, by_autograd, shapes, settings = CASES[name]
    wide = [None if t is None else t.detach().to(dtype).double().requires_grad_() for t in doubles(*shapes)]
    given = [None if t is None else t.detach().to(dtype).requires_grad_() for t in wide]
    expected, found = listed(by_autograd(*wide, *settings)), listed(operator(*given, *settings))
    cotangents = [torch.randn_like(e).to(dtype) for e in expected]
    wanted = torch.autograd.grad(expected, [t for t in wide if t is not None], [c.double() for c in cotangents])
    gradients = torch.autograd.grad(found, [t for t in given if t is not None], cotangents)
    for a, b in zip([*found, *gradients], [*expected, *wanted], strict=True):
        assert a.dtype == dtype and a.shape == b.shape
        assert (a.double() - b).norm() <= 64 * torch.finfo(dtype).eps * b.norm() + torch.finfo(dtype).tiny


@each
def test_derivatives(name: str) -> None:
    operator, _, shapes, settings = CASES[name]
    assert gradcheck(operator, (*doubles(*shapes), *settings), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(operator, (*doubles(*shapes), *settings), check_fwd_over_rev=True, fast_mode=True)


@each
def test_mapped(name: str) -> None:
    operator, by_autograd, shapes, settings = CASES[name]
    for axis, first in ((0, True), (1, False)):  # of the first tensor alone, or of all of them
        tensors = [None if t is None else t.detach() for t in doubles(*shapes)]
        dims = [None if t is None or (first and i) else axis for i, t in enumerate(tensors)]
        given = [t if d is None or t is None else torch.stack([t, 2 * t], d) for t, d in zip(tensors, dims, strict=True)]
        mapped = listed(torch.func.vmap(lambda *t: operator(*t, *settings), tuple(dims))(*given))
        for i in range(2):
            alone = [t if d is None or t is None else t.select(d, i) for t, d in zip(given, dims, strict=True)]
            for a, b in zip(mapped, listed(by_autograd(*alone, *settings)), strict=True):
                torch.testing.assert_close(a[i], b)


def test_nothing_and_not_a_number() -> None:
    for shape in ((0, 3, 16), (2, 0, 16)):
        x = torch.randn(shape, requires_grad=True)
        assert scale.norm(x, None, 0.01, "sta").shape == shape
        y, scalars = linear.linear_scalars(x, torch.randn(2, shape[1], 10), torch.ones(shape[0], 2, 2), "sta")
        (gradient,) = torch.autograd.grad((y, scalars), x, (y.detach(), scalars.detach()))
        assert gradient.shape == shape and scalars.shape == (shape[0], shape[1], 2)
    x = torch.full((2, 1, 16), 1e-3)
    x[1, 0, 2] = torch.nan
    for algebra in ("pga", "sta"):
        y = scale.norm(x, None, 0.01, algebra)
        torch.testing.assert_close(y[0], 10 * x[0])  # below epsilon
        assert y[1].isnan().all()
