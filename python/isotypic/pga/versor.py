"""The action of versors."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._words import Algebra
from isotypic.ops.algebra import _arguments


def sandwich(versor: Tensor, x: Tensor, algebra: Algebra = "pga") -> Tensor:
    """The action of a versor on a multivector, u x u^-1 for an even one and u x* u^-1 for an odd one, x* = (-1)^grade x.

    An element of E(3) is a versor of G(3,0,1): `embed_rotation`, `embed_translation`, `embed_reflection` and geometric products of them.
    Whether one is odd is read off the norm of its odd part.

    Args:
        versor: (..., 16), of any nonzero norm; the batch may hold even and odd ones.
        x: (..., 16), of the dtype of versor. The batch axes broadcast.
        algebra: "pga" or "sta".

    Returns: (..., 16). Raises: as `ops.geometric_product`.

    >>> import torch
    >>> from isotypic import pga
    >>> move = pga.embed_translation(torch.tensor([1.0, 0.0, 0.0]))
    >>> pga.extract_point(sandwich(move, pga.embed_point(torch.tensor([0.0, 5.0, 2.0]))))
    tensor([1., 5., 2.])
    """
    known = _arguments.resolve("sandwich", algebra)
    _arguments.check_multivectors("sandwich", versor=versor, x=x)

    def signs(values: object) -> Tensor:
        return torch.as_tensor(values, dtype=versor.dtype, device=versor.device)

    involution = signs(known.involution)
    odd_part = (1 - involution) / 2
    odd = (versor.square() * (2 * odd_part - 1)).sum(-1, keepdim=True) > 0
    reverse = versor * signs(known.reversal)
    norm = ops.geometric_product(versor, reverse, algebra)[..., :1]
    moved = torch.where(odd, x * involution, x)
    return ops.geometric_product(ops.geometric_product(versor, moved, algebra), reverse / norm, algebra)
