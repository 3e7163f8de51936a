"""What `embed` has put in, out of multivectors (..., 16) again."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic.pga.embed import check


def _divisor(homogeneous: Tensor, threshold: float) -> Tensor:
    """The number moved away from zero to the threshold, with its sign kept; zero counts as positive."""
    bound = torch.where(homogeneous < 0, -threshold, threshold).to(homogeneous.dtype)
    return torch.where(homogeneous.abs() < threshold, bound, homogeneous)


def extract_point(x: Tensor, threshold: float = 1e-3) -> Tensor:
    """(..., 3): the position of the trivector part, (-x13, x12, -x11) / x14.

    A point with a negative homogeneous part is the same point. Where the part is smaller than the threshold in size, it is taken for the
    threshold with its sign (that of zero is positive), so that directions and noise come out finite.

    >>> import torch
    >>> x = torch.zeros(16); x[13], x[14] = 4.0, -2.0
    >>> extract_point(x)
    tensor([2., -0., 0.])
    """
    parts = torch.stack([-check("extract_point", "x", x, 16)[..., 13], x[..., 12], -x[..., 11]], -1)
    return parts / _divisor(x[..., 14:15], threshold)


def extract_direction(x: Tensor) -> Tensor:
    """(..., 3): the direction of the trivector part of x (..., 16), without a division."""
    check("extract_direction", "x", x, 16)
    return torch.stack([-x[..., 13], x[..., 12], -x[..., 11]], -1)


def extract_plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """Normal (..., 3) of length 1 and distance (..., 1) from the origin along it, of the vector part; zeros where that has no normal.

    >>> import torch
    >>> x = torch.zeros(16); x[1], x[4] = -4.0, 2.0
    >>> extract_plane(x)
    (tensor([0., 0., 1.]), tensor([2.]))
    """
    check("extract_plane", "x", x, 16)
    length = torch.linalg.vector_norm(x[..., 2:5], dim=-1, keepdim=True)
    inverse = torch.where(length > 0, 1 / torch.where(length > 0, length, 1.0), 0.0)
    return x[..., 2:5] * inverse, -x[..., 1:2] * inverse


def extract_reflection(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of x (..., 16), the normal (..., 3) of length 1 and a point (..., 3) of the mirror, the one nearest to the origin."""
    normal, distance = extract_plane(x)
    return normal, normal * distance


def extract_rotation(x: Tensor) -> Tensor:
    """(..., 4): the quaternion (i, j, k, w) of an even versor x (..., 16), not normalised."""
    check("extract_rotation", "x", x, 16)
    return torch.stack([-x[..., 10], x[..., 9], -x[..., 8], x[..., 0]], -1)


def extract_translation(x: Tensor, threshold: float = 1e-3) -> Tensor:
    """(..., 3): -2 (x5, x6, x7) / x0 of x (..., 16), with the divisor kept away from zero by the threshold, as in `extract_point`."""
    check("extract_translation", "x", x, 16)
    return -2 * x[..., 5:8] / _divisor(x[..., 0:1], threshold)


def extract_scalar(x: Tensor) -> Tensor:
    """(..., 1): the scalar part of x (..., 16)."""
    return check("extract_scalar", "x", x, 16)[..., 0:1]


def extract_pseudoscalar(x: Tensor) -> Tensor:
    """(..., 1): the pseudoscalar part of x (..., 16)."""
    return check("extract_pseudoscalar", "x", x, 16)[..., 15:16]
