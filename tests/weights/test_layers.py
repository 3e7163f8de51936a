"""Attention, norms and pointwise layers on weight spaces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights.weight_spaces import random_permutation

import isotypic as iso
from isotypic.nn import (
    DWSLinear,
    WeightSpace,
    WeightSpaceAttention,
    WeightSpaceBatchNorm,
    WeightSpaceBlockNorm,
    WeightSpacePointwise,
    WeightSpec,
)


def ragged(channels: int) -> tuple[list[WeightSpace], WeightSpace]:
    """Networks of different widths, one by one and in one batch with rubbish outside of them."""
    specs = [WeightSpec([2, 4, 5, 3]), WeightSpec([2, 6, 1, 3]), WeightSpec([2, 3, 3, 3])]
    singles = [WeightSpace(torch.randn(1, spec.numel, channels, dtype=torch.float64), spec) for spec in specs]
    both = WeightSpace.cat(singles)
    assert both.mask is not None
    both.flat[~both.mask] = 1e6
    return singles, both


def naive_attention(layer: WeightSpaceAttention, ws: WeightSpace) -> Tensor:
    """The definition, one head, one layer of neurons and one token at a time."""
    heads, size = layer.num_heads, layer.in_channels // layer.num_heads
    batch, depth, widths = len(ws), ws.spec.depth, ws.spec.widths
    out = torch.zeros_like(ws.flat)
    qkv = ws.with_flat(ws.flat @ layer.qkv.weight.T + layer.qkv.bias)
    result = ws.with_flat(out)

    def attend(q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> list[Tensor]:
        outs = []
        for query in q:
            scores = torch.stack([(query * key).sum() / math.sqrt(query.numel()) for key in k]).softmax(0)
            outs.append(sum(score * value for score, value in zip(scores, v, strict=True)))
        return outs  # type: ignore[return-value]

    for b in range(batch):
        for head in range(heads):
            parts = [slice(third * layer.in_channels + head * size, third * layer.in_channels + (head + 1) * size) for third in range(3)]
            target = slice(head * size, (head + 1) * size)
            means = [[w[b].mean((0, 1))[p] for w in qkv.weights] + [v[b].mean(0)[p] for v in qkv.biases] for p in parts]
            for i, mean in enumerate(attend(*means)):
                (result.weights if i < depth else result.biases)[i % depth][b][..., target] += mean
            for label in range(depth + 1):
                tokens: list[list[Tensor]] = [[], [], []]
                places: list[Tensor] = []
                for third, part in enumerate(parts):
                    for s in range(widths[label - 1] if label else 0):
                        tokens[third].append(qkv.weights[label - 1][b, :, s, part])
                    if label:
                        tokens[third].append(qkv.biases[label - 1][b, :, part])
                    for r in range(widths[label + 1] if label < depth else 0):
                        tokens[third].append(qkv.weights[label][b, r, :, part])
                if label:
                    places += [result.weights[label - 1][b, :, s, target] for s in range(widths[label - 1])]
                    places.append(result.biases[label - 1][b, :, target])
                if label < depth:
                    places += [result.weights[label][b, r, :, target] for r in range(widths[label + 1])]
                for place, value in zip(places, attend(*tokens), strict=True):
                    place += value
    return result.flat


@pytest.mark.parametrize("widths", [[2, 3], [2, 4, 3], [1, 3, 4, 2]], ids=str)
def test_attention_by_its_definition(widths: list[int]) -> None:
    spec = WeightSpec(widths)
    layer = WeightSpaceAttention(spec, 6, num_heads=2, dtype=torch.float64)
    ws = WeightSpace(torch.randn(2, spec.numel, 6, dtype=torch.float64), spec)
    with torch.no_grad():
        torch.testing.assert_close(layer(ws).flat, naive_attention(layer, ws), rtol=0, atol=1e-13)


def test_attention_is_equivariant_under_all_permutations() -> None:
    spec = WeightSpec([3, 5, 4, 2])
    layer = WeightSpaceAttention(spec, 8, num_heads=4, dtype=torch.float64)
    x = torch.randn(3, spec.numel, 8, dtype=torch.float64)
    for seed in range(3):
        moved = random_permutation(spec, "all", seed)
        torch.testing.assert_close(layer(x[:, moved]), layer(x)[:, moved], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["attention", "layer norm", "relu"])
def test_networks_of_different_widths_in_one_batch(kind: str) -> None:
    layers: dict[str, Any] = {
        "attention": WeightSpaceAttention(WeightSpec([2, 4, 5, 3]), 6, num_heads=2, dtype=torch.float64),
        "layer norm": WeightSpacePointwise(nn.LayerNorm(6, dtype=torch.float64)),
        "relu": WeightSpacePointwise(nn.ReLU()),
    }
    singles, both = ragged(6)
    for found, single in zip(layers[kind](both).split(), singles, strict=True):
        torch.testing.assert_close(found.flat, layers[kind](single).flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", ["equal", "ragged"])
def test_attention_has_second_derivatives(batch: str) -> None:
    spec = WeightSpec([2, 2, 1])
    layer = WeightSpaceAttention(spec, 2, num_heads=2, dtype=torch.float64)
    sizes = torch.tensor([[2, 1, 1], [2, 2, 1]]) if batch == "ragged" else None
    x = torch.randn(2, spec.numel, 2, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor) -> Tensor:
        return layer(WeightSpace(x, spec, sizes)).masked().flat

    assert torch.autograd.gradcheck(call, (x,)) and torch.autograd.gradgradcheck(call, (x,), fast_mode=True)


def test_attention_drops_pairs_in_training_only() -> None:
    spec = WeightSpec([2, 6, 3])
    layer = WeightSpaceAttention(spec, 4, num_heads=1, dropout=0.5)
    x = torch.randn(2, spec.numel, 4)
    assert not torch.equal(layer(x), layer(x))
    assert repr(layer).startswith("WeightSpaceAttention(\n  WeightSpec([2, 6, 3]), 4, num_heads=1, dropout=0.5")
    nothing = WeightSpaceAttention(spec, 4, num_heads=1, dropout=1.0)
    assert not nothing(x).any()
    layer.eval()
    plain = WeightSpaceAttention(spec, 4, num_heads=1)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))


def blocks(ws: WeightSpace) -> list[Tensor]:
    return [block for pair in zip(ws.weights, ws.biases, strict=True) for block in pair]


@pytest.mark.parametrize("training", [True, False])
def test_block_norm_is_a_batch_norm_for_each_block(training: bool) -> None:
    spec = WeightSpec([2, 4, 5, 3])
    layer = WeightSpaceBlockNorm(spec, 3, dtype=torch.float64).train(training)
    nn.init.normal_(layer.weight)  # type: ignore[arg-type]
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    norms = [nn.BatchNorm1d(3, dtype=torch.float64).train(training) for _ in range(6)]
    for index, norm in enumerate(norms):
        norm.load_state_dict({key: value if value.dim() == 0 else value[index] for key, value in layer.state_dict().items()})
    ws = WeightSpace(3 * torch.randn(4, spec.numel, 3, dtype=torch.float64) + 1, spec)
    for _ in range(2):
        for found, block, norm in zip(blocks(layer(ws)), blocks(ws), norms, strict=True):
            torch.testing.assert_close(found, norm(block.reshape(-1, 3)).view_as(found), rtol=0, atol=1e-12)
    for index, norm in enumerate(norms):
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(
                layer.state_dict()[key][index] if value.dim() else layer.num_batches_tracked, value, rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", ["equal", "ragged", "one"])
def test_block_norm_with_its_activation(batch: str, training: bool) -> None:
    spec = WeightSpec([2, 4, 5, 1])
    ws = (
        ragged(3)[1]
        if batch == "ragged"
        else WeightSpace(torch.randn(1 if batch == "one" else 4, spec.numel, 3, dtype=torch.float64), spec)
    )
    norms = [WeightSpaceBlockNorm(ws.spec, 3, activation=activation, dtype=torch.float64).train(training) for activation in (None, "relu")]
    for norm in norms:
        nn.init.constant_(norm.bias, 0.25)  # type: ignore[arg-type]
    torch.testing.assert_close(norms[1](ws).flat, norms[0](ws).flat.relu(), rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"^WeightSpaceBlockNorm: activation must be None or 'relu', got 'gelu'"):
        WeightSpaceBlockNorm(spec, 3, activation="gelu")


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_that_of_torch_on_the_entries(training: bool) -> None:
    spec = WeightSpec([2, 4, 3])
    layer, norm = (kind(3, dtype=torch.float64).train(training) for kind in (WeightSpaceBatchNorm, nn.BatchNorm1d))
    for name in ("weight", "bias", "running_mean"):
        nn.init.normal_(getattr(layer, name))
    norm.load_state_dict(layer.state_dict())
    assert layer.num_channels == layer.num_features == 3
    x = 3 * torch.randn(4, spec.numel, 3, dtype=torch.float64) + 1
    torch.testing.assert_close(layer(WeightSpace(x, spec)).flat, norm(x.flatten(0, 1)).view_as(x), rtol=0, atol=1e-13)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["batch", "block"])
def test_statistics_ignore_what_is_outside_of_the_networks(kind: str) -> None:
    singles, both = ragged(3)
    norms = [
        WeightSpaceBatchNorm(3, dtype=torch.float64)
        if kind == "batch"
        else WeightSpaceBlockNorm(WeightSpec([2, 4, 5, 3]), 3, dtype=torch.float64)
        for _ in range(2)
    ]
    out = norms[0](both)
    if kind == "batch":
        expected = norms[1](torch.cat([one.flat[0] for one in singles]).unsqueeze(0))[0]
        torch.testing.assert_close(torch.cat([part.flat[0] for part in out.split()]), expected)
        for key, value in norms[1].state_dict().items():
            torch.testing.assert_close(norms[0].state_dict()[key], value)
    for index in range(6):
        found = torch.cat([blocks(part)[index].flatten(0, -2) for part in out.split()])
        if kind == "block":
            torch.testing.assert_close(found.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
            torch.testing.assert_close(found.var(0, correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
    norms[0].eval()
    for found_space, single in zip(norms[0](both).split(), singles, strict=True):
        torch.testing.assert_close(found_space.flat, norms[0](single).flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", ["equal", "ragged"])
def test_a_block_with_one_value_keeps_its_running_statistics(batch: str) -> None:
    """b_M of one network with d_M = 1: its variance would be zero, and evaluation would then multiply by 1 / sqrt(eps)."""
    spec = WeightSpec([2, 4, 1])
    norm = WeightSpaceBlockNorm(spec, 3, dtype=torch.float64)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    ws = WeightSpace(torch.randn(1, spec.numel, 3, dtype=torch.float64), spec)
    if batch == "ragged":
        ws = WeightSpace(ws.flat, spec, torch.tensor([[2, 3, 1]]))
    out = norm(ws)
    for key in ("running_mean", "running_var"):
        found = getattr(norm, key)
        assert torch.equal(found[-1], before[key][-1]) and (found[:-1] != before[key][:-1]).all()
    expected = (ws.biases[-1] - before["running_mean"][-1]) / (before["running_var"][-1] + norm.eps).sqrt()
    torch.testing.assert_close(out.biases[-1], expected, rtol=0, atol=1e-14)
    assert norm.num_batches_tracked == 1
    for _ in range(300):
        norm(ws)
    assert norm.eval()(ws).flat.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameters", ["16 bits", "float32"])
def test_block_norm_in_evaluation_centres_before_it_scales(dtype: torch.dtype, parameters: str) -> None:
    spec = WeightSpec([2, 4, 3])
    x = (10 + 0.3 * torch.randn(8, spec.numel, 5)).to(dtype)
    norm = WeightSpaceBlockNorm(spec, 5, dtype=dtype if parameters == "16 bits" else torch.float32).eval()
    norm.running_mean.fill_(10.0)
    norm.running_var.fill_(0.09)
    var = norm.running_var[0, 0].double()
    expected = ((x.double() - 10) / (var + norm.eps).sqrt()).to(dtype)
    # One rounding to the dtype, on either side of a tie.
    torch.testing.assert_close(norm(x), expected, rtol=torch.finfo(dtype).eps, atol=0)


def test_settings_of_norms_are_checked() -> None:
    spec = WeightSpec([2, 4, 1])
    for momentum in (None, -0.1, 1.5, math.nan, True):
        with pytest.raises(ValueError, match=r"^WeightSpaceBlockNorm: momentum must be a number in \[0, 1\], got"):
            WeightSpaceBlockNorm(spec, 3, momentum=momentum)  # type: ignore[arg-type]
    for eps in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^WeightSpaceBlockNorm: eps must be at least 0 and finite, got"):
            WeightSpaceBlockNorm(spec, 3, eps=eps)
        with pytest.raises(ValueError, match=r"^WeightSpaceBatchNorm: eps must be at least 0 and finite, got"):
            WeightSpaceBatchNorm(3, eps=eps)


@pytest.mark.parametrize("kind", ["batch", "block", "layer", "attention"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_ignore_what_is_outside_of_the_networks(kind: str, training: bool) -> None:
    """A logarithm puts -inf where a batch is padded with zeros. Gradients are those of clean padding; in evaluation, of each network."""
    spec = WeightSpec([2, 4, 5, 3])
    layers: dict[str, Any] = {
        "batch": WeightSpaceBatchNorm(4, dtype=torch.float64, activation="relu"),
        "block": WeightSpaceBlockNorm(spec, 4, dtype=torch.float64),
        "layer": WeightSpacePointwise(nn.LayerNorm(4, dtype=torch.float64)),
        "attention": WeightSpaceAttention(spec, 4, num_heads=2, dtype=torch.float64),
    }
    layer = layers[kind].train(training)
    singles, both = ragged(4)
    mask = both.mask
    assert mask is not None

    def gradients(*spaces: WeightSpace) -> list[Tensor]:
        layer.zero_grad()
        inputs = [space.flat.detach().clone().requires_grad_() for space in spaces]
        for flat, space in zip(inputs, spaces, strict=True):
            out = layer(space.with_flat(flat)).masked()
            (out.flat.sin() if space.mask is None else out.flat[space.mask].sin()).sum().backward()
        of_inputs = [flat.grad if space.mask is None else flat.grad[space.mask] for flat, space in zip(inputs, spaces, strict=True)]
        return [torch.cat([grad.reshape(-1, 4) for grad in of_inputs]), *(p.grad.clone() for p in layer.parameters())]

    found = gradients(both.with_flat(both.flat.masked_fill(~mask.unsqueeze(-1), -math.inf)))
    clean = both.with_flat(both.flat.masked_fill(~mask.unsqueeze(-1), 0.0))
    for expected in (gradients(clean), *([] if training and kind in ("batch", "block") else [gradients(*singles)])):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


def test_dropout_is_off_in_evaluation() -> None:
    layer = WeightSpacePointwise(nn.Dropout(0.5))
    x = torch.ones(2, 17, 3)
    assert (layer(x) == 0).any() and torch.equal(layer.eval()(x), x)


def test_plain_tensors_make_a_sequential() -> None:
    """The flat tensor goes through the layers of torch as through ours."""
    spec = WeightSpec([2, 4, 1])
    net = nn.Sequential(DWSLinear(spec, 1, 8), nn.ReLU(), WeightSpaceBatchNorm(8), DWSLinear(spec, 8, 1))
    x = torch.randn(3, spec.numel, 1)
    spaces = nn.Sequential(net[0], WeightSpacePointwise(nn.ReLU()), net[2], net[3])
    assert torch.equal(net(x), spaces(WeightSpace(x, spec)).flat)


def test_wrong_arguments_are_named() -> None:
    spec = WeightSpec([2, 4, 1])
    for arguments, text in (
        (dict(channels=6, num_heads=4), "channels=6 must be divisible by num_heads=4"),
        (dict(channels=4, dropout=1.5), r"dropout must be a number in \[0, 1\], got 1\.5"),
        (dict(channels=0), "channels must be a positive integer, got 0"),
    ):
        with pytest.raises(ValueError, match=f"WeightSpaceAttention: {text}"):
            WeightSpaceAttention(spec, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"WeightSpaceAttention: input must have 4 channels, got 3"):
        WeightSpaceAttention(spec, 4)(WeightSpace(torch.zeros(1, spec.numel, 3), spec))
    with pytest.raises(ValueError, match=r"WeightSpaceBatchNorm: input must have shape \(B, P, C=4\), got \(1, 17, 3\)"):
        WeightSpaceBatchNorm(4)(torch.zeros(1, 17, 3))
    norm = WeightSpaceBlockNorm(spec, 4)
    with pytest.raises(ValueError, match=r"WeightSpaceBlockNorm: a plain tensor must have shape \(B, P=17, C=4\) .*, got \(1, 17, 3\)"):
        norm(torch.zeros(1, 17, 3))
    for other in (WeightSpec([5, 4, 3]), WeightSpec([2, 4, 4, 1])):
        with pytest.raises(ValueError, match=r"WeightSpaceBlockNorm: networks may differ in their hidden widths alone"):
            norm(WeightSpace(torch.zeros(1, other.numel, 4), other))


def test_inputs_of_another_kind_are_named() -> None:
    spec = WeightSpec([2, 4, 1])
    layers = [
        iso.nn.DWSLinear(spec, 1, 2),
        iso.nn.NPLinear(spec, 1, 2),
        iso.nn.DWSInvariant(spec, 1, 2),
        iso.nn.WeightSpaceAttention(spec, 1, num_heads=1),
        iso.nn.WeightSpaceBatchNorm(1),
        iso.nn.WeightSpaceBlockNorm(spec, 1),
        iso.nn.WeightSpacePointwise(torch.nn.ReLU()),
        iso.models.DWSNet(spec, channels=[2], out_features=1),
    ]
    for layer in layers:
        with pytest.raises(TypeError, match=f"^{type(layer).__name__}: input must be a .*torch.Tensor, got list"):
            layer([1])
        if list(layer.parameters()):
            text = "input must have the dtype of the parameters, torch.float32, got torch.float64"
            with pytest.raises(TypeError, match=f"^{type(layer).__name__}: {text}"):
                layer(torch.zeros(2, spec.numel, 1, dtype=torch.float64))
    norm = iso.nn.WeightSpaceBlockNorm(spec, 1)
    with pytest.raises(ValueError, match=r"^WeightSpaceBlockNorm: in training the input must have at least one network"):
        norm(torch.zeros(0, spec.numel, 1))
    assert norm.running_mean.isfinite().all()


@pytest.mark.parametrize("kind", ["batch", "block"])
@pytest.mark.parametrize("batch", ["equal", "ragged"])
def test_norms_of_float32_take_16_bits_and_what_autocast_makes(kind: str, batch: str) -> None:
    spec = WeightSpec([2, 4, 3])
    norm = WeightSpaceBatchNorm(5) if kind == "batch" else WeightSpaceBlockNorm(spec, 5)
    sizes = torch.tensor([[2, 3, 3], [2, 4, 3]]) if batch == "ragged" else None
    ws = WeightSpace(torch.randn(2, spec.numel, 5), spec, sizes)
    assert norm(ws.to(torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(ws.to(torch.bfloat16)).flat.isfinite().all()
        assert norm.bfloat16()(ws).flat.isfinite().all()


def test_export_with_a_dynamic_batch() -> None:
    spec = WeightSpec([2, 4, 3, 1])
    x = torch.randn(3, spec.numel, 4)
    layers = (
        iso.nn.DWSLinear(spec, 4, 2, pool="max"),
        iso.nn.DWSLinear(spec, 4, 2, rank=1),
        iso.nn.WeightSpaceAttention(spec, 4),
        iso.nn.IOPosition(spec, 4),
    )
    for layer in layers:
        exported = torch.export.export(layer.eval(), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=100)},)).module()
        both = torch.cat([x, 2 * x])
        torch.testing.assert_close(exported(both), layer(both))
