"""Channel mixing of weights with terms added to rows, columns and blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from isotypic.ops import reference_weights as reference
from isotypic.ops.weight_layout import weight_layout


def weight_affine(
    x: Tensor,
    mix: Tensor,
    terms: Tensor | None = None,
    *,
    widths: Sequence[int],
    symmetry: str = "hidden",
    basis: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The channels of every weight mixed, plus a term for its row, one for its column and one for its block.

    Y_i[r, s] = W_i[r, s] A_i + rho_i[r] + kap_i[s] + gam_i and y_i[r] = beta_i[r] + mean b_i, with the terms laid out as :func:`weight_pool` lays
    out what it pools: on ``terms`` alone this is the adjoint of its sum. Layers one of whose axes is fixed have no A_i; their terms have a slot for
    each index of that axis.

    Args:
        x: (B, P, C), the weights of B networks as for :func:`weight_pool`.
        mix: (layers with a matrix, C, C_out), of the dtype of x: W_2, .., W_{M-1} with ``symmetry="hidden"`` (and W_1 with a basis), all with
            "all".
        terms: (B, N, C_out), of the dtype of x.
        basis: (q, d_0), of the dtype of x: the terms of the fixed input axis are q, and their products with the basis are added to W_1.
        widths, symmetry, sizes: as for :func:`weight_pool`. The output is zero outside of a network's rows and columns.

    Returns: (B, P, C_out).
    Raises as :func:`weight_pool`.

    >>> import torch
    >>> weight_affine(torch.zeros(4, 17, 5), torch.zeros(0, 5, 6), torch.ones(4, 21, 6), widths=[2, 4, 1])[0, :, 0]
    tensor([2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 1.])
    """
    layout = weight_layout(widths, symmetry, 0 if basis is None else basis.shape[0])
    return reference.weight_affine(x, mix, terms, basis, sizes, layout)
