"""Binary forms in plain torch, straight from the definitions: what the kernels compute, for tests and for reading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb, factorial

import torch
from torch import Tensor


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """The product of two forms (..., m+1) and (..., n+1)."""
    rows = [torch.nn.functional.pad(p[..., i : i + 1] * q, (i, p.shape[-1] - 1 - i)) for i in range(p.shape[-1])]
    return torch.stack(rows).sum(0)


def differentiate(p: Tensor, in_x: int, in_y: int) -> Tensor:
    """d_x^in_x d_y^in_y p, of a degree that is lower by in_x + in_y."""
    for _ in range(in_x):
        p = p[..., 1:] * torch.arange(1, p.shape[-1], dtype=p.dtype, device=p.device)
    for _ in range(in_y):
        p = p[..., :-1] * torch.arange(p.shape[-1] - 1, 0, -1, dtype=p.dtype, device=p.device)
    return p


def form_action(p: Tensor, g: Tensor) -> Tensor:
    """p(a x + b y, c x + e y): the sum of p_i times i factors (a x + b y) and d - i factors (c x + e y)."""
    degree = p.shape[-1] - 1
    first, second = g[..., 0, [1, 0]], g[..., 1, [1, 0]]  # a x + b y has the coefficients (b, a)
    total: Tensor | None = None
    for i in range(degree + 1):
        term = p[..., i : i + 1]
        for factor in [first] * i + [second] * (degree - i):
            term = multiply(term, factor)
        total = term if total is None else total + term
    assert total is not None
    return total


def transvectant(p: Tensor, q: Tensor, k: int) -> Tensor:
    """(m-k)! (n-k)! / (m! n!) sum_r (-1)^r C(k, r) [d_x^(k-r) d_y^r p] [d_x^r d_y^(k-r) q]"""
    m, n = p.shape[-1] - 1, q.shape[-1] - 1
    terms = [(-1) ** r * comb(k, r) * multiply(differentiate(p, k - r, r), differentiate(q, r, k - r)) for r in range(k + 1)]
    return torch.stack(terms).sum(0) * (factorial(m - k) * factorial(n - k) / (factorial(m) * factorial(n)))


def transvectants(f: Tensor, weight: Tensor, *, degrees: Sequence[int], paths: Sequence[tuple[int, int, int]]) -> Tensor:
    """Every path by itself: from scaled coordinates to monomial ones, the transvectant, back, and its part of the mix."""

    def roots(degree: int) -> Tensor:
        return torch.tensor([comb(degree, i) ** 0.5 for i in range(degree + 1)], dtype=f.dtype, device=f.device)

    forms = [form * roots(degree) for form, degree in zip(f.split([degree + 1 for degree in degrees], -1), degrees, strict=True)]
    sums: dict[int, Tensor] = {}
    for index, (s, t, k) in enumerate(paths):
        m, n = degrees[s], degrees[t]
        degree = m + n - 2 * k
        numerator = factorial(k) * factorial(m + n - k + 1) * factorial(m - k) * factorial(n - k)
        scale = numerator / (factorial(m) * factorial(n) * factorial(degree + 1))
        form = transvectant(forms[s], forms[t], k) / roots(degree) / scale**0.5
        term = torch.einsum("bcl,co->bol", form, weight[:, index])
        sums[degree] = sums[degree] + term if degree in sums else term
    return torch.cat(list(sums.values()), -1)


def max_det_gram(p: Tensor, steps: int = 200) -> Tensor:
    """The Gram matrix of largest determinant of one positive form (2 d + 1): damped Newton on min <p, y> - log det Hankel(y), in monomials.

    The Hessian is the coefficient of s^k t^l in Q(s, t)^2. It starts at the moments of a Gaussian and is good to degree 14 or so.
    """
    d = p.shape[0] // 2
    n = d + 1
    moments = [float(math.prod(range(1, k, 2)) * math.prod(range(1, 2 * d - k, 2))) if k % 2 == 0 else 0.0 for k in range(2 * d + 1)]
    y = torch.tensor(moments, dtype=p.dtype)
    y = y * n / (p @ y)
    for _ in range(steps):
        gram = torch.linalg.inv(y.unfold(0, n, 1))
        gradient, hessian = p.clone(), p.new_zeros(2 * d + 1, 2 * d + 1)
        for i in range(n):
            for j in range(n):
                gradient[i + j] -= gram[i, j]
                for k in range(n):
                    for m in range(n):
                        hessian[i + j, k + m] += gram[i, k] * gram[j, m]
        step = torch.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step) ** 0.5
        y = y - step * (1 if decrement < 0.25 else 1 / (1 + decrement))
        if decrement < 1e-9:
            break
    return torch.linalg.inv(y.unfold(0, n, 1))
