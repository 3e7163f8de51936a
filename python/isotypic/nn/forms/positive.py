"""Polynomials that are positive on a domain because of how they are written: as sums of squares with multipliers."""

from __future__ import annotations

import math
from math import comb, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.polynomial import Chebyshev, Polynomial
from torch import Tensor

from isotypic._constants import Constants
from isotypic.nn._arguments import check_tensor
from isotypic.ops._checks import is_integer

LARGEST = 40
DECADES, STEPS, HALVES, GAP = 13, 50, 20, 1e-11
"""Of the weight of the projection's barrier, and steps of Newton's method for each weight, and halves of a step, at most; the
largest square of the error that is handed out, for |p| = 1."""


class PositivePolynomial(Constants):
    """Maps unconstrained numbers, parameters or what a network ends with, to coefficients of polynomials that are positive on a domain.

    p = sum over the parts of m(t) b(t)^T L L^T b(t), with L lower triangular and its diagonal made positive by softplus. Each polynomial
    that is positive on the domain is reached (Lukacs on an interval, Fejer and Riesz on the circle). By domain, with d = degree // 2:

    - None: forms of even degree, m = 1, b = (sqrt(C(d, k)) x^k y^(d - k)). `(None, None)`, the line, is the same with y = 1.
    - `(low, None)`, `(None, high)`: m = 1 and t - low (or high - t), b = (sqrt(C(n, k)) t^k) up to the degree that there is room for.
    - `(low, high)`: m = 1 and (t - low)(high - t) for even degree, t - low and high - t for odd, b = Chebyshev polynomials of the interval.
    - "circle": trigonometric polynomials r_0 + 2 sum_k r_k cos(k s); r_k is the sum of a diagonal of L L^T.

    Args:
        degree: of the polynomials, up to 40.
        domain: None, a pair or "circle", as for `sl2.certify`.

    Input: (..., in_features), the entries of the lower triangles, float32 or float64; zeros give a polynomial without preference.
    Output: (..., degree + 1), coefficients of t^k (of x^k y^(degree - k), of r_k), index k.
    Raises ValueError for odd degree on a domain where no polynomial of odd degree is positive, for an empty domain and for wrong shapes;
    TypeError for other dtypes.

    >>> layer = PositivePolynomial(3, domain=(0, 1))
    >>> p = layer(torch.randn(100, layer.in_features))
    >>> t = torch.linspace(0, 1, 20)
    >>> bool(((p[:, None] * t[:, None] ** torch.arange(4)).sum(-1) > 0).all())
    True
    """

    def __init__(self, degree: int, domain: Any = None) -> None:
        if not is_integer(degree) or not 0 <= degree <= LARGEST:
            raise ValueError(f"PositivePolynomial: degree must be an integer between 0 and {LARGEST}, got {degree!r}")
        parts = _parts(degree, domain)
        self.sizes = [part.shape[1] for part in parts]
        self.in_features = sum(n * (n + 1) // 2 for n in self.sizes)
        flat = np.concatenate([part.reshape(degree + 1, -1) for part in parts], -1)
        inside = _evaluations(degree, domain).mean(0)
        super().__init__({"table": flat, "inside": inside / np.linalg.norm(inside)}, torch.float64)
        self.degree, self.domain = degree, domain

    table: Tensor
    """(degree + 1, sum of n^2): the coefficients of m b_i b_j, part by part."""
    inside: Tensor
    """(degree + 1): moments of a measure on the domain, inside of the dual cone."""

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_features, "in_features")
        entries, grams = x.split([n * (n + 1) // 2 for n in self.sizes], -1), []
        for part, n in zip(entries, self.sizes, strict=True):
            rows, columns = torch.tril_indices(n, n, device=x.device)
            values = torch.where(rows == columns, F.softplus(part), part)
            factor = x.new_zeros(*x.shape[:-1], n * n).index_copy(-1, rows * n + columns, values).unflatten(-1, (n, n))
            grams.append((factor @ factor.mT).flatten(-2))
        return torch.cat(grams, -1) @ self.table.to(x.dtype).mT

    if TYPE_CHECKING:
        __call__ = forward

    @torch.no_grad()
    def project(self, p: Tensor) -> Tensor:
        """The nearest nonnegative polynomials to given ones: the least |q - p| over sums of squares q.

        q - p lies in the dual cone, the y whose matrices M(y) = sum_k y_k (coefficients of t^k in m b b^T) are positive semidefinite; it is
        the nearest such y to -p. Newton's method with the barrier -mu log det M(y), in degree + 1 variables, gives
        q = mu sum over the parts of <M(y)^-1, m b b^T>, which is positive for every mu > 0.

        Args:
            p: (..., degree + 1), float32 or float64.

        Returns: (..., degree + 1), off by 3e-6 of |p| at most; it touches zero, nearly, where p was not positive, and has no derivatives.
        Raises as the layer does; ValueError for what is not finite; RuntimeError for rows that float64 is too coarse for, which happens at
        high degrees and where powers of points of the domain are far apart.

        Y. Nesterov, "Squared functional systems and optimization problems", 2000.
        """
        self._check(p, self.degree + 1, "degree + 1")
        if not bool(p.isfinite().all()):
            raise ValueError("PositivePolynomial: what is projected must be finite")
        rows = p.reshape(-1, self.degree + 1).double()
        largest = rows.abs().amax(-1, keepdim=True)
        rows = rows / torch.where(largest > 0, largest, 1)
        size = rows.norm(dim=-1, keepdim=True).clamp_min(1)  # 0 or at least 1
        rows = rows / size
        y = self.inside.expand_as(rows).clone()
        active = self._dual_factors(y)[1][:, None]
        best = y
        for exponent in range(2 * DECADES + 1):
            weight = 10.0 ** (-exponent / 2)
            for _ in range(STEPS):
                # The Hessian is A^T A, of condition 1 / weight, which is too large for its own factor, and not for that of A.
                gradient = (y + rows) / weight
                sides = [torch.eye(self.degree + 1, dtype=y.dtype, device=y.device).expand(len(y), -1, -1) / weight**0.5]
                for table, factor in zip(self._tables(), self._dual_factors(y)[0], strict=True):
                    half = torch.linalg.solve_triangular(factor[:, None], table, upper=False)  # L^-1 T_k
                    inner = torch.linalg.solve_triangular(factor[:, None], half.mT, upper=False)  # L^-1 T_k L^-T
                    gradient = gradient - inner.diagonal(dim1=-2, dim2=-1).sum(-1)
                    sides.append(inner.flatten(2).mT)
                root = torch.linalg.qr(torch.cat(sides, 1), mode="r")[1]
                newton = torch.linalg.solve_triangular(root.mT, gradient[..., None], upper=False)
                decrement, step = newton.norm(dim=1), torch.linalg.solve_triangular(root, newton, upper=True)[..., 0]
                step = step * torch.where(decrement < 0.25, 1, 1 / (1 + decrement))
                inside = self._dual_factors(y - step)[1][:, None]  # not so by rounding alone
                for _ in range(HALVES):
                    if bool((inside | ~active).all()):
                        break
                    step = torch.where(inside, step, step / 2)
                    inside = self._dual_factors(y - step)[1][:, None]
                active = active & inside
                y = torch.where(active, y - step, y)
                if bool((~active | (decrement < 1e-3)).all()):
                    break
            # With a decrement below 1, q is in its cone as y is in the dual one: |q - the nearest|^2 <= <y, q>, about weight * sum of n.
            best = torch.where(active & (decrement < 0.5), y, best)
        reached = (best * (best + rows)).sum(-1, keepdim=True).abs() < GAP
        if not bool(reached.all()):
            failed = (~reached[:, 0]).nonzero()[:, 0].tolist()
            raise RuntimeError(
                f"PositivePolynomial: float64 is too coarse for the projection of {len(failed)} of {len(rows)} rows ({failed[0]} first) "
                f"at degree {self.degree} on domain {self.domain!r}; use a lower degree, or a variable in which the domain is near (-1, 1)"
            )
        return ((best + rows) * size * largest).to(p.dtype).reshape(p.shape)

    def _tables(self) -> list[Tensor]:
        """(degree + 1, n, n) for each part."""
        return [part.unflatten(-1, (n, n)) for part, n in zip(self.table.split([n * n for n in self.sizes], -1), self.sizes, strict=True)]

    def _dual_factors(self, y: Tensor) -> tuple[list[Tensor], Tensor]:
        """The Cholesky factors of M(y), part by part, and which rows of y have them all."""
        pairs = [torch.linalg.cholesky_ex(torch.einsum("bk,kij->bij", y, table)) for table in self._tables()]
        failed = torch.stack([info for _, info in pairs])
        return [factor for factor, _ in pairs], (failed == 0).all(0)

    def _check(self, x: Tensor, size: int, name: str) -> None:
        check_tensor("PositivePolynomial", "input", x)
        if x.dim() < 1 or x.shape[-1] != size:
            raise ValueError(f"PositivePolynomial: input must have shape (..., {name} = {size}), got {tuple(x.shape)}")
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"PositivePolynomial: input must have dtype float32 or float64, got {x.dtype}")

    def extra_repr(self) -> str:
        return f"degree={self.degree}, domain={self.domain!r}, in_features={self.in_features}"


def _parts(degree: int, domain: Any) -> list[np.ndarray]:
    """(degree + 1, n, n) for each part: the coefficients of m b_i b_j."""
    if isinstance(domain, str) and domain == "circle":
        lags = np.abs(np.subtract.outer(np.arange(degree + 1), np.arange(degree + 1)))
        return [np.stack([(lags == k) / (1.0 if k == 0 else 2.0) for k in range(degree + 1)])]
    low, high = _ends(domain)
    t = Polynomial([0, 1])
    if low is None and high is None:
        if degree % 2:
            raise ValueError(f"PositivePolynomial: degree must be even on domain {domain!r}, got {degree}: odd degree takes both signs")
        return [_products(Polynomial([1]), _powers(degree // 2, t), degree)]
    if low is None or high is None:
        if low is not None:
            away = t - low
        else:
            assert high is not None
            away = high - t
        parts = [_products(Polynomial([1]), _powers(degree // 2, away), degree)]
        return [*parts, _products(away, _powers((degree - 1) // 2, away), degree)] if degree else parts
    left, right = t - low, high - t
    if degree % 2:
        return [_products(m, _chebyshev(degree // 2, low, high), degree) for m in (left, right)]
    parts = [_products(Polynomial([1]), _chebyshev(degree // 2, low, high), degree)]
    return [*parts, _products(left * right, _chebyshev(degree // 2 - 1, low, high), degree)] if degree else parts


def _evaluations(degree: int, domain: Any) -> np.ndarray:
    """(points, degree + 1): what coefficients are multiplied by at more points inside of the domain than a polynomial can have zeros."""
    k, spread = np.arange(degree + 1), (np.arange(2 * degree + 3) + 0.5) / (2 * degree + 3)
    if isinstance(domain, str):
        return np.where(k == 0, 1.0, 2.0) * np.cos(np.outer(2 * np.pi * spread, k))
    low, high = _ends(domain)
    if low is None and high is None:
        x, y = np.sin(np.pi * spread)[:, None], np.cos(np.pi * spread)[:, None]
        return x**k * y ** (degree - k)
    if low is not None and high is not None:
        points = low + (high - low) * np.sin(np.pi * spread / 2) ** 2
    else:
        away = np.tan(np.pi * spread / 2) ** 2
        points = low + away if low is not None else high - away
    return points[:, None] ** k / np.maximum(1, np.abs(points))[:, None] ** degree


def _ends(domain: Any) -> tuple[float | None, float | None]:
    if domain is None:
        return None, None
    try:
        low, high = (None if end is None else float(end) for end in (() if isinstance(domain, str) else domain))
    except (TypeError, ValueError):
        raise ValueError(f'PositivePolynomial: domain must be None, a pair (low, high) or "circle", got {domain!r}') from None
    low, high = None if low == -math.inf else low, None if high == math.inf else high
    if not all(end is None or math.isfinite(end) for end in (low, high)):
        raise ValueError(f"PositivePolynomial: domain must have low < high, got {domain!r}")
    if low is not None and high is not None and not low < high:
        raise ValueError(f"PositivePolynomial: domain must have low < high, got {domain!r}")
    return low, high


def _powers(d: int, t: Polynomial) -> list[Polynomial]:
    return [sqrt(comb(d, k)) * t**k for k in range(d + 1)]


def _chebyshev(d: int, low: float, high: float) -> list[Polynomial]:
    return [Chebyshev.basis(k, domain=[low, high]).convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1]) for k in range(d + 1)]


def _products(multiplier: Polynomial, basis: list[Polynomial], degree: int) -> np.ndarray:
    table = np.zeros((degree + 1, len(basis), len(basis)))
    for i, a in enumerate(basis):
        for j, b in enumerate(basis):
            coefficients = (multiplier * a * b).coef
            table[: len(coefficients), i, j] = coefficients
    return table
