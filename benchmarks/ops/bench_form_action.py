"""The action on binary forms against torch, vectorised over the batch. One thread, 10,000 forms with a matrix each.

`test_action` and `test_backward`: against building the matrices M_d(g) and multiplying, in two ways of which the faster one counts:

    recurrence   M_j from M_{j-1}: every column times a linear form, d steps on (N, j, j) arrays
    powers       the powers of both linear forms, and each column as the convolution of two of them: one einsum with a 0/1 tensor

`test_against_horner`, `test_backward_against_horner`: against the kernel's own algorithm written in torch, on (N, s)
arrays, which is the best that torch does in eager mode; up to degree 10 also compiled, as it stands and with a vector over the batch for
each coefficient, of which torch's compiler makes one loop (the code grows with the square of the degree).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compare import TIMER, compare
from torch import Tensor

import isotypic as iso

KERNELS = ("form_action",)

FORMS = 10_000
DEGREES = (6, 8, 10, 14, 20)
DTYPES = (torch.float32, torch.float64)


def times(p: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(first x + second y) p, on the last axis."""
    return F.pad(p * first, (1, 0)) + F.pad(p * second, (0, 1))


def recurrence(p: Tensor, g: Tensor) -> Tensor:
    a, b, c, e = (g[:, i, j, None, None] for i in range(2) for j in range(2))
    matrix = torch.ones_like(a)  # (N, column i, row k)
    for _ in range(p.shape[1] - 1):
        matrix = torch.cat([times(matrix[:, :1], c, e), times(matrix, a, b)], 1)
    return (p[:, None] @ matrix)[:, 0]


def powers(p: Tensor, g: Tensor) -> Tensor:
    degree = p.shape[1] - 1

    def all_powers(first: Tensor, second: Tensor) -> Tensor:
        """(N, d+1, d+1): the coefficients of (first x + second y)^i in row i."""
        index = torch.arange(degree + 1, dtype=p.dtype)
        i, s = index[:, None], index
        binomials = torch.where(s <= i, (torch.lgamma(i + 1) - torch.lgamma(s + 1) - torch.lgamma((i - s).clamp(min=0) + 1)).exp(), 0.0)
        return binomials * first[:, None, None] ** s * second[:, None, None] ** (i - s).clamp(min=0)

    left, right = all_powers(g[:, 0, 0], g[:, 0, 1]), all_powers(g[:, 1, 0], g[:, 1, 1]).flip(1)
    # matrix[n, i, k] = sum_s left[n, i, s] right[n, d-i, k-s]: the rows of `right` shifted by s
    columns = []
    padded = F.pad(right, (degree, 0))
    for s in range(degree + 1):
        columns.append(padded[..., degree - s : 2 * degree + 1 - s])
    matrix = (left.unsqueeze(-2) @ torch.stack(columns, 2))[..., 0, :]
    return (p[:, None] @ matrix)[:, 0]


def horner(p: Tensor, g: Tensor) -> Tensor:
    a, b, c, e = (g[:, i, j, None] for i in range(2) for j in range(2))
    degree = p.shape[1] - 1
    result, power = p[:, degree:], torch.ones_like(a)
    for step in range(1, degree + 1):
        power = times(power, c, e)
        result = torch.addcmul(times(result, a, b), p[:, degree - step, None], power)
    return result


def horner_by_rows(p: Tensor, g: Tensor) -> Tensor:
    """The same with a vector over the batch for each coefficient."""
    a, b, c, e = (g[:, i, j] for i in range(2) for j in range(2))
    degree = p.shape[1] - 1

    def times(form: list[Tensor], first: Tensor, second: Tensor) -> list[Tensor]:
        inner = [torch.addcmul(low * first, high, second) for low, high in itertools.pairwise(form)]
        return [form[0] * second, *inner, form[-1] * first]

    result, power = [p[:, degree]], [torch.ones_like(a)]
    for step in range(1, degree + 1):
        power = times(power, c, e)
        result = [torch.addcmul(each, p[:, degree - step], factor) for each, factor in zip(times(result, a, b), power, strict=True)]
    return torch.stack(result, 1)


def forms_of_horner(degree: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    forms = {"horner": horner}
    if degree <= 10:
        torch.compiler.reset()
        forms |= {"horner compiled": torch.compile(horner), "by rows compiled": torch.compile(horner_by_rows)}
    return forms


def operands(degree: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.randn(FORMS, degree + 1, dtype=dtype), iso.sl2.random_sl2((FORMS,), max_condition=2.0, dtype=dtype)


def checked(
    p: Tensor, g: Tensor, functions: dict[str, Callable[[Tensor, Tensor], Tensor]]
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    expected = iso.ops.form_action(p, g)
    for function in functions.values():
        assert (function(p, g) - expected).norm() < 1e-3 * expected.norm()
    return functions


def record(benchmark: Any, degree: int, dtype: torch.dtype, direction: str) -> None:
    benchmark.group = f"form_action {direction}"
    benchmark.extra_info.update(degree=degree, dtype=str(dtype), direction=direction, forms=FORMS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_action(benchmark: Any, degree: int, dtype: torch.dtype) -> None:
    p, g = operands(degree, dtype)
    record(benchmark, degree, dtype, "forward")
    baselines = checked(p, g, {"recurrence": recurrence, "powers": powers})
    compare(benchmark, lambda: iso.ops.form_action(p, g), {name: lambda f=f: f(p, g) for name, f in baselines.items()})


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_backward(benchmark: Any, degree: int) -> None:
    p, g = (tensor.requires_grad_() for tensor in operands(degree, torch.float64))
    record(benchmark, degree, torch.float64, "forward+backward")

    def step(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        p.grad = g.grad = None
        function(p, g).square().sum().backward()

    compare(benchmark, lambda: step(iso.ops.form_action), {"recurrence": lambda: step(recurrence)})


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_backward_against_horner(benchmark: Any, degree: int) -> None:
    p, g = (tensor.requires_grad_() for tensor in operands(degree, torch.float64))
    record(benchmark, degree, torch.float64, "forward+backward, against Horner's rule in torch")

    def step(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        p.grad = g.grad = None
        function(p, g).square().sum().backward()

    baselines = {name: lambda form=form: step(form) for name, form in forms_of_horner(degree).items()}
    compare(benchmark, lambda: step(iso.ops.form_action), baselines)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.benchmark(timer=TIMER, warmup=False)
def test_against_horner(benchmark: Any, degree: int) -> None:
    p, g = operands(degree, torch.float64)
    record(benchmark, degree, torch.float64, "forward, against Horner's rule in torch")
    forms = checked(p, g, forms_of_horner(degree))
    compare(benchmark, lambda: iso.ops.form_action(p, g), {name: lambda form=form: form(p, g) for name, form in forms.items()})
