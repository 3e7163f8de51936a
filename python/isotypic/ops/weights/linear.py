"""The complete equivariant affine layer on weights: pool, one product for each permuted label and one for the global vector, affine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from isotypic._extension import kept_class
from isotypic._repeat import repeated
from isotypic._words import Pool, Symmetry
from isotypic.ops.weights import _arguments as arguments
from isotypic.ops.weights import _operators as operators


def weight_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    widths: Sequence[int],
    symmetry: Symmetry = "hidden",
    pool: Pool = "mean",
    project: Tensor | None = None,
    expand: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """The complete layer, affine and equivariant under permutations of neurons, from weights of MLPs to such weights.

    pooled = weight_pool(x);  terms of a label l: n_l D_l, of the global vector: g R + bias;  out = weight_affine(x, A, terms).
    With "mean" or "sum" this is every equivariant affine map once: no parameter is redundant where all permuted widths are >= 2.

    Args:
        x: (B, P, C), the weights of B networks as for :func:`weight_pool`.
        weight: (K, C, C_out), of the dtype of x: the matrices A of the mixed layers, then for each permuted label the (slots, slots) ones
            of D_l (from slot, to slot), then the (slots, slots) ones of R. :func:`isotypic.ops.weights.layout` has the offsets; K is its
            ``linear``.
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
    return layer(x, weight, bias, project, expand, sizes, widths, symmetry, pool)


def _layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    project: Tensor | None,
    expand: Tensor | None,
    sizes: Tensor | None,
    widths: Sequence[int],
    symmetry: Symmetry,
    pool: Pool,
    kept: Any = None,
) -> Tensor:
    """``weight_linear``, and what a layer calls. ``kept`` is the layer's ``_C.WeightMatrices``, used for a repeated call on the CPU without
    a gradient."""
    name = "weight_linear"
    arguments.check_dense(name, {"x": x, "weight": weight}, bias=bias, project=project, expand=expand)
    layout = arguments.layout(name, widths, symmetry, project, "project")
    arguments.check_pool(name, pool, project, "project")
    if (project is None) != (expand is None):
        raise ValueError(f"{name}: project and expand must both be given or neither, got {'expand' if project is None else 'project'} only")
    arguments.check_weights(name, x, layout)
    arguments.check_shape(name, "weight", weight, {"K": layout.linear, "C": x.shape[2], "C_out": None})
    if bias is not None:
        arguments.check_shape(name, "bias", bias, {"slots of g": layout.affine, "C_out": weight.shape[2]})
    if expand is not None:
        arguments.check_shape(name, "expand", expand, {"q": layout.rank, "d_0": layout.widths[0]})
    arguments.check_sizes(name, sizes, x, layout)
    settings = layout.widths, symmetry, layout.rank
    if pool != "max":
        return operators.linear(x, weight, bias, project, expand, sizes, *settings, pool == "mean")
    terms = operators.terms_of(operators.select(x, x.detach(), sizes, *settings), weight, bias, layout)
    return operators.affine(x, weight[: layout.mixed], terms, None, sizes, *settings, False)


_KEPT = kept_class("WeightMatrices")


def kept_of_weight() -> object | None:
    """Where the kernel keeps what it makes of the weight of one layer. It compares the weight itself, so that any change of it is seen."""
    return None if _KEPT is None else _KEPT()


layer = repeated(_layer, _KEPT)
