"""Conversion of layers of DWSNets and nfn: state dicts made to their layouts, and what those layers compute, written out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from isotypic.nn import DWSInvariant, DWSLinear, NPLinear, WeightSpace, WeightSpec, from_dwsnets, from_nfn

Blocks = tuple[list[Tensor], list[Tensor]]
REDUCE: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "mean": lambda x, dim: x.mean(dim),
    "sum": lambda x, dim: x.sum(dim),
    "max": lambda x, dim: x.amax(dim),
}


class Made:
    """A state dict that makes each tensor the first time that it is asked for."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def __call__(self, key: str, *shape: int) -> Tensor:
        return self.tensors.setdefault(key, torch.randn(shape, dtype=torch.float64))

    def linear(self, name: str, x: Tensor, out: int, bias: bool = True) -> Tensor:
        """`nn.Linear` on the last axis."""
        y = x @ self(f"{name}.weight", out, x.shape[-1]).T
        return y + self(f"{name}.bias", out) if bias else y


def dws_layer(made: Made, weights: list[Tensor], biases: list[Tensor], c: int, reduction: str, skip: bool, diagonal: bool) -> Blocks:
    """A `DWSLayer` on weights (B, d_{i-1}, d_i, C_in) and biases (B, d_i, C_in), block by block."""
    reduce, last = REDUCE[reduction], len(weights) - 1
    batch, d_in, d_out = len(weights[0]), weights[0].shape[1], biases[-1].shape[1]

    def deep_sets(name: str, x: Tensor, out: int) -> Tensor:
        return made.linear(f"{name}.Gamma.0", x, out) - made.linear(f"{name}.Lambda.0", reduce(x, 1), out, bias=False).unsqueeze(1)

    def pooled(kind: str, i: int) -> Tensor:
        """(B, features): a block without its hidden axes, an axis of the input or output flattened with the channels."""
        x = weights[i] if kind == "weight" else biases[i]
        if kind == "bias":
            return x.flatten(1) if i == last else reduce(x, 1)
        return reduce(x, 2).flatten(1) if i == 0 else reduce(x, 1).flatten(1) if i == last else reduce(reduce(x, 1), 1)

    def nodes(kind: str, i: int, label: int) -> Tensor:
        """(B, d, features) at the neurons of a hidden layer, which is the output of matrix `label - 1`."""
        if kind == "bias":
            return biases[i]
        if i == label - 1:
            return weights[i].transpose(1, 2).flatten(2) if i == 0 else reduce(weights[i], 1)
        return weights[i].flatten(2) if i == last else reduce(weights[i], 2)

    def place(y: Tensor, kind: str, j: int, label: int | None) -> Tensor:
        """Values at neurons, or for the whole network, broadcast to the shape of a block."""
        rows, columns = weights[j].shape[1:3]
        if kind == "bias":
            width = biases[j].shape[1]
            return y if label is not None else y.view(batch, -1, c).expand(-1, width, -1)
        if label is None:
            if j == 0:
                return y.view(batch, rows, 1, c).expand(-1, -1, columns, -1)
            return y.view(batch, 1, -1, c).expand(-1, rows, columns, -1)
        if label == j + 1:
            return y.view(batch, columns, -1, c).transpose(1, 2).expand(-1, rows, -1, -1)
        return y.view(batch, rows, -1, c).expand(-1, -1, columns, -1)

    out_weights: list[Any] = [0.0] * (last + 1)
    out_biases: list[Any] = [0.0] * (last + 1)
    for before in ("weight", "bias"):
        for after in ("weight", "bias"):
            outs = out_weights if after == "weight" else out_biases
            for i in range(last + 1):
                for j in range(last + 1):
                    if diagonal and before == after and (abs(i - j) > 1 if before == "weight" else i != j):
                        continue
                    stem = f"{before}_to_{after}.layers.{i}_{j}"
                    ends = [{k, k + 1} if kind == "weight" else {k + 1} for kind, k in ((before, i), (after, j))]
                    shared = ends[0] & ends[1] & set(range(1, last + 1))
                    features = d_in if (after, j) == ("weight", 0) else d_out if j == last else 1
                    if len(shared) == 2:
                        x = weights[i]
                        y = made.linear(f"{stem}.lin_all.0", x, c) + made.linear(f"{stem}.lin_n.0", reduce(x, 1), c).unsqueeze(1)
                        y = y + made.linear(f"{stem}.lin_m.0", reduce(x, 2), c).unsqueeze(2)
                        y = (y + made.linear(f"{stem}.lin_both.0", reduce(reduce(x, 1), 1), c)[:, None, None]) / 4
                    elif shared:
                        (label,) = shared
                        if (before, after, j) == ("weight", "weight", last) and i == last - 1:
                            features = 1  # one value for all outputs
                        name = f"{stem}.set_layer.set_layer" if before == after == "weight" else f"{stem}.layer.set_layer"
                        y = place(deep_sets(name, nodes(before, i, label), features * c), after, j, label)
                    else:
                        if (before, after, j) == ("bias", "weight", last) and i < last:
                            features = 1  # one value for all outputs
                        y = place(made.linear(f"{stem}.layer.0", pooled(before, i), features * c), after, j, None)
                    outs[j] = outs[j] + y / (2 * (last + 1))
    if skip:
        out_weights = [y + made.linear("skip.0", x, c) for x, y in zip(weights, out_weights, strict=True)]
        out_biases = [y + made.linear("skip.0", x, c) for x, y in zip(biases, out_biases, strict=True)]
    return out_weights, out_biases


def dws_sample(widths: list[int], channels: int) -> tuple[WeightSpace, Blocks]:
    spec = WeightSpec(widths)
    ws = WeightSpace(torch.randn(3, spec.numel, channels, dtype=torch.float64), spec)
    return ws, ([weight.transpose(1, 2) for weight in ws.weights], list(ws.biases))


@pytest.mark.parametrize("widths", [[2, 4, 5, 3], [3, 4, 2, 5, 2], [1, 3, 4, 2, 3, 1]], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
@pytest.mark.parametrize("skip, diagonal", [(False, False), (True, True)])
def test_dws_layer(widths: list[int], reduction: str, skip: bool, diagonal: bool) -> None:
    ws, (weights, biases) = dws_sample(widths, 2)
    made = Made()
    expected_weights, expected_biases = dws_layer(made, weights, biases, 3, reduction, skip, diagonal)
    layer = from_dwsnets(made.tensors, ws.spec, reduction)
    assert isinstance(layer, DWSLinear) and (layer.in_channels, layer.out_channels, layer.pool) == (2, 3, reduction)
    found = layer(ws)
    for one, other in zip(found.weights, expected_weights, strict=True):
        torch.testing.assert_close(one, other.transpose(1, 2), rtol=1e-12, atol=1e-12)
    for one, other in zip(found.biases, expected_biases, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_dws_invariant_layer(reduction: str) -> None:
    ws, (weights, biases) = dws_sample([2, 4, 3, 5, 3], 2)
    reduce, made = REDUCE[reduction], Made()
    parts = [reduce(reduce(weight, 1), 1) for weight in weights[1:-1]]
    parts += [
        reduce(weights[0], 2).flatten(1),
        reduce(weights[-1], 1).flatten(1),
        *(reduce(b, 1) for b in biases[:-1]),
        biases[-1].flatten(1),
    ]
    expected = made.linear("layer.0", torch.cat(parts, 1), 7)
    head = from_dwsnets(made.tensors, ws.spec, reduction)
    assert isinstance(head, DWSInvariant)
    torch.testing.assert_close(head(ws), expected, rtol=1e-12, atol=1e-12)


def convolution(made: Made, name: str, x: Tensor, out: int, dims: int) -> Tensor:
    """A convolution of one tap on axis 1, with `dims` spatial axes."""
    weight = made(f"{name}.weight", out, x.shape[1], *(1,) * dims)
    return torch.einsum("oi,bi...->bo...", weight.flatten(1), x) + made(f"{name}.bias", out).view(-1, *(1,) * (x.dim() - 2))


def nfn_sample(widths: list[int], channels: int) -> tuple[WeightSpace, Blocks]:
    spec = WeightSpec(widths)
    ws = WeightSpace(torch.randn(3, spec.numel, channels, dtype=torch.float64), spec)
    return ws, ([weight.movedim(-1, 1) for weight in ws.weights], [bias.movedim(-1, 1) for bias in ws.biases])


def np_layer(made: Made, weights: list[Tensor], biases: list[Tensor], c: int) -> Blocks:
    """`NPLinear` on weights (B, C_in, d_i, d_{i-1}) and biases (B, C_in, d_i)."""
    last = len(weights) - 1
    everything = torch.cat([w.mean((2, 3)) for w in weights] + [b.mean(2) for b in biases], 1)
    out_weights, out_biases = [], []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        at_columns = [weight.mean(2)] + ([weights[i - 1].mean(3), biases[i - 1]] if i else [])
        at_rows = [weight.mean(3), bias] + ([weights[i + 1].mean(2)] if i < last else [])
        out = convolution(made, f"layer_{i}", weight, c, 2) + made.linear(f"layer_{i}_rc", everything, c)[..., None, None]
        out = out + convolution(made, f"layer_{i}_r", torch.cat(at_columns, 1), c, 1).unsqueeze(2)
        out_weights.append(out + convolution(made, f"layer_{i}_c", torch.cat(at_rows, 1), c, 1).unsqueeze(3))
        out_biases.append(
            convolution(made, f"bias_{i}", torch.cat(at_rows, 1), c, 1) + made.linear(f"bias_{i}_rc", everything, c).unsqueeze(2)
        )
    return out_weights, out_biases


def hnp_layer(made: Made, weights: list[Tensor], biases: list[Tensor], c: int) -> Blocks:
    """`HNPLinear`, the same with the axes of the input and output as channels, outer channels before inner features."""
    last = len(weights) - 1
    n_in, n_out = weights[0].shape[3], weights[-1].shape[2]
    everything = torch.cat(
        [w.mean((2, 3)) for w in weights]
        + [b.mean(2) for b in biases]
        + [weights[0].mean(2).flatten(1), weights[-1].mean(3).flatten(1), biases[-1].flatten(1)],
        1,
    )
    first_rows = weights[0].transpose(2, 3).flatten(1, 2)  # (B, C n_in, d_1)
    last_columns = weights[-1].flatten(1, 2)  # (B, C n_out, d_{M-1})
    out_weights, out_biases = [], []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if i == 0:
            x = torch.cat([first_rows, weights[1].mean(2), bias, *([last_columns] if last == 1 else [])], 1)
            y = convolution(made, "w0_rpt", x, c * n_in, 1) + made.linear("w0_rbdcst", everything, c * n_in).unsqueeze(2)
            out_weights.append(y.unflatten(1, (c, n_in)).transpose(2, 3))
            out_biases.append(convolution(made, "bias_0", x, c, 1) + made.linear("bias_0_rc", everything, c).unsqueeze(2))
        elif i == last:
            x = torch.cat([last_columns, weights[-2].mean(3), *([first_rows] if last == 1 else [])], 1)
            y = convolution(made, "wfin_cpt", x, c * n_out, 1) + made.linear("wfin_cbdcst", everything, c * n_out).unsqueeze(2)
            out_weights.append(y.unflatten(1, (c, n_out)))
            out_biases.append(made.linear("bias_fin_rc", everything, c * n_out).unflatten(1, (c, n_out)))
        else:
            at_columns = torch.cat([weight.mean(2), weights[i - 1].mean(3), biases[i - 1], *([first_rows] if i == 1 else [])], 1)
            at_rows = torch.cat([weight.mean(3), bias, weights[i + 1].mean(2), *([last_columns] if i == last - 1 else [])], 1)
            y = convolution(made, f"layer_{i}", weight, c, 2) + made.linear(f"layer_{i}_rc", everything, c)[..., None, None]
            y = y + convolution(made, f"layer_{i}_r", at_columns, c, 1).unsqueeze(2)
            out_weights.append(y + convolution(made, f"layer_{i}_c", at_rows, c, 1).unsqueeze(3))
            out_biases.append(convolution(made, f"bias_{i}", at_rows, c, 1) + made.linear(f"bias_{i}_rc", everything, c).unsqueeze(2))
    return out_weights, out_biases


def pointwise_layer(made: Made, weights: list[Tensor], biases: list[Tensor], c: int) -> Blocks:
    return (
        [convolution(made, f"weight_maps.{i}", weight, c, 2) for i, weight in enumerate(weights)],
        [convolution(made, f"bias_maps.{i}", bias, c, 1) for i, bias in enumerate(biases)],
    )


@pytest.mark.parametrize("widths", [[2, 4, 3], [2, 4, 5, 3], [3, 4, 2, 5, 2], [1, 3, 4, 1]], ids=str)
@pytest.mark.parametrize("layer, kind", [(np_layer, NPLinear), (hnp_layer, DWSLinear), (pointwise_layer, NPLinear)])
def test_nfn_layers(layer: Callable[..., Blocks], kind: type, widths: list[int]) -> None:
    ws, (weights, biases) = nfn_sample(widths, 2)
    made = Made()
    expected_weights, expected_biases = layer(made, weights, biases, 3)
    converted = from_nfn(made.tensors, ws.spec)
    assert type(converted) is kind
    found = converted(ws)
    for one, other in zip((*found.weights, *found.biases), (*expected_weights, *expected_biases), strict=True):
        torch.testing.assert_close(one, other.movedim(1, -1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family, expected", [("dwsnets", 157), ("nfn", 160)])
def test_their_layers_span_a_part(family: str, expected: int) -> None:
    """The dimension of what random layers of one channel on [2, 3, 4, 3] convert to, of 163."""
    samples = []
    for _ in range(180):
        made = Made()
        if family == "dwsnets":
            ws, (weights, biases) = dws_sample([2, 3, 4, 3], 1)
            dws_layer(made, weights, biases, 1, "mean", False, False)
            samples.append(from_dwsnets(made.tensors, ws.spec).weight.flatten())  # type: ignore[operator, union-attr]
        else:
            ws, (weights, biases) = nfn_sample([2, 3, 4, 3], 1)
            hnp_layer(made, weights, biases, 1)
            samples.append(from_nfn(made.tensors, ws.spec).weight.flatten())  # type: ignore[operator, union-attr]
    assert samples[0].numel() == 163 and int(torch.linalg.matrix_rank(torch.stack(samples))) == expected


def test_what_is_refused_is_named() -> None:
    ws, (weights, biases) = dws_sample([2, 4, 5, 3], 2)
    made = Made()
    dws_layer(made, weights, biases, 3, "mean", False, False)
    tensors, spec = made.tensors, ws.spec
    stem = "weight_to_weight.layers.0_0.set_layer"
    for more, text in (
        ({f"{stem}.set_layer.mab.fc_q.weight": torch.ones(3, 3)}, "belongs to an attention layer, which is not linear"),
        ({"weight_to_weight.layers.0_2.layer.2.weight": torch.ones(3, 3)}, "belongs to a map with hidden layers, which is not linear"),
        ({"down_sample.set_layer.Gamma.0.weight": torch.ones(3, 3)}, "'down_sample.set_layer.Gamma.0.weight' belongs to no linear layer"),
    ):
        with pytest.raises(ValueError, match=f"from_dwsnets: .*{text}"):
            from_dwsnets({**tensors, **more}, spec)
    with pytest.raises(ValueError, match=r"from_dwsnets: the maps .* do not have the shapes for WeightSpec\(\[3, 4, 5, 3\]\)"):
        from_dwsnets(tensors, WeightSpec([3, 4, 5, 3]))
    with pytest.raises(ValueError, match=r"from_dwsnets: the maps .* do not have the shapes for WeightSpec\(\[2, 4, 5, 2\]\)"):
        from_dwsnets(tensors, WeightSpec([2, 4, 5, 2]))
    with pytest.raises(ValueError, match="networks of at least 3 layers"):
        from_dwsnets(tensors, WeightSpec([2, 4, 3]))
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'max', got 'attn'"):
        from_dwsnets(tensors, spec, "attn")
    with pytest.raises(TypeError, match=r"from_dwsnets: 'weight' must be a torch.Tensor, got ndarray"):
        from_dwsnets({"weight": torch.ones(2, 2).numpy()}, spec)
    with pytest.raises(ValueError, match="neither that of a DWSLayer nor that of an InvariantLayer"):
        from_dwsnets({"weight": torch.ones(2, 2)}, spec)

    ws, (weights, biases) = nfn_sample([2, 4, 5, 3], 2)
    made = Made()
    hnp_layer(made, weights, biases, 3)
    tensors = made.tensors
    with pytest.raises(ValueError, match=r"from_nfn: 'w0_rpt.weight' must have shape .* for WeightSpec\(\[3, 4, 5, 3\]\)"):
        from_nfn(tensors, WeightSpec([3, 4, 5, 3]))
    with pytest.raises(ValueError, match=r"from_nfn: the state dict has no 'layer_1_r.weight'"):
        from_nfn({key: value for key, value in tensors.items() if key != "layer_1_r.weight"}, spec)
    with pytest.raises(ValueError, match=r"from_nfn: 'extra' belongs to no linear layer"):
        from_nfn({**tensors, "extra": torch.ones(1)}, spec)
    with pytest.raises(ValueError, match=r"from_nfn: io_embed=True adds positions"):
        from_nfn({"in_embed": torch.ones(1)}, spec)
    with pytest.raises(ValueError, match=r"from_nfn: the state dict is none of NPLinear, HNPLinear and Pointwise"):
        from_nfn({"weight": torch.ones(1)}, spec)
    with pytest.raises(ValueError, match=r"from_nfn: only layers for MLPs are converted"):
        from_nfn(tensors, WeightSpec([1, 2, 3], filters=[(3, 3), ()]))


def named(layers: dict[str, Made]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, made in layers.items() for key, tensor in made.tensors.items()}


def test_all_layers_of_a_checkpoint() -> None:
    """A state dict of several layers: a dict of them by their names, in the order that they have."""
    ws, (weights, biases) = nfn_sample([2, 4, 5, 3], 2)
    pointwise, hidden, everything = Made(), Made(), Made()
    first = pointwise_layer(pointwise, weights, biases, 3)
    second = hnp_layer(hidden, *first, 2)
    expected_weights, expected_biases = np_layer(everything, *second, 4)
    layers = from_nfn(named({"0": pointwise, "body.2": hidden, "10": everything}), [2, 4, 5, 3])
    assert isinstance(layers, dict) and [*layers] == ["0", "body.2", "10"]
    assert [type(layer) for layer in layers.values()] == [NPLinear, DWSLinear, NPLinear]
    found = ws
    for layer in layers.values():
        found = layer(found)
    for one, other in zip((*found.weights, *found.biases), (*expected_weights, *expected_biases), strict=True):
        torch.testing.assert_close(one, other.movedim(1, -1), rtol=1e-12, atol=1e-11)

    ws, (weights, biases) = dws_sample([2, 4, 5, 3], 2)
    layer, head = Made(), Made()
    dws_layer(layer, weights, biases, 3, "mean", False, False)
    head.linear("layer.0", torch.zeros(1, 3 * (1 + 2 + 3 + 1 + 1 + 3), dtype=torch.float64), 6)
    converted = from_dwsnets(named({"0": layer, "2": head}), ws.spec)
    assert isinstance(converted, dict) and [type(one) for one in converted.values()] == [DWSLinear, DWSInvariant]
    assert torch.equal(converted["0"].weight, from_dwsnets(layer.tensors, ws.spec).weight)  # type: ignore[union-attr, arg-type]
    assert converted["2"](converted["0"](ws)).shape == (3, 6)
    with pytest.raises(ValueError, match=r"^from_dwsnets: '4.weight' belongs to no linear layer that is converted; leave it out of"):
        from_dwsnets({**named({"0": layer}), "4.weight": torch.ones(2, 2)}, ws.spec)
    with pytest.raises(ValueError, match=r"^from_nfn: layer '10': 'layer_1.weight' must have shape"):
        from_nfn({**named({"0": pointwise, "10": everything}), "10.layer_1.weight": torch.ones(2, 2)}, ws.spec)


def test_arguments_of_other_types_are_named() -> None:
    spec = WeightSpec([2, 4, 5, 3])
    for call, error, text in (
        (lambda: from_nfn(torch.nn.ReLU(), spec), TypeError, "from_nfn: state_dict must be a mapping .* got ReLU; take its state_dict"),
        (lambda: from_dwsnets([], spec), TypeError, "from_dwsnets: state_dict must be a mapping from names to tensors, got list"),
        (lambda: from_nfn({0: torch.zeros(1)}, spec), TypeError, "from_nfn: state_dict must have strings for names, got 0"),
        (lambda: from_nfn({}, "234"), TypeError, "from_nfn: spec must be a WeightSpec or a list of widths, got str"),
        (lambda: from_dwsnets({}, 3), TypeError, "from_dwsnets: spec must be a WeightSpec or a list of widths, got int"),
        (lambda: from_dwsnets({}, [2, 4, 5, 3]), ValueError, "from_dwsnets: the state dict is neither .*; it has no tensors"),
        (lambda: from_nfn({}, [2, 3]), ValueError, "from_nfn: the state dict is none of .*; it has no tensors"),
        (lambda: from_nfn({"weight_maps.0.weight": torch.zeros(3)}, spec), ValueError, r"from_nfn: 'weight_maps.0.weight' must have shape"),
        (lambda: from_dwsnets({"layer.0.weight": torch.zeros(3)}, spec), ValueError, r"from_dwsnets: 'layer.0.weight' must have shape"),
        (lambda: from_dwsnets({"layer.0.weight": torch.zeros(3, 0)}, spec), ValueError, r"from_dwsnets: 'layer.0.weight' must have shape"),
        (lambda: from_dwsnets({"layer.0.weight": torch.zeros(3, 13)}, spec), ValueError, r"from_dwsnets: 'layer.0.weight' must have shape"),
    ):
        with pytest.raises(error, match=f"^{text}"):
            call()  # type: ignore[no-untyped-call]
