"""The operators on multivectors in plain torch, by dense tables: what the kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isotypic._words import Algebra
from isotypic.ops.algebra.signature import algebra as signature

TABLES = ("geometric", "join")


def table(name: str, like: Tensor) -> Tensor:
    """``<algebra> <product>``, and for its adjoints in the first and the second factor ``... /x`` and ``... /y``: (16, 16, 16)."""
    algebra, product, *adjoint = name.split()
    dense = torch.as_tensor(getattr(signature(algebra), product), dtype=like.dtype, device=like.device)
    return dense if not adjoint else dense.permute(*((1, 0, 2) if adjoint == ["/x"] else (2, 0, 1)))


def product(a: Tensor, b: Tensor, scale: Tensor | None, name: str) -> Tensor:
    """scale sum_jk table_ijk a_j b_k on the last axis."""
    result = torch.einsum("ijk,...j,...k->...i", table(name, a), a, b)
    return result if scale is None else result * scale.unsqueeze(-1)


def geometric_product(x: Tensor, y: Tensor, algebra: Algebra = "pga") -> Tensor:
    return product(x, y, None, f"{algebra} geometric")


def equi_join(x: Tensor, y: Tensor, reference: Tensor) -> Tensor:
    return product(x, y, None, "pga join") * reference[..., 14:15]


def multivector_linear(x: Tensor, weight: Tensor, shift: Tensor | None = None, algebra: Algebra = "pga") -> Tensor:
    """sum_ca weight[o, c, a] maps[a] x[c], with the dense maps; shift is added to the components through which scalars enter."""
    known = signature(algebra)
    maps = torch.as_tensor(known.linear[: weight.shape[-1]], dtype=x.dtype, device=x.device)
    y = torch.einsum("oca,aij,...cj->...oi", weight, maps, x)
    return y if shift is None else y + spread(shift, known.scalars[: shift.shape[-1]])


def spread(shift: Tensor, components: Sequence[int]) -> Tensor:
    """(..., len(components)) into those components of a multivector."""
    columns = [shift.new_zeros(shift.shape[:-1]) for _ in range(16)]
    for place, component in enumerate(components):
        columns[component] = shift[..., place]
    return torch.stack(columns, -1)
