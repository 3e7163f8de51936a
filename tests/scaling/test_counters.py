"""Counts of layers against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("mujoco")

import isotypic as iso
from isotypic.models.transformer import TransformerBlock
from isotypic.scaling.counters import Count, count, executed

ITEMS = 2 * 5


def inputs(mv: int, s: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 5, mv, 16), torch.randn(2, 5, s)


def test_linear_layers() -> None:
    assert count(nn.Linear(3, 4), torch.zeros(5, 3)) == Count(60, 60)
    layer = iso.nn.MultivectorLinear(2, 3, 4, 6)
    scalars = 4 * 3 + 2 * 6 + 4 * 6  # scalars to multivectors, back, and among themselves
    assert count(layer, *inputs(2, 4)) == Count(ITEMS * (2 * 3 * 256 + scalars), ITEMS * (2 * 3 * 24 + scalars))
    assert count(iso.nn.MultivectorLinear(2, 3, algebra="sta"), inputs(2, 0)[0]) == Count(ITEMS * 6 * 256, ITEMS * 6 * 32)
    assert count(layer, *inputs(2, 4)).training_flops == tuple(6 * n for n in (ITEMS * 1584, ITEMS * 192))


def test_products() -> None:
    """Two products and two joins of 4,096 entries, or of 192 and 81; the linear maps are 2 -> 16 and 4 -> 3."""
    layer = iso.nn.GeometricBilinear(2, 3, hidden_mv_channels=4)
    linear = 2 * 8 + 4 * 3
    assert count(layer, inputs(2, 0)[0]) == Count(ITEMS * (4 * 4096 + 256 * linear), ITEMS * (2 * 192 + 2 * 81 + 24 * linear))


def test_attention() -> None:
    """Two heads of 2 multivector and 4 scalar channels: 16 or 8 and 5 terms for each multivector, and values."""
    layer = iso.nn.GATrAttention(2, 4, num_heads=2)
    assert (layer.head_mv_channels, layer.head_s_channels) == (2, 4)
    q, kv = 2 * 2, 2 * 2
    mv_pairs = 2 * (q + kv) + q * 2
    s_pairs = [4 * (q + kv), 2 * (8 + 8), 4 * (8 + 8)], [8 * 2, q * 4, 8 * 4]  # in: s to mv, mv to s, s to s; out: the same
    scalars = sum(map(sum, s_pairs))
    pairs = 2 * 5 * 5 * 2
    nominal = pairs * (21 * 2 + 4 + 16 * 2 + 4) + ITEMS * (256 * mv_pairs + scalars)
    sparse = pairs * (13 * 2 + 4 + 16 * 2 + 4) + ITEMS * (24 * mv_pairs + scalars)
    assert count(layer, *inputs(2, 4)) == Count(nominal, sparse)


def test_plain_transformer() -> None:
    block = TransformerBlock(8, 2, 4, False, 0.0, None, None)
    products = ITEMS * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 2 * 2 * 25 * 8
    assert count(block, torch.randn(2, 5, 8)) == Count(products, products)
    flops, _ = executed(lambda: block(torch.randn(2, 5, 8)))
    assert flops == 2 * products  # also of the attention on a CPU
    with_gradient, _ = executed(lambda: block(torch.randn(2, 5, 8)).sum().backward())
    # No gradient of the input is asked for: that of the first layer's input is, through the norm. Attention: five products for two.
    assert with_gradient == 3 * 2 * ITEMS * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 2 * 2 * 2 * 25 * 8 * 7 // 2


def test_every_layer_of_a_network_is_counted_once() -> None:
    """What a forward pass executes is what is sparse, but for the distance in the logits, which takes 10 products instead of 5."""
    model = iso.models.GATr(2, 1, 4, 3, 0, 8, num_blocks=2, num_heads=2)
    mv, s = inputs(2, 3)
    counted = count(model, mv, s)
    flops, _ = executed(lambda: model(mv, s))
    channels = model.blocks[0].attention.head_mv_channels
    assert flops == 2 * (counted.sparse + 2 * (2 * 25 * 2) * channels * 5)
    assert counted.nominal > 5 * counted.sparse


def test_bytes() -> None:
    x, weight = torch.randn(5, 3), torch.randn(3, 4)
    assert executed(lambda: x @ weight) == (2 * 60, 4 * (15 + 12 + 20))
    assert executed(lambda: x.view(15)[3:].reshape(3, 4).T) == (0, 0)
    assert executed(lambda: x.add_(1))[1] == 4 * 30
