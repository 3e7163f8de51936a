"""Points, directions, planes, scalars and Euclidean maps as multivectors, (..., 16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check(function: str, name: str, value: Any, size: int) -> Tensor:
    """A floating-point tensor (..., size)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{function}: {name} must be of a floating-point dtype, got {value.dtype}")
    if value.dim() < 1 or value.shape[-1] != size:
        raise ValueError(f"{function}: {name} must have shape (..., {size}), got {tuple(value.shape)}")
    return value


def _multivector(like: Tensor, components: Mapping[int, Tensor | float]) -> Tensor:
    """(..., 16) from some components, with the batch and dtype of like (...,)."""
    columns = []
    for i in range(16):
        value = components.get(i, 0.0)
        columns.append(value if isinstance(value, Tensor) else torch.full_like(like, value))
    return torch.stack(columns, -1)


def embed_point(position: Tensor) -> Tensor:
    """The point at position (..., 3), in units of length: the trivector e123 - x e023 + y e013 - z e012.

    >>> import torch
    >>> extract_point = __import__("isotypic").pga.extract_point
    >>> extract_point(embed_point(torch.tensor([1.0, 2.0, 3.0])))
    tensor([1., 2., 3.])
    """
    x, y, z = check("embed_point", "position", position, 3).unbind(-1)
    return _multivector(x, {11: -z, 12: y, 13: -x, 14: 1.0})


def embed_direction(direction: Tensor) -> Tensor:
    """The direction (..., 3), a point at infinity: it turns with rotations and does not move with translations.

    >>> import torch
    >>> embed_direction(torch.tensor([1.0, 0.0, 0.0]))[13]
    tensor(-1.)
    """
    x, y, z = check("embed_direction", "direction", direction, 3).unbind(-1)
    return _multivector(x, {11: -z, 12: y, 13: -x})


def embed_plane(normal: Tensor, point: Tensor) -> Tensor:
    """The plane through point (..., 3) with normal (..., 3): the vector n1 e1 + n2 e2 + n3 e3 - (n . p) e0. It is not normalised.

    >>> import torch
    >>> embed_plane(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([5.0, 5.0, 2.0]))[1]  # z = 2
    tensor(-2.)
    """
    normal, point = torch.broadcast_tensors(check("embed_plane", "normal", normal, 3), check("embed_plane", "point", point, 3))
    x, y, z = normal.unbind(-1)
    return _multivector(x, {1: -(normal * point).sum(-1), 2: x, 3: y, 4: z})


def embed_reflection(normal: Tensor, point: Tensor) -> Tensor:
    """The reflection in the plane through point (..., 3) with normal (..., 3), an odd versor; the normal is made a unit vector.

    Raises ValueError for a normal of length 0, which is no plane.

    >>> import torch
    >>> embed_reflection(torch.tensor([0.0, 0.0, 2.0]), torch.zeros(3))[4]
    tensor(1.)
    """
    length = torch.linalg.vector_norm(check("embed_reflection", "normal", normal, 3), dim=-1, keepdim=True)
    if not torch.compiler.is_compiling() and length.device.type == "cpu" and bool((length == 0).any()):
        raise ValueError("embed_reflection: normal must not be zero, got one of length 0")
    return embed_plane(normal / length, point)


def embed_rotation(quaternion: Tensor) -> Tensor:
    """The rotation of a quaternion (..., 4) in the order (i, j, k, w), Hamilton's convention, an even versor: w - k e12 + j e13 - i e23.

    >>> import torch
    >>> embed_rotation(torch.tensor([0.0, 0.0, 0.0, 1.0]))[0]
    tensor(1.)
    """
    i, j, k, w = check("embed_rotation", "quaternion", quaternion, 4).unbind(-1)
    return _multivector(i, {0: w, 8: -k, 9: j, 10: -i})


def embed_translation(shift: Tensor) -> Tensor:
    """The translation by shift (..., 3), an even versor: 1 - (x e01 + y e02 + z e03) / 2.

    >>> import torch
    >>> embed_translation(torch.tensor([2.0, 0.0, 0.0]))[5]
    tensor(-1.)
    """
    x, y, z = check("embed_translation", "shift", shift, 3).unbind(-1)
    return _multivector(x, {0: 1.0, 5: -x / 2, 6: -y / 2, 7: -z / 2})


def embed_scalar(scalar: Tensor) -> Tensor:
    """A scalar (..., 1), unchanged by every Euclidean map.

    >>> import torch
    >>> embed_scalar(torch.tensor([3.0]))[0]
    tensor(3.)
    """
    value = check("embed_scalar", "scalar", scalar, 1)[..., 0]
    return _multivector(value, {0: value})


def embed_pseudoscalar(pseudoscalar: Tensor) -> Tensor:
    """A pseudoscalar (..., 1), which changes its sign with mirrors.

    >>> import torch
    >>> embed_pseudoscalar(torch.tensor([3.0]))[15]
    tensor(3.)
    """
    value = check("embed_pseudoscalar", "pseudoscalar", pseudoscalar, 1)[..., 0]
    return _multivector(value, {15: value})
