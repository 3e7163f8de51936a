"""Rigorous bounds of binary forms on the circle from samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from isotypic.ops import _circle
from isotypic.ops.gram import check_form


def circle_bounds(p: Tensor, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """Bounds (low, high) of forms of even degree 2d on the unit circle: low <= p(cos t, sin t) <= high for all t.

    A trigonometric polynomial of degree d satisfies max |f| <= max over samples |f| / cos(pi d / N) on N equidistant points. Applied to p
    minus the middle c of its samples, which deviate from it by at most r: c -+ r / cos(pi d / N). A positive low proves that p is
    positive, up to the rounding of the samples.

    Args:
        p: (..., 2 d + 1), float32 or float64.
        samples: N > 2 d; by default 64 (d + 1), which bounds to 0.12% of the range.

    Raises TypeError for other dtypes; ValueError for odd degree and too few samples.

    H. Ehlich, K. Zeller, "Schwankung von Polynomen zwischen Gitterpunkten", 1964.

    >>> low, high = circle_bounds(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0]))  # x^4 + y^4 lies between 1/2 and 1
    >>> bool(0.499 < low < 0.5) and bool(1 <= high < 1.001)
    True
    """
    d = check_form("circle_bounds", "p", p) // 2
    count = 64 * (d + 1) if samples is None else samples
    if count <= 2 * d:
        raise ValueError(f"circle_bounds: samples must be more than 2 d = {2 * d}, got {samples}")
    angles = np.pi * np.arange(count) / count
    values = p @ torch.from_numpy(_circle.monomials(2 * d, angles)).to(p).T
    low, high = values.aminmax(dim=-1)
    middle, reach = (low + high) / 2, (high - low) / 2 / math.cos(math.pi * d / count)
    return middle - reach, middle + reach
