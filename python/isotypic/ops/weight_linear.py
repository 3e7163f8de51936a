"""The complete equivariant affine layer on weights: pool, one product for each permuted label and one for the global vector, affine."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from isotypic.ops import reference_weights as reference
from isotypic.ops.weight_layout import weight_layout


def weight_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    widths: Sequence[int],
    symmetry: str = "hidden",
    pool: str = "mean",
    project: Tensor | None = None,
    expand: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The complete layer, affine and equivariant under permutations of neurons, from weights of MLPs to such weights.

    pooled = weight_pool(x);  terms of a label l: n_l D_l, of the global vector: g R + bias;  out = weight_affine(x, A, terms).
    With "mean" or "sum" this is every equivariant affine map once: no parameter is redundant where all permuted widths are >= 2.

    Args:
        x: (B, P, C), the weights of B networks as for :func:`weight_pool`.
        weight: (K, C, C_out), of the dtype of x: the matrices A of the mixed layers, then for each permuted label the (slots, slots) ones of
            D_l (from slot, to slot), then the (slots, slots) ones of R; :func:`isotypic.ops.weight_layout` has the offsets, and K = ``linear``.
        bias: (slots of g, C_out), of the dtype of x.
        widths, symmetry, pool, sizes: as for :func:`weight_pool`.
        project, expand: (q, d_0) each, both or neither: the layer sees the fixed input axis through ``project`` and acts on it through
            ``expand``; W_1 is mixed then. Not with "max".

    Returns: (B, P, C_out).
    Raises as :func:`weight_pool`.

    A. Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", 2023; A. Zhou et al., "Permutation Equivariant Neural
    Functionals", 2023.

    >>> import torch
    >>> from isotypic.ops import weight_layout
    >>> layout = weight_layout([2, 32, 32, 3])
    >>> x, weight, bias = torch.zeros(4, layout.entries, 5), torch.zeros(layout.linear, 5, 6), torch.zeros(layout.affine, 6)
    >>> weight_linear(x, weight, bias, widths=[2, 32, 32, 3]).shape
    torch.Size([4, 1251, 6])
    """
    layout = weight_layout(widths, symmetry, 0 if project is None else project.shape[0])
    return reference.weight_linear(x, weight, bias, sizes, layout, pool, project, expand)
