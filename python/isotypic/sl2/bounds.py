"""Rigorous bounds of binary forms on the circle from samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from isotypic.ops._checks import is_integer
from isotypic.ops.forms import circle
from isotypic.ops.forms.gram import check_form


def circle_bounds(p: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """Bounds (low, high) of forms of even degree 2d on the unit circle: low <= p(cos t, sin t) <= high for all t.

    A trigonometric polynomial of degree d satisfies max |f| <= max over samples |f| / cos(pi d / N) on N equidistant points. Applied to p
    minus the middle c of its samples, which deviate from it by at most r: c -+ r / cos(pi d / N). A bound of the rounding errors of the
    samples is added to r, so that a positive low proves that p is positive.

    Args:
        p: (..., 2 d + 1), float32 or float64. Forms whose coefficients or samples are not finite have the bounds -inf and inf.
        samples: N > 2 d; by default 64 (d + 1), which bounds to 0.12% of the range.

    Raises TypeError for other dtypes; ValueError for odd degree and too few samples.

    H. Ehlich, K. Zeller, "Schwankung von Polynomen zwischen Gitterpunkten", 1964.

    >>> low, high = circle_bounds(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0]))  # x^4 + y^4 lies between 1/2 and 1
    >>> bool(0.499 < low < 0.5) and bool(1 <= high < 1.001)
    True
    """
    d = check_form("circle_bounds", "p", p) // 2
    count = 64 * (d + 1) if samples is None else samples
    if not is_integer(count) or count <= 2 * d:
        raise ValueError(f"circle_bounds: samples must be more than 2 d = {2 * d}, an integer, got {samples!r}")
    angles = np.pi * np.arange(count) / count
    monomials = torch.from_numpy(circle.monomials(2 * d, angles)).to(p).T
    values = p @ monomials
    # Sums and powers round relative to their terms; a node is off by a rounding, which moves a monomial by at most 2 d of it.
    nearby = torch.from_numpy(_nearby(2 * d, angles)).to(p).T
    error = 4 * torch.finfo(p.dtype).eps * (p.abs() @ ((2 * d + 4) * monomials.abs() + nearby)).amax(-1)
    low, high = values.aminmax(dim=-1)
    reach = ((high / 2 - low / 2) + error) / math.cos(math.pi * d / count) + error
    middle = low / 2 + high / 2
    low, high = middle - reach, middle + reach
    finite = low.isfinite() & high.isfinite()
    return torch.where(finite, low, -math.inf), torch.where(finite, high, math.inf)


def _nearby(degree: int, angles: np.ndarray) -> np.ndarray:
    """(nodes, degree + 1): k |x|^(k - 1) |y|^(degree - k) + (degree - k) |x|^k |y|^(degree - k - 1), how much a monomial can move."""
    if degree == 0:
        return np.zeros((len(angles), 1))
    k = np.arange(degree + 1)
    lower = np.abs(circle.monomials(degree - 1, angles))
    return k * np.pad(lower, ((0, 0), (1, 0))) + (degree - k) * np.pad(lower, ((0, 0), (0, 1)))
