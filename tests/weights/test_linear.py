"""Linear layers of weight spaces: complete, not redundant, equivariant, with outputs of the variance of the inputs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights.weight_spaces import count_orbits, entries, random_permutation

from isotypic.nn import DWSInvariant, DWSLinear, IOPosition, NPLinear, WeightSpace, WeightSpec

# widths, number of linear and of affine maps
TOTALS = [
    ([2, 3, 4, 1], 75, 7),
    ([2, 3, 4, 3], 163, 11),
    ([2, 4, 3, 4, 3], 221, 13),
    ([2, 3, 4, 5, 4, 2], 222, 13),
    ([3, 4, 2], 100, 8),
    ([1, 3, 4, 1], 55, 6),
    ([2, 3], 81, 9),
]
every_total = pytest.mark.parametrize("widths, linear, affine", TOTALS, ids=[str(widths) for widths, *_ in TOTALS])


def basis(layer: DWSLinear | NPLinear) -> tuple[Tensor, Tensor]:
    """For each scalar parameter of a layer of one channel the matrix (P, P) of its map; for each one of the bias its constant (P)."""
    size = layer.spec.numel
    inputs = torch.cat([torch.zeros(1, size), torch.eye(size)]).to(layer.weight)
    maps, constants = [], []
    assert layer.bias is not None
    with torch.no_grad():
        for parameter, found in ((layer.weight, maps), (layer.bias, constants)):
            for index in range(len(parameter)):
                layer.weight.zero_()
                layer.bias.zero_()
                parameter[index] = 1
                out = layer(inputs.unsqueeze(-1))[..., 0]
                found.append((out[1:] - out[0]).T if parameter is layer.weight else out[0])
    return torch.stack(maps), torch.stack(constants)


def rank(maps: Tensor) -> int:
    return int(torch.linalg.matrix_rank(maps.flatten(1)))


@every_total
def test_hidden_permutations_complete_and_not_redundant(widths: list[int], linear: int, affine: int) -> None:
    layer = DWSLinear(WeightSpec(widths), 1, 1, dtype=torch.float64)
    maps, constants = basis(layer)
    assert len(maps) == rank(maps) == count_orbits(widths, "hidden") == linear
    assert len(constants) == rank(constants) == affine


def test_rank_of_each_block() -> None:
    """W to W, b to W, W to b and b to b of [2, h, h, 3]; then each pair of one matrix or bias and another: 2 maps for a hidden layer that
    both touch, 1 for one that only one does, times the widths that are fixed."""
    widths = [2, 3, 4, 3]
    maps, _ = basis(DWSLinear(WeightSpec(widths), 1, 1, dtype=torch.float64))
    names = entries(widths)
    weight = torch.tensor([kind == "W" for kind, *_ in names])
    assert [rank(maps[:, rows][:, :, columns]) for rows in (weight, ~weight) for columns in (weight, ~weight)] == [62, 37, 37, 27]
    blocks = list(dict.fromkeys((kind, i) for kind, i, *_ in names))
    masks = {block: torch.tensor([(kind, i) == block for kind, i, *_ in names]) for block in blocks}
    labels = {(kind, i): {i, i - 1} if kind == "W" else {i} for kind, i in blocks}
    total = 0
    for source, target in itertools.product(blocks, blocks):
        expected = 2 ** len(labels[source] & labels[target] & {1, 2})
        for block in (source, target):
            for label in labels[block] & {0, 3}:
                expected *= widths[label]
        assert rank(maps[:, masks[target]][:, :, masks[source]]) == expected, (source, target)
        total += expected
    assert total == 163


@pytest.mark.parametrize("widths", [[2, 3], [3, 2, 4], [2, 3, 4, 3], [2, 3, 2, 4, 2]], ids=str)
def test_all_permutations_complete_and_not_redundant(widths: list[int]) -> None:
    layers = len(widths) - 1
    maps, constants = basis(NPLinear(WeightSpec(widths), 1, 1, dtype=torch.float64))
    assert len(maps) == rank(maps) == count_orbits(widths, "all") == 4 * layers**2 + 10 * layers - 4
    assert len(constants) == rank(constants) == 2 * layers


@pytest.mark.parametrize("widths, linear, affine", [([2, 32, 32, 1], 75, 7), ([2, 32, 32, 3], 163, 11), ([3, 9, 2], 100, 8)])
def test_number_of_parameters(widths: list[int], linear: int, affine: int) -> None:
    layer = DWSLinear(WeightSpec(widths), 3, 5)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 3 * 5 * linear + 5 * affine
    assert sum(parameter.numel() for parameter in DWSLinear(WeightSpec(widths), 3, 5, bias=False).parameters()) == 3 * 5 * linear


def test_linear_in_its_parameters() -> None:
    spec = WeightSpec([2, 3, 4, 3])
    layer = DWSLinear(spec, 2, 3, dtype=torch.float64)
    x = torch.randn(4, spec.numel, 2, dtype=torch.float64)
    sides = [{name: torch.randn_like(value) for name, value in layer.named_parameters()} for _ in range(2)]
    both = {name: 2 * sides[0][name] - 3 * sides[1][name] for name in sides[0]}
    first, second, found = (torch.func.functional_call(layer, parameters, (x,)) for parameters in (*sides, both))
    torch.testing.assert_close(found, 2 * first - 3 * second, rtol=1e-12, atol=1e-11)


LAYERS: list[tuple[type[Any], dict[str, Any], str]] = [
    (DWSLinear, dict(pool="mean"), "hidden"),
    (DWSLinear, dict(pool="sum", bias=False), "hidden"),
    (DWSLinear, dict(pool="max"), "hidden"),
    (DWSLinear, dict(rank=2), "hidden"),
    (NPLinear, dict(pool="mean"), "all"),
    (NPLinear, dict(pool="max"), "all"),
]


@pytest.mark.parametrize("kind, arguments, symmetry", LAYERS)
@pytest.mark.parametrize("widths", [[3, 5, 4, 2], [4, 6, 3], [3, 2, 4, 3, 5, 2]], ids=str)
def test_equivariance(kind: type[Any], arguments: dict[str, Any], symmetry: str, widths: list[int]) -> None:
    spec = WeightSpec(widths)
    torch.manual_seed(0)
    layer = kind(spec, 2, 3, dtype=torch.float64, **arguments)
    nn.init.normal_(layer.bias) if layer.bias is not None else None
    x = torch.randn(4, spec.numel, 2, dtype=torch.float64)
    y = layer(x).detach()
    for seed in range(3):
        moved = random_permutation(spec, symmetry, seed)
        torch.testing.assert_close(layer(x[:, moved]), y[:, moved], rtol=0, atol=1e-12 * float(y.abs().max()))
    if symmetry == "hidden":
        moved = random_permutation(spec, "all", 5)
        assert (layer(x[:, moved]) - y[:, moved]).abs().max() > 1e-3


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
@pytest.mark.parametrize("symmetry", ["hidden", "all"])
def test_invariance(symmetry: str, pool: str) -> None:
    spec = WeightSpec([3, 5, 4, 2])
    head = DWSInvariant(spec, 2, 7, symmetry=symmetry, pool=pool, dtype=torch.float64)
    x = torch.randn(4, spec.numel, 2, dtype=torch.float64)
    y = head(x).detach()
    assert y.shape == (4, 7)
    torch.testing.assert_close(head(x[:, random_permutation(spec, symmetry)]), y, rtol=0, atol=1e-12 * float(y.abs().max()))


@pytest.mark.parametrize("widths, symmetry, dimension", [([2, 3, 4, 3], "hidden", 11), ([3, 4, 2], "hidden", 8), ([2, 3, 4, 3], "all", 6)])
def test_invariant_layer_is_complete(widths: list[int], symmetry: str, dimension: int) -> None:
    """One independent function for each orbit of entries."""
    spec = WeightSpec(widths)
    head = DWSInvariant(spec, 1, 40, symmetry=symmetry, dtype=torch.float64)
    out = head(torch.eye(spec.numel, dtype=torch.float64).unsqueeze(-1)) - head(torch.zeros(1, spec.numel, 1, dtype=torch.float64))
    assert int(torch.linalg.matrix_rank(out)) == head.weight.shape[1] == dimension


def test_layer_by_the_formula() -> None:
    """Means of rows, columns and matrices taken in loops; parameters found by what they multiply."""
    spec = WeightSpec([2, 3, 4, 1])
    layer = DWSLinear(spec, 1, 1, dtype=torch.float64)
    ws = WeightSpace(torch.randn(1, spec.numel, 1, dtype=torch.float64), spec)
    weights, biases = [w[0, ..., 0] for w in ws.weights], [b[0, :, 0] for b in ws.biases]
    maps, constants = basis(layer)
    coefficients = torch.randn(75, dtype=torch.float64)
    with torch.no_grad():
        layer.weight[:, 0, 0] = coefficients
        layer.bias.zero_()
        found = layer(ws).weights[1][0, ..., 0]
    slot_r = [weights[1].mean(1), weights[2].mean(0), biases[1]]
    slot_s = [weights[0][:, 0], weights[0][:, 1], weights[1].mean(0), biases[0]]
    means = [weights[0][:, 0].mean(), weights[0][:, 1].mean(), weights[1].mean(), weights[2].mean()]
    means += [biases[0].mean(), biases[1].mean(), biases[2].mean()]
    ones_r, ones_s = torch.ones(4, 1, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    terms = [
        weights[1],
        *(f[:, None] * ones_s for f in slot_r),
        *(f[None, :] * ones_r for f in slot_s),
        *(m * ones_r * ones_s for m in means),
    ]
    # The output is a combination of exactly these 15 terms, whose coefficients do not depend on the input.
    features = torch.stack([term.flatten() for term in terms], 1)
    solution = torch.linalg.lstsq(features, found.flatten().unsqueeze(1), driver="gelsd").solution
    assert (features @ solution - found.flatten().unsqueeze(1)).abs().max() < 1e-12
    assert len(terms) == 15 == sum(bool(m[spec.weight_slices[1]].any()) for m in maps)
    assert sum(bool(c[spec.weight_slices[1]].any()) for c in constants) == 1


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
@pytest.mark.parametrize("kind", [DWSLinear, NPLinear])
def test_outputs_have_the_variance_of_the_inputs(kind: type[Any], pool: str) -> None:
    spec = WeightSpec([3, 16, 8, 2])
    torch.manual_seed(0)
    ratios = []
    for _ in range(24):
        ws = kind(spec, 6, 48, pool=pool)(WeightSpace(torch.randn(24, spec.numel, 6), spec))
        ratios.append(torch.stack([block.detach().square().mean() for block in (*ws.weights, *ws.biases)]))
    # Each block is a mean over 24 x 48 draws of the parameters and as many networks.
    torch.testing.assert_close(torch.stack(ratios).mean(0), torch.ones(6), rtol=0, atol=0.1)


def test_sums_start_as_means_do() -> None:
    spec = WeightSpec([3, 16, 8, 2])
    x = torch.rand(4, spec.numel, 5)
    heads = []
    for pool in ("sum", "mean"):
        torch.manual_seed(0)
        heads.append(DWSInvariant(spec, 5, 500, pool=pool))
    torch.testing.assert_close(heads[0](x), heads[1](x))
    assert 0.9 < heads[1](torch.ones(1, spec.numel, 5)).std() < 1.1


def test_variance_of_the_low_rank_layer() -> None:
    spec = WeightSpec([50, 8, 8, 2])
    torch.manual_seed(0)
    outs = [DWSLinear(spec, 6, 32, rank=5)(WeightSpace(torch.randn(8, spec.numel, 6), spec)) for _ in range(48)]
    found = torch.stack([torch.stack([block.detach().square().mean() for block in (*ws.weights, *ws.biases)]) for ws in outs]).mean(0)
    torch.testing.assert_close(found, torch.ones(6), rtol=0, atol=0.15)


@pytest.mark.parametrize("kind, arguments, symmetry", LAYERS)
def test_networks_of_different_widths_in_one_batch(kind: type[Any], arguments: dict[str, Any], symmetry: str) -> None:
    """The same as one by one, whatever lies outside of the networks."""
    spec = WeightSpec([3, 5, 4, 2])
    layer = kind(spec, 2, 3, dtype=torch.float64, **arguments)
    nn.init.normal_(layer.bias) if layer.bias is not None else None
    head = DWSInvariant(spec, 2, 6, symmetry=symmetry, pool=arguments.get("pool", "mean"), dtype=torch.float64)
    singles = [
        WeightSpace(torch.randn(1, other.numel, 2, dtype=torch.float64), other)
        for other in (spec, WeightSpec([3, 2, 7, 2]), WeightSpec([3, 1, 1, 2]), WeightSpec([3, 6, 3, 2]))
    ]
    both = WeightSpace.cat(singles)
    assert both.sizes is not None and both.mask is not None
    both.flat[~both.mask] = 1e6
    out = layer(both)
    for found, single in zip(out.split(), singles, strict=True):
        assert found.spec == single.spec
        torch.testing.assert_close(found.flat, layer(single).flat, rtol=0, atol=1e-12)
    torch.testing.assert_close(head(both), torch.cat([head(single) for single in singles]), rtol=0, atol=1e-12)


def test_filters_are_channels() -> None:
    networks = [
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 4, 2)).double() for _ in range(2)
    ]
    ws = WeightSpace.from_state_dicts([network.state_dict() for network in networks])
    layer = DWSLinear(ws.spec, ws.channels, 3, dtype=torch.float64)
    permutations = [torch.tensor([1, 3, 0, 2]), torch.tensor([4, 0, 1, 3, 2])]
    torch.testing.assert_close(layer(ws.permute(permutations)).flat, layer(ws).permute(permutations).flat, rtol=0, atol=1e-12)


def test_low_rank_layer_of_a_wide_input() -> None:
    spec = WeightSpec([784, 16, 16, 10])
    layer = DWSLinear(spec, 2, 3, rank=8)
    assert sum(parameter.numel() for parameter in layer.parameters()) < 30_000
    full = DWSLinear(WeightSpec([5, 4, 3]), 1, 1, dtype=torch.float64)
    low = DWSLinear(WeightSpec([5, 4, 3]), 1, 1, rank=5, dtype=torch.float64)
    x = torch.randn(3, full.spec.numel, 1, dtype=torch.float64)
    with torch.no_grad():
        # With as many features as inputs, the identity for both and nothing mixed, it is the complete layer.
        low.project.copy_(torch.eye(5))  # type: ignore[union-attr]
        low.expand.copy_(torch.eye(5))  # type: ignore[union-attr]
        low.weight[0] = 0
        low.weight[1:] = full.weight
        low.bias.copy_(full.bias.normal_())  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(low(x), full(x), rtol=0, atol=1e-12)


def test_positions_tell_inputs_and_outputs_apart() -> None:
    spec = WeightSpec([4, 5, 3])
    x = torch.randn(2, spec.numel, 1, dtype=torch.float64)
    for learned in (False, True):
        position = IOPosition(spec, 1, num_frequencies=3, learned=learned, dtype=torch.float64)
        layer = NPLinear(spec, position.out_channels, 4, dtype=torch.float64)
        features = position(WeightSpace(x, spec))
        assert features.channels == position.out_channels == 7 and torch.equal(features.flat[..., :1], x)
        for s in range(4):
            assert torch.equal(features.weights[0][1, 2, s, 1:], position.input_features[s])
        for r in range(3):
            assert torch.equal(features.weights[1][0, r, 4, 1:], position.output_features[r])
            assert torch.equal(features.biases[1][0, r, 1:], position.output_features[r])
        assert not features.biases[0][..., 1:].any()
        y = layer(features).flat
        hidden, everything = random_permutation(spec, "hidden"), random_permutation(spec, "all", 1)
        torch.testing.assert_close(layer(position(x[:, hidden])), y[:, hidden], rtol=0, atol=1e-12)
        assert (layer(position(x[:, everything])) - y[:, everything]).abs().max() > 1e-2
        assert len(list(position.parameters())) == (2 if learned else 0)
    sines = IOPosition(spec, 1, num_frequencies=2, max_frequency=4.0).input_features.double()
    t = torch.linspace(-1, 1, 4, dtype=torch.float64)
    expected = torch.stack([(torch.pi * t).sin(), (4 * torch.pi * t).sin(), (torch.pi * t).cos(), (4 * torch.pi * t).cos()], 1)
    torch.testing.assert_close(sines, expected, rtol=0, atol=1e-6)


def test_positions_of_nfn() -> None:
    """The features of its `IOSinusoidalEncoding`: e(t) = [sin(pi f t), cos(pi f t), t] f in equal steps, of inputs, outputs, layers."""
    spec = WeightSpec([4, 5, 6, 3])

    def encoded(t: float) -> Tensor:
        f = [1.0, 2.0, 3.0]
        return torch.tensor([*(math.sin(math.pi * one * t) for one in f), *(math.cos(math.pi * one * t) for one in f), t]).double()

    position = IOPosition(spec, 2, num_frequencies=3, max_frequency=6.0, scheme="nfn")
    x = torch.randn(2, spec.numel, 2)
    features = position(WeightSpace(x, spec)).double()
    assert position.out_channels == features.channels == 9 and torch.equal(features.flat[..., :2], x.double())
    inputs, outputs, layers = ([encoded(2 * i / (count - 1) - 1) for i in range(count)] for count in (4, 3, 3))
    for i in range(3):
        for r in range(spec.widths[i + 1]):
            of_row = layers[i] + (outputs[r] if i == 2 else 0)
            torch.testing.assert_close(features.biases[i][1, r, 2:], of_row, rtol=0, atol=1e-6)
            for s in range(spec.widths[i]):
                torch.testing.assert_close(features.weights[i][1, r, s, 2:], of_row + (inputs[s] if i == 0 else 0), rtol=0, atol=1e-6)
    assert not position.state_dict()
    for arguments, text in (
        (dict(scheme="other"), "must be 'geometric' or 'nfn', got 'other'"),
        (dict(scheme="nfn", learned=True), "must be 'geometric' with learned=True"),
    ):
        with pytest.raises(ValueError, match=f"^IOPosition: scheme {text}"):
            IOPosition(spec, 2, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_batches_of_gradients_with_rank(pool: str) -> None:
    layer = DWSLinear([3, 2, 2, 1], 2, 3, rank=2, pool=pool, dtype=torch.float64)
    x = torch.randn(2, layer.spec.numel, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Any:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters), check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, *parameters), check_batched_grad=True, fast_mode=True)
    jacobians = [torch.autograd.functional.jacobian(layer, x.detach(), vectorize=vectorize) for vectorize in (True, False)]
    torch.testing.assert_close(*jacobians, rtol=0, atol=1e-13)


def test_an_edit_moves_with_the_neurons() -> None:
    """The functions of edited networks do not depend on the order of the neurons of the networks that were edited."""
    spec = WeightSpec([2, 6, 5, 3])
    ws = WeightSpace(torch.randn(4, spec.numel, 1, dtype=torch.float64), spec)
    layer = DWSLinear(spec, 1, 1, dtype=torch.float64)
    permutations = [torch.randperm(6), torch.randperm(5)]
    x = torch.randn(7, 2, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for one, other in zip(layer(ws).to_state_dicts(), layer(ws.permute(permutations)).to_state_dicts(), strict=True):
        first, second = (torch.func.functional_call(network, state_dict, (x,)) for state_dict in (one, other))
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [DWSLinear, NPLinear])
def test_the_input_is_all_that_is_kept_for_the_backward(kind: type[Any]) -> None:
    spec = WeightSpec([2, 16, 16, 1])
    layer, x = kind(spec, 8, 8), torch.randn(4, spec.numel, 8, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        layer(x)
    parameters = {parameter.data_ptr() for parameter in layer.parameters()}
    others = [tensor for tensor in kept if tensor.data_ptr() not in parameters | {x.data_ptr()}]
    assert any(tensor.data_ptr() == x.data_ptr() for tensor in kept) and sum(tensor.numel() for tensor in others) < x.numel() / 2


@pytest.mark.parametrize("kind", [DWSLinear, NPLinear, DWSInvariant])
def test_wrong_input_is_named(kind: type[Any]) -> None:
    spec = WeightSpec([2, 3, 1])
    layer, name = kind(spec, 2, 4), kind.__name__
    for other in (WeightSpec([3, 3, 1]), WeightSpec([2, 3, 2]), WeightSpec([2, 3, 3, 1])):
        with pytest.raises(ValueError, match=rf"{name}: .* the layer is for WeightSpec\(\[2, 3, 1\]\), the input is WeightSpec"):
            layer(WeightSpace(torch.zeros(1, other.numel, 2), other))
    with pytest.raises(ValueError, match=rf"{name}: input must have 2 channels, got 3"):
        layer(WeightSpace(torch.zeros(1, spec.numel, 3), spec))
    with pytest.raises(ValueError, match=rf"{name}: a plain tensor must have shape \(B, P=13, C=2\) .* got \(1, 12, 2\)"):
        layer(torch.zeros(1, 12, 2))
    with pytest.raises(ValueError, match=rf"{name}: pool must be 'mean', 'sum' or 'max', got 'median'"):
        kind(spec, 2, 4, pool="median")
    with pytest.raises(ValueError, match=rf"{name}: in_channels must be a positive integer, got 0"):
        kind(spec, 0, 4)


def test_a_list_of_widths_is_a_spec() -> None:
    for kind in (DWSLinear, NPLinear, DWSInvariant):
        assert kind([2, 3, 1], 1, 4).spec == WeightSpec([2, 3, 1])
        assert kind(WeightSpec([2] * 33), 1, 1)(torch.zeros(1, 192, 1)).shape[0] == 1
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: spec must have at most 32 layers, got 33"):
            kind([2] * 34, 1, 1)
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: WeightSpec: widths must be two or more integers"):
            kind([2], 1, 1)
        for other in ("231", 3, None, {2: 3}):
            text = f"{kind.__name__}: spec must be a WeightSpec or a list of widths, got {type(other).__name__}"
            with pytest.raises(TypeError, match=f"^{text}"):
                kind(other, 1, 1)  # type: ignore[arg-type]
    assert IOPosition([2, 3, 1], 1).spec == WeightSpec([2, 3, 1])


def test_wrong_arguments_are_named() -> None:
    spec = WeightSpec([5, 3, 1])
    for arguments in (dict(rank=6), dict(rank=-1), dict(rank=2, pool="max")):
        with pytest.raises(ValueError, match="DWSLinear: rank must be 0, or at most d_0=5"):
            DWSLinear(spec, 1, 1, **arguments)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="DWSInvariant: rank must be 0, or at most d_0=5"):
            DWSInvariant(spec, 1, 1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DWSInvariant: symmetry must be 'hidden' or 'all', got 'none'"):
        DWSInvariant(spec, 1, 1, symmetry="none")
    with pytest.raises(ValueError, match=r"IOPosition: max_frequency must be at least 1 and finite, got 0\.5"):
        IOPosition(spec, 1, max_frequency=0.5)
