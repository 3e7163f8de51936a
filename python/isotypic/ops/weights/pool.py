"""Pooling of weights: node features and a global vector from all weights and biases of a batch of MLPs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from isotypic._repeat import repeated
from isotypic._words import Pool, Symmetry
from isotypic.ops.weights import _arguments as arguments
from isotypic.ops.weights import _operators as operators


@repeated
def weight_pool(
    x: Tensor,
    *,
    widths: Sequence[int],
    symmetry: Symmetry = "hidden",
    pool: Pool = "mean",
    basis: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Rows, columns and blocks of the weights of MLPs, pooled.

    For each permuted label l and neuron r of it, n_l[r] = [W_l[r, :] over columns, W_{l+1}[:, r] over rows, b_l[r]], and the global vector
    g = [W_1, .., W_M, b_1, .., b_M], each pooled over its permuted axes. A fixed axis is not pooled: each of its indices is a slot.

    Args:
        x: (B, P, C), the weights of B networks in the order W_1, b_1, .., W_M, b_M, rows first; float32, float64, bfloat16 or float16.
        widths: d_0, .., d_M; P = sum of d_i (d_{i-1} + 1).
        symmetry: "hidden": labels 0 and M are fixed; "all": none is.
        pool: "mean", "sum" or "max".
        basis: (q, d_0), of the dtype of x: the slots of the fixed input axis are its products with W_1, q of them. Not with "max".
        sizes: (B, M + 1) int64, the widths of each network where they differ: at most ``widths``, and equal to them at fixed labels. A
            network lies in the first rows and columns of each block, and what is outside is ignored. On a GPU its values are not checked.

    Returns: (B, N, C), n_l at rows ``nodes.offset + r * nodes.slots + slot`` and g from row ``global_offset`` of
    :func:`isotypic.ops.weights.layout`; zero at neurons that a network does not have.
    Raises TypeError for arguments that are no dense tensors of one supported dtype; ValueError for wrong shapes and settings.

    A. Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", 2023.

    >>> import torch
    >>> weight_pool(torch.ones(4, 17, 5), widths=[2, 4, 1]).shape  # 4 neurons of 2 + 1 + 1 slots, and g = [W_1 (2), W_2, b_1, b_2]
    torch.Size([4, 21, 5])
    """
    arguments.check_dense("weight_pool", {"x": x}, basis=basis)
    layout = arguments.layout("weight_pool", widths, symmetry, basis, "basis")
    arguments.check_pool("weight_pool", pool, basis, "basis")
    arguments.check_weights("weight_pool", x, layout)
    arguments.check_sizes("weight_pool", sizes, x, layout)
    if pool == "max":
        return operators.select(x, x.detach(), sizes, layout.widths, symmetry, 0)
    return operators.pool(x, basis, sizes, layout.widths, symmetry, layout.rank, pool == "mean")
