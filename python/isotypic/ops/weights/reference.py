"""The plain twin of the weight-space kernels: one torch operator after another over the blocks of the flat tensor, differentiable.

x (B, P, C) holds the weights, pooled (B, N, C) the node features and the global vector. Of a layout only the widths, the symmetry and the
rank are read: where everything lies is derived here once more, by cutting tensors in the order that :mod:`isotypic.ops.weights.layout`
describes, so that a wrong offset of the kernels shows. With ``sizes`` (B, M + 1), the widths of each network, a block's entries outside
its network's rows and columns are ignored, and are zero in results.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from isotypic._words import Pool
from isotypic.ops.weights.layout import WeightLayout


def _permuted(layout: WeightLayout, label: int) -> bool:
    return layout.symmetry == "all" or 0 < label < len(layout.widths) - 1


def _permuted_labels(layout: WeightLayout) -> list[int]:
    return [label for label in range(len(layout.widths)) if _permuted(layout, label)]


def _features(layout: WeightLayout, label: int) -> int:
    """How many numbers pooling leaves of an axis: one, or of a fixed axis its list."""
    return 1 if _permuted(layout, label) else layout.rank if layout.rank and label == 0 else layout.widths[label]


def _slots(layout: WeightLayout, label: int) -> list[int]:
    """The lengths of rho_l, kap_{l+1} and b_l in n_l[r]."""
    rho = [_features(layout, label - 1)] if label > 0 else [0]
    kap = [_features(layout, label + 1)] if label < len(layout.widths) - 1 else [0]
    return [*rho, *kap, int(label > 0)]


def _totals(layout: WeightLayout) -> tuple[list[tuple[int, int]], list[int]]:
    """The shapes of gam_1, .., gam_M and the lengths of beta_1, .., beta_M."""
    features = [_features(layout, label) for label in range(len(layout.widths))]
    return [(rows, columns) for columns, rows in pairwise(features)], features[1:]


def _is_mixed(layout: WeightLayout, i: int) -> bool:
    """Whether all entries of W_i are alike: its rows are permuted, and its columns are or are seen through a basis."""
    return _permuted(layout, i) and (_permuted(layout, i - 1) or layout.rank > 0)


def weight_blocks(x: Tensor, layout: WeightLayout) -> tuple[list[Tensor], list[Tensor]]:
    """Views of x: W_i (B, d_i, d_{i-1}, C) and b_i (B, d_i, C)."""
    lengths = [length for columns, rows in pairwise(layout.widths) for length in (rows * columns, rows)]
    blocks = x.split(lengths, 1)
    weights = [block.unflatten(1, (rows, columns)) for block, (columns, rows) in zip(blocks[::2], pairwise(layout.widths), strict=True)]
    return weights, list(blocks[1::2])


def node_blocks(pooled: Tensor, layout: WeightLayout) -> tuple[dict[int, Tensor], Tensor]:
    """Views of the pooled tensor: n_l (B, d_l, slots, C) for each permuted label, and g (B, slots, C)."""
    counts = {label: sum(_slots(layout, label)) for label in _permuted_labels(layout)}
    lengths = [layout.widths[label] * count for label, count in counts.items()]
    *blocks, total = pooled.split([*lengths, pooled.shape[1] - sum(lengths)], 1)
    return {label: block.unflatten(1, (-1, count)) for (label, count), block in zip(counts.items(), blocks, strict=True)}, total


def weight_mask(sizes: Tensor, layout: WeightLayout) -> Tensor:
    """(B, P): whether an entry belongs to a network of these widths."""
    alive = [torch.arange(d, device=sizes.device) < sizes[:, i, None] for i, d in enumerate(layout.widths)]
    parts = []
    for i in range(1, len(alive)):
        parts += [(alive[i][:, :, None] & alive[i - 1][:, None]).flatten(1), alive[i]]
    return torch.cat(parts, 1)


def node_mask(sizes: Tensor, layout: WeightLayout) -> Tensor:
    """(B, N): whether a row of the pooled tensor belongs to a network of these widths."""
    parts = []
    for label in _permuted_labels(layout):
        alive = torch.arange(layout.widths[label], device=sizes.device) < sizes[:, label, None]
        parts.append(alive.repeat_interleave(sum(_slots(layout, label)), 1))
    gammas, betas = _totals(layout)
    parts.append(sizes.new_ones(len(sizes), sum(rows * columns for rows, columns in gammas) + sum(betas), dtype=torch.bool))
    return torch.cat(parts, 1)


def _pool(block: Tensor, axes: dict[int, int], kind: str, sizes: Tensor | None, alive: dict[int, Tensor]) -> Tensor:
    """Pool axes of a block; ``axes`` maps each to its label, and ``alive`` each label to a mask (B, width)."""
    if not axes:
        return block
    count: Tensor | float = 1.0
    for axis, label in axes.items():
        if sizes is None:
            count = count * block.shape[axis]
            continue
        mask = alive[label].view(len(block), *(block.shape[axis] if a == axis else 1 for a in range(1, block.dim())))
        block = block.masked_fill(~mask, float("-inf") if kind == "max" else 0.0)
        count = count * sizes[:, label].view(-1, *(1,) * (block.dim() - 1))
    if kind == "max":
        first = min(axes)
        block = block.flatten(first, max(axes)).max(first).values
        return block.unsqueeze(first) if len(axes) == 1 else block.unsqueeze(first).unsqueeze(first)
    total = block.sum(tuple(axes), keepdim=True)
    return total / count if kind == "mean" else total


def weight_pool(x: Tensor, basis: Tensor | None, sizes: Tensor | None, layout: WeightLayout, pool: Pool) -> Tensor:
    """pooled (B, N, C) of x (B, P, C)."""
    weights, biases = weight_blocks(x if sizes is None else x.masked_fill(~weight_mask(sizes, layout)[..., None], 0.0), layout)
    if basis is not None:
        weights[0] = basis @ weights[0]
    permuted = _permuted_labels(layout)
    alive = {} if sizes is None else {i: torch.arange(layout.widths[i], device=x.device) < sizes[:, i, None] for i in permuted}
    parts = []
    for label in permuted:
        slots = []
        if label > 0:
            axes = {2: label - 1} if label - 1 in permuted else {}
            slots.append(_pool(weights[label - 1], axes, pool, sizes, alive))
        if label < len(weights):
            axes = {1: label + 1} if label + 1 in permuted else {}
            slots.append(_pool(weights[label], axes, pool, sizes, alive).transpose(1, 2))
        if label > 0:
            slots.append(biases[label - 1].unsqueeze(2))
        parts.append(torch.cat(slots, 2).flatten(1, 2))
    for i, weight in enumerate(weights, 1):
        axes = {axis: label for axis, label in ((1, i), (2, i - 1)) if label in permuted}
        parts.append(_pool(weight, axes, pool, sizes, alive).flatten(1, 2))
    for i, bias in enumerate(biases, 1):
        parts.append(_pool(bias, {1: i} if i in permuted else {}, pool, sizes, alive))
    pooled = torch.cat(parts, 1)
    return pooled if sizes is None else pooled.masked_fill(~node_mask(sizes, layout)[..., None], 0.0)


def weight_affine(x: Tensor, mix: Tensor, terms: Tensor | None, basis: Tensor | None, sizes: Tensor | None, layout: WeightLayout) -> Tensor:
    """y (B, P, C_out): the channels of x mixed, and the terms of every entry's row, column and block added."""
    weights, biases = weight_blocks(x, layout)
    gammas: list[Tensor] = []
    betas: list[Tensor] = []
    nodes: dict[int, list[Tensor]] = {}
    if terms is not None:
        by_label, total = node_blocks(terms, layout)
        nodes = {label: list(block.split(_slots(layout, label), 2)) for label, block in by_label.items()}
        shapes, lengths = _totals(layout)
        pieces = total.split([*(rows * columns for rows, columns in shapes), *lengths], 1)
        gammas = [piece.unflatten(1, shape) for piece, shape in zip(pieces, shapes, strict=False)]
        betas = list(pieces[len(shapes) :])
    matrices = iter(mix)
    parts = []
    for i, (block, row) in enumerate(zip(weights, biases, strict=True), 1):
        weight = block.new_zeros(*block.shape[:3], mix.shape[2])
        bias = row.new_zeros(*row.shape[:2], mix.shape[2])
        if terms is not None:
            added = gammas[i - 1]
            if i in nodes:
                added = added + nodes[i][0]
            if i - 1 in nodes:
                added = added + nodes[i - 1][1].transpose(1, 2)
            weight = weight + (basis.mT @ added if basis is not None and i == 1 else added)
            bias = bias + betas[i - 1]
            if i in nodes:
                bias = bias + nodes[i][2].squeeze(2)
        if _is_mixed(layout, i):
            weight = weight + block @ next(matrices)
        parts += [weight.flatten(1, 2), bias]
    y = torch.cat(parts, 1)
    return y if sizes is None else y.masked_fill(~weight_mask(sizes, layout)[..., None], 0.0)


def weight_terms(pooled: Tensor, weight: Tensor, bias: Tensor | None, layout: WeightLayout) -> Tensor:
    """terms (B, N, C_out) of pooled (B, N, C): a product for each permuted label and one for the global vector, which gets the bias.

    ``weight`` without the matrices of the mixed layers: (slots, slots) ones for each label, then those of the global vector.
    """
    nodes, total = node_blocks(pooled, layout)
    *blocks, last = weight.split([*(block.shape[2] ** 2 for block in nodes.values()), total.shape[1] ** 2])
    parts = []
    for rows, matrices in zip(nodes.values(), blocks, strict=True):
        matrix = matrices.unflatten(0, (rows.shape[2], rows.shape[2]))
        parts.append(torch.einsum("brsc,stcd->brtd", rows, matrix).flatten(1, 2))
    added = torch.einsum("bsc,stcd->btd", total, last.unflatten(0, (total.shape[1], total.shape[1])))
    parts.append(added if bias is None else added + bias)
    return torch.cat(parts, 1)


def weight_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None,
    layout: WeightLayout,
    pool: Pool,
    project: Tensor | None = None,
    expand: Tensor | None = None,
) -> Tensor:
    """A whole layer: the matrices of the mixed layers, then those of the terms."""
    mixed = sum(_is_mixed(layout, i) for i in range(1, len(layout.widths)))
    terms = weight_terms(weight_pool(x, project, sizes, layout, pool), weight[mixed:], bias, layout)
    return weight_affine(x, weight[:mixed], terms, expand, sizes, layout)
