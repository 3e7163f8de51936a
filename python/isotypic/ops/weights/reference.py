"""The plain twin of the weight-space kernels: one torch operator after another over the blocks of the flat tensor, differentiable.

x (B, P, C) holds the weights, pooled (B, N, C) the node features and the global vector (:mod:`isotypic.ops.weights.layout`). With ``sizes``
(B, M + 1), the widths of each network, a block's entries outside its network's rows and columns are ignored, and are zero in results.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic.ops.weights.layout import WeightLayout


def weight_blocks(x: Tensor, layout: WeightLayout) -> tuple[list[Tensor], list[Tensor]]:
    """Views of x: W_i (B, d_i, d_{i-1}, C) and b_i (B, d_i, C)."""
    weights = [x[:, i.weight : i.bias].unflatten(1, (i.rows, i.columns)) for i in layout.layers]
    return weights, [x[:, i.bias : i.bias + i.rows] for i in layout.layers]


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
    for n in layout.nodes:
        alive = torch.arange(n.width, device=sizes.device) < sizes[:, n.label, None]
        parts.append(alive.repeat_interleave(n.slots, 1))
    parts.append(sizes.new_ones(len(sizes), layout.global_slots, dtype=torch.bool))
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


def weight_pool(x: Tensor, basis: Tensor | None, sizes: Tensor | None, layout: WeightLayout, pool: str) -> Tensor:
    """pooled (B, N, C) of x (B, P, C)."""
    weights, biases = weight_blocks(x if sizes is None else x.masked_fill(~weight_mask(sizes, layout)[..., None], 0.0), layout)
    if basis is not None:
        weights[0] = basis @ weights[0]
    alive = {} if sizes is None else {n.label: torch.arange(n.width, device=x.device) < sizes[:, n.label, None] for n in layout.nodes}
    permuted = {n.label for n in layout.nodes}
    parts = []
    for n in layout.nodes:
        slots = []
        if n.label > 0:
            axes = {2: n.label - 1} if n.label - 1 in permuted else {}
            slots.append(_pool(weights[n.label - 1], axes, pool, sizes, alive))
        if n.label < len(weights):
            axes = {1: n.label + 1} if n.label + 1 in permuted else {}
            slots.append(_pool(weights[n.label], axes, pool, sizes, alive).transpose(1, 2))
        if n.label > 0:
            slots.append(biases[n.label - 1].unsqueeze(2))
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
    weights, _ = weight_blocks(x, layout)
    zeros = x.new_zeros(len(x), layout.entries, mix.shape[2])
    out_weights, out_biases = weight_blocks(zeros, layout)
    nodes = (
        {}
        if terms is None
        else {n.label: terms[:, n.offset : n.offset + n.width * n.slots].unflatten(1, (n.width, n.slots)) for n in layout.nodes}
    )
    totals = None if terms is None else terms[:, layout.global_offset :]
    parts = []
    for i, layer in enumerate(layout.layers, 1):
        weight, bias = out_weights[i - 1], out_biases[i - 1]
        if totals is not None:
            total = totals[:, layer.total_slot : layer.total_slot + layer.total_slots]
            columns = layout.rank if layout.rank and i == 1 else layer.columns if layer.column_slot < 0 else 1
            added = total.unflatten(1, (layer.total_slots // columns, columns))
            if layer.row_slot >= 0:
                added = added + nodes[i][:, :, layer.row_slot : layer.row_slot + layer.row_slots]
            if layer.column_slot >= 0:
                added = added + nodes[i - 1][:, :, layer.column_slot : layer.column_slot + layer.column_slots].transpose(1, 2)
            weight = weight + (basis.mT @ added if basis is not None and i == 1 else added)
            bias = bias + totals[:, layer.bias_total_slot : layer.bias_total_slot + layer.bias_total_slots]
            if layer.bias_slot >= 0:
                bias = bias + nodes[i][:, :, layer.bias_slot]
        if layer.mixed >= 0:
            weight = weight + weights[i - 1] @ mix[layer.mixed]
        parts += [weight.flatten(1, 2), bias]
    y = torch.cat(parts, 1)
    return y if sizes is None else y.masked_fill(~weight_mask(sizes, layout)[..., None], 0.0)


def weight_terms(pooled: Tensor, weight: Tensor, bias: Tensor | None, layout: WeightLayout) -> Tensor:
    """terms (B, N, C_out) of pooled (B, N, C): a product for each permuted label and one for the global vector, which gets the bias."""
    parts = []
    for n in layout.nodes:
        rows = pooled[:, n.offset : n.offset + n.width * n.slots].unflatten(1, (n.width, n.slots))
        matrix = weight[n.parameter : n.parameter + n.slots**2].unflatten(0, (n.slots, n.slots))
        parts.append(torch.einsum("brsc,stcd->brtd", rows, matrix).flatten(1, 2))
    matrix = weight[layout.global_parameter :].unflatten(0, (layout.global_slots, layout.global_slots))
    total = torch.einsum("bsc,stcd->btd", pooled[:, layout.global_offset :], matrix)
    parts.append(total if bias is None else total + bias)
    return torch.cat(parts, 1)


def weight_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sizes: Tensor | None,
    layout: WeightLayout,
    pool: str,
    project: Tensor | None = None,
    expand: Tensor | None = None,
) -> Tensor:
    """A whole layer."""
    terms = weight_terms(weight_pool(x, project, sizes, layout, pool), weight, bias, layout)
    return weight_affine(x, weight[: layout.mixed], terms, expand, sizes, layout)
