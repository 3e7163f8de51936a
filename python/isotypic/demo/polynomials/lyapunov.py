"""Stability of a planar polynomial system, proved by a Lyapunov function that Newton's method finds through `max_det_gram`.

For z' = f(z) with f homogeneous of odd degree, a form V > 0 with -grad V . f > 0 proves that the origin is globally asymptotically stable.
Both conditions are positivity of binary forms, and -log det of the Gram of largest determinant is a smooth convex barrier of the positive
forms. So we minimise s + mu (barrier(V) + barrier(-grad V . f + s (x^2 + y^2)^k)) until s < 0, with exact gradients and Hessians, and
verify V and -grad V . f in rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import Any

import torch
from torch import Tensor

from isotypic import ops, sl2

# x' = -x^3 - x y^2 + 8 y^3, y' = -2 x^3 - x^2 y - y^3, coefficients of x^k y^(3-k). x^2 + y^2 grows along x = y: no quadratic V of that
# shape.
SYSTEM = ((8.0, -1.0, 0.0, -1.0), (-1.0, 0.0, -1.0, -2.0))


def multiply(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    product = [0 * a[0] * b[0]] * (len(a) + len(b) - 1)
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            product[i + j] = product[i + j] + left * right
    return product


def decrease(v: Sequence[Any], system: Sequence[Sequence[Any]]) -> list[Any]:
    """-grad V . f, coefficients of x^k y^(degree - k); for floats, fractions and 0-dimensional tensors alike."""
    degree = len(v) - 1
    by_x = [(k + 1) * v[k + 1] for k in range(degree)]
    by_y = [(degree - k) * v[k] for k in range(degree)]
    return [-(a + b) for a, b in zip(multiply(by_x, system[0]), multiply(by_y, system[1]), strict=True)]


def round_form(degree: int) -> Tensor:
    """(x^2 + y^2)^(degree / 2)."""
    return torch.tensor([float(comb(degree // 2, k // 2)) if k % 2 == 0 else 0.0 for k in range(degree + 1)], dtype=torch.float64)


def objective(variables: Tensor, matrix: Tensor, fixed: Tensor, weight: float) -> Tensor:
    """variables: the coefficients of V but that of x^degree, which is 1, and s."""
    v = torch.cat([variables[:-1], fixed])
    degree = matrix.shape[0] - 1
    total = variables[-1]
    for form in (v, matrix @ v + variables[-1] * round_form(degree)):
        result = ops.max_det_gram(form)
        logarithm = torch.logdet(result.gram + torch.where(result.status == 0, 0.0, 1.0) * torch.eye(result.gram.shape[-1], dtype=v.dtype))
        total = total - weight * torch.where(result.status == 0, logarithm, -torch.inf)
    return total


def find(degree: int = 4, system: Sequence[Sequence[float]] = SYSTEM, steps: int = 60) -> dict[str, Any]:
    """A Lyapunov form of an even degree; `verified` says whether V > 0 and -grad V . f > 0 hold in rational arithmetic."""
    matrix = torch.stack([torch.tensor(decrease(row, system), dtype=torch.float64) for row in torch.eye(degree + 1).tolist()], -1)
    v = round_form(degree)
    fixed = v[-1:]
    least = float((matrix @ v @ _circle(matrix.shape[0] - 1)).min())
    variables = torch.cat([v[:-1], torch.tensor([1.0 - 2 * min(least, 0.0)], dtype=torch.float64)])
    weight, history = 1.0, []
    for _ in range(steps):
        if float(variables[-1]) < -0.05:
            break

        def value(z: Tensor, weight: float = weight) -> Tensor:
            return objective(z, matrix, fixed, weight)

        gradient, hessian = torch.func.grad(value)(variables), torch.func.hessian(value)(variables)
        step = torch.linalg.solve(hessian, gradient)
        length, now = 1.0, value(variables)
        while length > 1e-8 and not float(value(variables - length * step)) < float(now - 0.1 * length * gradient @ step):
            length /= 2
        variables = variables - length * step
        history.append(float(variables[-1]))
        if float(gradient @ step) < weight / 4:
            weight /= 4
    found = torch.cat([variables[:-1], fixed]).tolist()
    exact = [Fraction(value) for value in found]
    falling = decrease(exact, [[Fraction(value) for value in row] for row in system])
    grams = [ops.max_det_gram(torch.tensor([float(value) for value in form], dtype=torch.float64)).gram for form in (exact, falling)]
    verified = all(sl2.certify_positive(form, sl2.rational_gram(form, gram)) for form, gram in zip((exact, falling), grams, strict=True))
    return {"v": found, "decrease": [float(value) for value in falling], "margins": history, "verified": verified}


def _circle(degree: int) -> Tensor:
    """(degree + 1, 256): the monomials on the circle."""
    angle = torch.arange(256, dtype=torch.float64) * torch.pi / 256
    k = torch.arange(degree + 1)[:, None]
    return angle.cos() ** k * angle.sin() ** (degree - k)
