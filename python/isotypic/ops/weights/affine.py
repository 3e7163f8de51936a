"""Channel mixing of weights with terms added to rows, columns and blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from isotypic._repeat import repeated
from isotypic._words import Symmetry
from isotypic.ops.weights import _arguments as arguments
from isotypic.ops.weights import _operators as operators


@repeated
def weight_affine(
    x: Tensor,
    mix: Tensor,
    terms: Tensor | None = None,
    *,
    widths: Sequence[int],
    symmetry: Symmetry = "hidden",
    basis: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The channels of every weight mixed, plus a term for its row, one for its column and one for its block.

    Y_i[r, s] = W_i[r, s] A_i + rho_i[r] + kap_i[s] + gam_i and y_i[r] = b_i[r] + beta_i, with the terms laid out as :func:`weight_pool`
    lays out what it pools: on ``terms`` alone this is the adjoint of its sum. Layers one of whose axes is fixed have no A_i; their terms
    have a slot for each index of that axis.

    Args:
        x: (B, P, C), the weights of B networks as for :func:`weight_pool`.
        mix: (mixed layers, C, C_out), of the dtype of x, the A_i of W_2, .., W_{M-1} with ``symmetry="hidden"`` (of W_1 too with a basis),
            of all W_i with "all".
        terms: (B, N, C_out), of the dtype of x.
        basis: (q, d_0), of the dtype of x: the terms of the fixed input axis are q, and their products with the basis are added to W_1.
        widths, symmetry, sizes: as for :func:`weight_pool`. The output is zero outside of a network's rows and columns.

    Returns: (B, P, C_out).
    Raises as :func:`weight_pool`.

    >>> import torch
    >>> weight_affine(torch.zeros(4, 17, 5), torch.zeros(0, 5, 6), torch.ones(4, 21, 6), widths=[2, 4, 1])[0, :, 0]
    tensor([2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 2., 1.])
    """
    name = "weight_affine"
    arguments.check_dense(name, {"x": x, "mix": mix}, terms=terms, basis=basis)
    layout = arguments.layout(name, widths, symmetry, basis, "basis")
    arguments.check_weights(name, x, layout)
    arguments.check_shape(name, "mix", mix, {"mixed layers": layout.mixed, "C": x.shape[2], "C_out": None})
    if terms is not None:
        arguments.check_shape(name, "terms", terms, {"B": x.shape[0], "N": layout.rows, "C_out": mix.shape[2]})
    arguments.check_sizes(name, sizes, x, layout)
    return operators.affine(x, mix, terms, basis, sizes, layout.widths, symmetry, layout.rank, False)
