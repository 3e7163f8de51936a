"""Random elements of the groups of geometric algebras."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops, pga
from isotypic._words import Algebra
from isotypic.ops._checks import DTYPES, is_integer
from isotypic.ops.algebra._arguments import resolve


def random_versor(
    *shape: int,
    dtype: torch.dtype | None = None,
    mirrors: bool = True,
    algebra: Algebra = "pga",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random versors (*shape, 16), for `pga.sandwich`.

    "pga": elements of E(3), a rotation, uniform, after a translation, normal with deviation 1; with `mirrors` about half of them after a
    reflection too. "sta": proper orthochronous Lorentz transformations, moderate boosts and rotations; with `mirrors` about half of them
    after the reflection of a direction of space.

    Args:
        shape: of the batch, integers one by one.
        dtype: by default torch's own.
        mirrors: with reflections among them.
        algebra: "pga" or "sta".
        generator: of the random numbers.

    Raises ValueError for sizes that are none and unknown algebras; TypeError for a dtype that is no supported floating-point one.

    >>> random_versor(4, mirrors=False)[:, 1:5].any()  # even
    tensor(False)
    """

    def normal(*last: int) -> Tensor:
        return torch.randn(*shape, *last, dtype=dtype, generator=generator)

    resolve("random_versor", algebra)
    for size in shape:
        if not is_integer(size) or size < 0:
            raise ValueError(f"random_versor: shape must be integers of at least 0, one by one, got {size!r}")
    if dtype is not None and dtype not in DTYPES:
        raise TypeError(f"random_versor: dtype must be a supported floating-point dtype, got {dtype}")
    if algebra == "pga":
        quaternion = torch.nn.functional.normalize(normal(4), dim=-1)
        versor = ops.geometric_product(pga.embed_rotation(quaternion), pga.embed_translation(normal(3)))
        mirror = pga.embed_reflection(normal(3), normal(3))
    else:

        def vector(time: Tensor, space: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(time), time, space, *[torch.zeros_like(time)] * 11], -1)

        def of_time() -> Tensor:
            return vector(torch.ones_like(normal(1)), 0.3 * normal(3).tanh())

        def of_space() -> Tensor:
            return vector(0.3 * normal(1).tanh(), torch.nn.functional.normalize(normal(3), dim=-1))

        boost = ops.geometric_product(of_time(), of_time(), algebra)
        versor = ops.geometric_product(boost, ops.geometric_product(of_space(), of_space(), algebra), algebra)
        mirror = vector(torch.zeros_like(normal(1)), torch.nn.functional.normalize(normal(3), dim=-1))
    if not mirrors:
        return versor
    odd = torch.rand(*shape, 1, generator=generator) < 0.5
    return torch.where(odd, ops.geometric_product(versor, mirror, algebra), versor)
