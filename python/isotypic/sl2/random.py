"""Random elements of SL(2, R)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from isotypic.ops._checks import is_integer


def random_sl2(
    size: Sequence[int] = (),
    *,
    max_condition: float = math.inf,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Random 2x2 matrices of determinant 1: Gaussian ones divided by their determinant's root, given that the condition number is bounded.

    No matrix is rejected. A Gaussian matrix is R(s) diag(sigma_1, sigma_2) R(t) with uniform angles, and the sine of the angle 2 phi,
    tan phi = sigma_2 / sigma_1, is uniform on (0, 1); so is it on [2 c / (1 + c^2), 1] given that sigma_1 / sigma_2 <= c.

    Args:
        size: the batch; the result has shape (*size, 2, 2).
        max_condition: bound on sigma_1 / sigma_2, at least 1 (rotations).
        generator: of the random numbers, on `device`.
        dtype: float32 or float64, by default torch's.
        device: of the result.

    Raises ValueError for a bound below 1 and for sizes below 0, TypeError for other dtypes, a size that is no sequence and a bound that is
    no number.

    H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.

    >>> g = random_sl2((100,), max_condition=2.0, dtype=torch.float64)
    >>> bool((torch.linalg.det(g) - 1).abs().max() < 1e-14) and bool((torch.linalg.cond(g) < 2 + 1e-12).all())
    True
    """
    dtype = dtype or torch.get_default_dtype()
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"random_sl2: dtype must be torch.float32 or torch.float64, got {dtype}")
    if isinstance(size, str) or not isinstance(size, Sequence):
        raise TypeError(f"random_sl2: size must be a sequence of integers, got {size!r}")
    if any(not is_integer(n) or n < 0 for n in size):
        raise ValueError(f"random_sl2: size must hold integers of at least 0, got {size!r}")
    if isinstance(max_condition, bool) or not isinstance(max_condition, (int, float, np.integer, np.floating)):
        raise TypeError(f"random_sl2: max_condition must be a number, got {max_condition!r}")
    if not max_condition >= 1:
        raise ValueError(f"random_sl2: max_condition must be at least 1, got {max_condition!r}")
    least = 0.0 if math.isinf(max_condition) else 2 / (max_condition + 1 / max_condition)
    first, second, uniform = torch.rand((3, *size), generator=generator, dtype=torch.float64, device=device)
    sine = 1 - (1 - least) * uniform  # in (least, 1]
    # tan phi from sin 2 phi, written without cancellation.
    tangent = sine / (1 + ((1 - sine) * (1 + sine)).sqrt())
    stretch = tangent.rsqrt()
    left, right = 2 * math.pi * first, 2 * math.pi * second
    rotations = [torch.stack([torch.stack([t.cos(), -t.sin()], -1), torch.stack([t.sin(), t.cos()], -1)], -2) for t in (left, right)]
    squeeze = torch.stack([stretch, 1 / stretch], -1)
    return (rotations[0] @ (squeeze[..., None] * rotations[1])).to(dtype)
