"""Weight spaces: the layout of the entries, state dicts there and back, and what is refused."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isotypic.nn import WeightSpace, WeightSpec


def mlp(*widths: int, bias: bool = True, activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        layers += [nn.Linear(columns, rows, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def states(*networks: nn.Module) -> list[dict[str, Tensor]]:
    return [network.state_dict() for network in networks]


def assert_round_trip(state_dicts: list[dict[str, Tensor]]) -> WeightSpace:
    ws = WeightSpace.from_state_dicts(state_dicts)
    back = ws.to_state_dicts()
    assert len(ws) == len(back) == len(state_dicts)
    for found, expected in zip(back, state_dicts, strict=True):
        assert list(found) == list(expected)
        assert all(torch.equal(found[key], expected[key]) and found[key].dtype == expected[key].dtype for key in expected)
    return ws


def test_layout_is_that_of_the_definition() -> None:
    """P counted and each entry found by the loop of the definition: W_1, b_1, ..., rows first."""
    spec = WeightSpec([2, 3, 4, 2])
    ws = WeightSpace(torch.arange(2.0 * spec.numel * 5).reshape(2, spec.numel, 5), spec)
    position = 0
    for layer in range(3):
        for row in range(spec.widths[layer + 1]):
            for column in range(spec.widths[layer]):
                assert torch.equal(ws.weights[layer][:, row, column], ws.flat[:, position])
                position += 1
        for row in range(spec.widths[layer + 1]):
            assert torch.equal(ws.biases[layer][:, row], ws.flat[:, position])
            position += 1
    assert position == spec.numel == sum(parameter.numel() for parameter in mlp(2, 3, 4, 2).parameters())
    assert all(view._base is ws.flat or view.untyped_storage().data_ptr() == ws.flat.untyped_storage().data_ptr() for view in ws.weights)


def test_spec_says_what_it_is() -> None:
    spec = WeightSpec([2, 32, 32, 1])
    assert (spec.depth, spec.in_features, spec.out_features, spec.hidden, spec.channels) == (3, 2, 1, (32, 32), 1)
    assert spec == WeightSpec((2, 32, 32, 1)) and hash(spec) == hash(WeightSpec((2, 32, 32, 1))) and spec != WeightSpec([2, 32, 1])
    assert spec.matches(WeightSpec([2, 5, 7, 1])) and not spec.matches(WeightSpec([2, 5, 7, 2]))
    assert repr(spec) == "WeightSpec([2, 32, 32, 1])"
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)


@pytest.mark.parametrize("widths", [(2, 3), (2, 32, 32, 1), (3, 4, 5, 6, 7)])
def test_state_dicts_there_and_back(widths: tuple[int, ...]) -> None:
    ws = assert_round_trip(states(mlp(*widths), mlp(*widths), mlp(*widths)))
    assert ws.spec == WeightSpec(widths) and ws.flat.shape == (3, ws.spec.numel, 1) and ws.sizes is None


def test_names_of_any_kind_come_back() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.body, self.last = nn.Linear(2, 3), nn.ModuleDict({"middle": nn.Linear(3, 3)}), nn.Linear(3, 1)

    assert_round_trip(states(Named(), Named()))
    assert_round_trip([{"weight": torch.randn(3, 2), "bias": torch.randn(3)}])


def test_missing_biases_are_zero_and_said() -> None:
    state_dicts = states(mlp(2, 3, 1, bias=False))
    with pytest.warns(UserWarning, match=r"no bias beside 0\.weight, 2\.weight; zeros take its place"):
        ws = WeightSpace.from_state_dicts(state_dicts)
    assert ws.spec == WeightSpec([2, 3, 1]) and not any(bias.any() for bias in ws.biases)
    assert list(ws.to_state_dicts()[0]) == ["0.weight", "2.weight"]
    with pytest.raises(ValueError, match=r"network 0 has no bias beside '0\.weight', but the entries of this bias are not zero"):
        ws.map(lambda flat: flat + 1).to_state_dicts()
    partly = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    with pytest.warns(UserWarning, match=r"no bias beside 2\.weight;"):
        assert_round_trip(states(partly))


def test_hidden_widths_may_differ() -> None:
    networks = [mlp(2, 3, 5, 1), mlp(2, 4, 4, 1), mlp(2, 8, 2, 1)]
    ws = assert_round_trip(states(*networks))
    assert ws.spec == WeightSpec([2, 8, 5, 1]) and ws.sizes is not None and ws.mask is not None
    assert ws.sizes.tolist() == [[2, 3, 5, 1], [2, 4, 4, 1], [2, 8, 2, 1]]
    assert ws.mask.sum(1).tolist() == [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert torch.equal(ws.weights[1][0, :5, :3, 0], networks[0][2].weight) and not ws.flat[~ws.mask].any()  # type: ignore[arg-type]
    again = WeightSpace.cat(ws.split())
    assert torch.equal(again.flat, ws.flat) and again.sizes is not None and torch.equal(again.sizes, ws.sizes)
    assert WeightSpace.cat([ws, ws]).flat.shape == (6, ws.spec.numel, 1)
    same = WeightSpace.cat(ws.split()[:1] * 2)
    assert same.sizes is None and same.mask is None and same.flat.shape == (2, WeightSpec([2, 3, 5, 1]).numel, 1)
    with pytest.raises(ValueError, match=r"WeightSpace\.permute: the hidden widths of these networks differ"):
        ws.permute([torch.arange(8), torch.arange(5)])


def conv_net(hidden: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, hidden, 3), nn.ReLU(), nn.Conv2d(hidden, 5, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )


def test_filters_fold_into_channels() -> None:
    networks = [conv_net(), conv_net()]
    ws = assert_round_trip(states(*networks))
    assert ws.spec == WeightSpec([1, 4, 5, 3], filters=[(3, 3), (2, 2), ()]) and ws.channels == ws.spec.channels == 9
    for network, index in zip(networks, range(2), strict=True):
        weight = network[2].weight  # type: ignore[union-attr]
        for row in range(5):
            for column in range(4):
                for tap in range(4):
                    assert ws.weights[1][index, row, column, tap] == weight[row, column, tap // 2, tap % 2]  # type: ignore[index]
    assert not ws.weights[1][..., 4:].any() and not ws.weights[2][..., 1:].any() and not ws.biases[0][..., 1:].any()


def test_flattened_positions_fold_into_channels() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6, 7), nn.ReLU(), nn.Linear(7, 3))
    ws = assert_round_trip(states(network))
    assert ws.spec == WeightSpec([1, 4, 7, 3], filters=[(3, 3), (6,), ()], flattened=1)
    assert torch.equal(ws.weights[1][0, 2, 3, :6], network[3].weight[2, 18:24])  # type: ignore[union-attr, index]
    assert assert_round_trip(states(nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Conv1d(3, 2, 3)))).spec.flattened is None


@pytest.mark.parametrize("kind", ["one for all", "one for each"])
def test_permuting_hidden_neurons_keeps_the_functions(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    networks = [mlp(3, 5, 4, 6, 2).double() for _ in range(4)]
    ws = WeightSpace.from_state_dicts(states(*networks))
    shape = (4,) if kind == "one for each" else ()
    permutations = [torch.rand(*shape, width, generator=generator).argsort(-1) for width in ws.spec.hidden]
    permuted = ws.permute(permutations)
    assert not torch.equal(permuted.flat, ws.flat)
    x = torch.randn(7, 3, dtype=torch.float64)
    for network, state_dict in zip(networks, permuted.to_state_dicts(), strict=True):
        other = mlp(3, 5, 4, 6, 2).double()
        other.load_state_dict(state_dict)
        torch.testing.assert_close(other(x), network(x), rtol=0, atol=1e-14)
    for index, order in enumerate(permutations[1] if kind == "one for each" else [permutations[1]] * 4):
        assert torch.equal(permuted.biases[1][index], ws.biases[1][index, order])


def test_permuting_filters_keeps_the_functions() -> None:
    networks = [conv_net().double(), conv_net().double()]
    permuted = WeightSpace.from_state_dicts(states(*networks)).permute([torch.tensor([2, 0, 3, 1]), torch.tensor([4, 3, 2, 0, 1])])
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for network, state_dict in zip(networks, permuted.to_state_dicts(), strict=True):
        other = conv_net().double()
        other.load_state_dict(state_dict)
        torch.testing.assert_close(other(x), network(x), rtol=0, atol=1e-14)


def test_from_tensors() -> None:
    weights, biases = [torch.randn(4, 3, 2), torch.randn(4, 1, 3)], [torch.randn(4, 3), None]
    ws = WeightSpace.from_tensors(weights, biases)
    assert ws.spec == WeightSpec([2, 3, 1])
    assert torch.equal(ws.weights[0][..., 0], weights[0]) and torch.equal(ws.biases[0][..., 0], biases[0]) and not ws.biases[1].any()  # type: ignore[arg-type]
    channels = WeightSpace.from_tensors([torch.randn(4, 3, 2, 5)], [torch.randn(4, 3, 5)])
    assert channels.channels == 5
    for wrong, text in (
        (([torch.randn(4, 3, 2), torch.randn(4, 1, 2)], [None, None]), r"weights\[1\] must have shape \(4, 1, 3, 1\), got \(4, 1, 2, 1\)"),
        (([torch.randn(4, 3, 2)], [torch.randn(4, 2)]), r"biases\[0\] must have shape \(4, 3, 1\), got \(4, 2, 1\)"),
        (([torch.randn(4, 3, 2)], []), r"must be as many, got 1 and 0"),
    ):
        with pytest.raises(ValueError, match=text):
            WeightSpace.from_tensors(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights have widths \[2, 3, 1\], but spec is WeightSpec\(\[2, 4, 1\]\)"):
        WeightSpace.from_tensors(weights, biases, WeightSpec([2, 4, 1]))


def bad(change: Callable[[dict[str, Any]], Any], *widths: int) -> list[dict[str, Any]]:
    state_dict = dict(mlp(*(widths or (2, 3, 1))).state_dict())
    change(state_dict)
    return [dict(mlp(*(widths or (2, 3, 1))).state_dict()), state_dict]


WRONG: list[tuple[list[dict[str, Any]], str]] = [
    (
        bad(lambda sd: sd.update({"2.weight": torch.ones(1, 4)})),
        r"state dict 1 is not a chain: '2.weight' of shape \(1, 4\) takes 4 inputs, '0.weight' .* gives 3",
    ),
    (
        bad(lambda sd: sd.update({"1.running_mean": torch.ones(3)})),
        r"state dict 1, '1.running_mean' of shape \(3,\) is neither the weight nor",
    ),
    (bad(lambda sd: sd.update({"1.weight": torch.ones(3)})), r"state dict 1, '1.weight' of shape \(3,\) is neither the weight nor"),
    (bad(lambda sd: sd.update({"1.bias": torch.ones(3)})), r"state dict 1 has '1.bias' without a weight"),
    (
        bad(lambda sd: sd.update({"0.bias": torch.ones(2)})),
        r"state dict 1, '0.bias' must have shape \(3,\) for '0.weight' of shape \(3, 2\), got \(2,\)",
    ),
    (bad(lambda sd: sd["2.weight"].fill_(float("nan"))), r"state dict 1, '2.weight' has values that are not finite"),
    (bad(lambda sd: sd["0.bias"].fill_(float("inf"))), r"state dict 1, '0.bias' has values that are not finite"),
    (
        bad(lambda sd: sd.update({"0.bias": torch.ones(3, dtype=torch.int64)})),
        r"state dict 1, '0.bias' must be of a floating-point dtype, got torch.int64",
    ),
    (bad(lambda sd: sd.update({"0.bias": 1.0})), r"state dict 1, '0.bias' must be a tensor, got float"),
    (bad(lambda sd: sd.clear()), r"state dict 1 has no layers"),
    ([{"0.weight": torch.zeros(0, 2), "2.weight": torch.zeros(1, 0)}], r"state dict 0, '0.weight' has no values, its shape is \(0, 2\)"),
    (states(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))), r"'1.weight' of shape \(3,\) is neither .* normalisation"),
    (bad(lambda sd: sd.pop("0.bias")), r"state dicts must have the same keys; .* in state dict 1"),
    (
        bad(lambda sd: sd.update({key: value.double() for key, value in sd.items()})),
        r"one dtype and device; torch.float32 on cpu in state dict 0",
    ),
    (
        [*states(mlp(2, 3, 1)), *states(mlp(2, 3, 3, 1))],
        r"networks may differ in their hidden widths alone; state dict 0 has WeightSpec\(\[2, 3, 1\]\)",
    ),
    ([*states(mlp(2, 3, 1)), *states(mlp(3, 3, 1))], r"networks may differ in their hidden widths alone"),
    ([], r"needs at least one state dict"),
    (states(nn.Sequential(nn.Linear(2, 4), nn.Conv2d(4, 3, 3))), r"state dict 0 is not a chain: '1.weight' .* follows '0.weight'"),
    (states(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4))), r"state dict 0 is not a chain: '1.weight' .* takes 1 inputs"),
]


@pytest.mark.parametrize("state_dicts, text", WRONG, ids=[text[:50] for _, text in WRONG])
def test_state_dicts_that_are_refused(state_dicts: list[dict[str, Any]], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=r"WeightSpace\.from_state_dicts: .*" + text):
        WeightSpace.from_state_dicts(state_dicts)


def test_widths_that_differ_from_the_spec_are_refused() -> None:
    with pytest.raises(ValueError, match=r"state dict 0 has WeightSpec\(\[2, 3, 1\]\), spec is WeightSpec\(\[2, 4, 1\]\)"):
        WeightSpace.from_state_dicts(states(mlp(2, 3, 1)), WeightSpec([2, 4, 1]))
    with pytest.raises(TypeError, match="must be a sequence of state dicts, got a single one"):
        WeightSpace.from_state_dicts(mlp(2, 3, 1).state_dict())  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert WeightSpace.from_state_dicts(states(mlp(2, 3, 1)), WeightSpec([2, 3, 1])).spec == WeightSpec([2, 3, 1])


def test_shapes_that_are_refused() -> None:
    spec = WeightSpec([2, 3, 1])
    with pytest.raises(ValueError, match=r"flat must have shape \(B, P=13, C\) for WeightSpec\(\[2, 3, 1\]\), got \(4, 12, 1\)"):
        WeightSpace(torch.zeros(4, 12, 1), spec)
    with pytest.raises(ValueError, match=r"sizes must have shape \(B=4, M \+ 1 = 3\) and dtype torch.int64, got \(4, 2\), torch.int64"):
        WeightSpace(torch.zeros(4, 13, 1), spec, torch.ones(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"hidden widths alone; batch 0 has WeightSpec\(\[2, 3, 1\]\), 1 WeightSpec\(\[2, 3, 2\]\)"):
        WeightSpace.cat([WeightSpace(torch.zeros(1, one.numel, 1), one) for one in (spec, WeightSpec([2, 3, 2]))])
    ws = WeightSpace(torch.zeros(4, 13, 2), spec)
    with pytest.raises(ValueError, match=r"have 1 channels, these have 2"):
        ws.to_state_dicts()
    with pytest.raises(ValueError, match=r"needs M - 1 = 1 permutations, got 0"):
        ws.permute([])
    with pytest.raises(ValueError, match=r"permutation 0 must have shape \(d=3,\) or \(B=4, d=3\), got \(2,\)"):
        ws.permute([torch.arange(2)])
    with pytest.raises(ValueError, match=r"channels must agree, got \[2, 1\]"):
        WeightSpace.cat([ws, WeightSpace(torch.zeros(4, 13, 1), spec)])
    for widths in ([], [3], [2, 0, 1], [-1, 2]):
        with pytest.raises(ValueError, match="widths must be two or more integers >= 1"):
            WeightSpec(widths)
    with pytest.raises(ValueError, match=r"filters must be M=2 shapes of integers >= 1"):
        WeightSpec([1, 2, 3], filters=[(3, 3)])
    with pytest.raises(ValueError, match=r"flattened must be a layer 1 <= i < M=2 with a filter of shape \(positions,\), got 0"):
        WeightSpec([1, 2, 3], flattened=0)
    with pytest.raises(ValueError, match=r"keys must be M=2 pairs of names, all different"):
        WeightSpec([1, 2, 3], keys=[("a", "b")])


def test_passes_through_torch_func() -> None:
    """A weight space is a container for torch: vmap and grad see its tensor."""
    ws = WeightSpace(torch.randn(4, 13, 2), WeightSpec([2, 3, 1]))
    gradient = torch.func.grad(lambda one: one.flat.square().sum() / 2)(ws)
    assert torch.equal(gradient.flat, ws.flat) and gradient.spec == ws.spec
    doubled = torch.func.vmap(lambda flat: WeightSpace(flat, ws.spec).map(lambda values: 2 * values))(torch.stack([ws.flat, ws.flat]))
    assert torch.equal(doubled.flat[1], 2 * ws.flat)
    assert torch.equal(pickle.loads(pickle.dumps(ws)).flat, ws.flat) and torch.equal(copy.deepcopy(ws).flat, ws.flat)


def test_what_would_be_taken_for_something_else() -> None:
    """Values of a wrong kind that torch or int() would take without a word."""
    for widths in ([2.5, 3], [True, 3], "23", 3, None):
        with pytest.raises(ValueError, match=r"^WeightSpec: widths must be two or more integers >= 1, got "):
            WeightSpec(widths)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^WeightSpec: filters must be M=1 shapes of integers >= 1"):
        WeightSpec([2, 3], filters=[(2.5,)])  # type: ignore[list-item]
    for keys in ([("a", "b"), ("a", "b")], ["ab", "cd"], [(None, "b"), ("c", "d")]):
        with pytest.raises(ValueError, match=r"^WeightSpec: keys must be M=2 pairs of names, all different"):
            WeightSpec([2, 3, 4], keys=keys)  # type: ignore[arg-type]
    spec = WeightSpec([2, 3, 1])
    ws = WeightSpace(torch.randn(4, 13, 1), spec)
    for values in ([0, 1, 4], [0, 1, 1], [0, 1, -1]):
        with pytest.raises(ValueError, match=r"^WeightSpace.permute: permutation 0 must hold each of 0, ..., 2 once"):
            ws.permute([torch.tensor(values)])
    with pytest.raises(TypeError, match=r"^WeightSpace.permute: permutation 0 must have an integer dtype"):
        ws.permute([torch.zeros(3)])
    for width in (0, 4):
        with pytest.raises(ValueError, match=f"^WeightSpace: sizes must be from 1 to 3 at label 1, got {width} for network 2"):
            WeightSpace(ws.flat, spec, torch.tensor([[2, 3, 1], [2, 1, 1], [2, width, 1], [2, 3, 1]]))
    with pytest.raises(ValueError, match=r"^WeightSpace.cat: batches must have one dtype and device"):
        WeightSpace.cat([ws, ws.to(torch.float64)])
    with pytest.raises(TypeError, match=r"^WeightSpace.from_state_dicts: state dict 0 must have one dtype"):
        WeightSpace.from_state_dicts([{"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2, dtype=torch.float64)}])


def test_numbers_in_names_say_the_order_of_a_sorted_dict() -> None:
    """Square layers make a chain in any order, so that a wrong one would pass without a word."""
    for network in (mlp(*[3] * 8), mlp(*[3] * 8, bias=False)):
        state_dict = network.state_dict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if network[0].bias is None else "error")  # type: ignore[union-attr]
            expected = WeightSpace.from_state_dicts([state_dict])
            found = WeightSpace.from_state_dicts([dict(sorted(state_dict.items()))])
        assert list(state_dict) != sorted(state_dict)
        assert torch.equal(found.flat, expected.flat) and found.spec.keys == expected.spec.keys
    reverse = dict(reversed(list(mlp(2, 3, 4, 1).state_dict().items())))
    assert WeightSpace.from_state_dicts([reverse]).spec.keys == WeightSpec([2, 3, 4, 1]).keys


def test_the_order_of_a_module_is_left_alone() -> None:
    for names in (["fc1", "fc2", "fc3"], ["z", "b", "a"], ["layer10", "layer9", "layer1"], ["in", "0", "out"]):
        network = nn.ModuleDict({name: nn.Linear(3, 3) for name in names})
        ws = assert_round_trip(states(network, network))
        assert [weight for weight, _ in ws.spec.keys] == [f"{name}.weight" for name in names]


def test_keys_of_a_spec_are_read_as_they_are_written() -> None:
    spec = WeightSpec([2, 3, 1], keys=[("W1", "b1"), ("W2", None)])
    ws = WeightSpace(torch.randn(2, 13, 1), spec)
    written = ws.to_state_dicts(drop_biases=True)
    assert list(written[0]) == ["W1", "b1", "W2"]
    with pytest.warns(UserWarning, match="no bias beside W2;"):
        back = WeightSpace.from_state_dicts([dict(sorted(one.items())) for one in written], spec)
    assert back.spec.keys == spec.keys and torch.equal(back.flat[:, :12], ws.flat[:, :12]) and not back.flat[:, 12:].any()
    for change, text in (
        (lambda sd: sd.pop("b1"), r"state dict 0 has no 'b1', which the keys of spec name; it has \['W1', 'W2'\]"),
        (lambda sd: sd.update(b2=torch.zeros(1)), r"state dict 0 has 'b2', which the keys of spec do not name; they are"),
        (lambda sd: sd.update(W1=torch.zeros(3)), r"state dict 0, 'W1' must be the weight of a layer, got shape \(3,\)"),
        (lambda sd: sd.update(b1=torch.zeros(3, 1)), r"state dict 0, 'b1' must be the bias of a layer, got shape \(3, 1\)"),
    ):
        one = dict(written[0])
        change(one)  # type: ignore[no-untyped-call]
        with pytest.raises(ValueError, match=rf"^WeightSpace.from_state_dicts: {text}"):
            WeightSpace.from_state_dicts([one], spec)


def test_networks_with_other_names_do_not_join() -> None:
    spec = WeightSpec([2, 3, 1])
    for keys in ([("fc1.weight", "fc1.bias"), ("fc2.weight", "fc2.bias")], [("0.weight", None), ("2.weight", "2.bias")]):
        batches = [WeightSpace(torch.zeros(1, 13, 1), one) for one in (spec, WeightSpec([2, 3, 1], keys=keys))]
        with pytest.raises(ValueError, match=r"^WeightSpace.cat: .* same names .*; batch 0 has \[\('0.weight', '0.bias'\).*, 1 \[\('"):
            WeightSpace.cat(batches)


def test_biases_that_an_edit_wrote_can_be_left_out() -> None:
    network = mlp(2, 3, 1, bias=False)
    with pytest.warns(UserWarning, match="no bias beside"):
        ws = WeightSpace.from_state_dicts(states(network))
    network.load_state_dict(ws.map(lambda flat: flat + 1).to_state_dicts(drop_biases=True)[0])
    assert torch.equal(network[0].weight, ws.weights[0][0, ..., 0] + 1)


def test_parts_of_a_batch() -> None:
    widths = [[2, 3, 1], [2, 5, 1], [2, 4, 1], [2, 1, 1]]
    equal = WeightSpace(torch.randn(4, 21, 2), WeightSpec([2, 5, 1]))
    differ = WeightSpace(equal.flat, equal.spec, torch.tensor(widths))
    for ws in (equal, differ):
        for index, chosen in (
            (1, [1]),
            (-1, [3]),
            (np.int64(2), [2]),
            (torch.tensor(2), [2]),
            (slice(1, None, 2), [1, 3]),
            (slice(4, None), []),
            (torch.tensor([3, 0, 3]), [3, 0, 3]),
            ([3, -4], [3, 0]),
            ([], []),
            (np.array([1]), [1]),
            (torch.tensor([True, False, True, False]), [0, 2]),
            ([False, False, False, True], [3]),
        ):
            part = ws[index]  # type: ignore[index]
            assert torch.equal(part.flat, ws.flat[chosen]) and part.spec == ws.spec
            assert (part.sizes is None) == (ws.sizes is None)
            assert part.sizes is None or part.sizes.tolist() == [widths[i] for i in chosen]
        assert [one.flat.equal(ws.flat[i : i + 1]) for i, one in enumerate(ws)] == [True] * 4
        for wrong in (4, -5):
            with pytest.raises(IndexError, match=f"^WeightSpace: index must be from -4 to 3, got {wrong}"):
                ws[wrong]
        with pytest.raises(IndexError, match=r"^WeightSpace: a mask must have shape \(B=4,\), got \(3,\)"):
            ws[torch.ones(3, dtype=torch.bool)]
        for other in (True, None, (slice(None), 0), 1.0, "a", torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64), ...):
            with pytest.raises((TypeError, ValueError, RuntimeError)):
                ws[other]  # type: ignore[index]


def test_no_networks() -> None:
    spec = WeightSpec([2, 3, 1])
    for sizes in (None, torch.zeros(0, 3, dtype=torch.int64)):
        ws = WeightSpace(torch.zeros(0, 13, 1), spec, sizes)
        assert ws.split() == [] and ws.to_state_dicts() == [] and list(ws) == []


def test_what_a_tensor_can_do() -> None:
    spec = WeightSpec([2, 3, 1])
    for sizes in (None, torch.tensor([[2, 3, 1], [2, 1, 1]])):
        ws = WeightSpace(torch.randn(2, 13, 1, requires_grad=True), spec, sizes)
        assert (ws.shape, ws.dtype, ws.device) == (ws.flat.shape, torch.float32, torch.device("cpu"))
        for other in (ws.to(dtype=torch.float64, device="cpu"), ws.to("cpu", torch.float64), ws.double(), ws.double().cpu()):
            assert other.dtype == torch.float64 and torch.equal(other.flat.float(), ws.flat)
            assert (other.sizes is None) == (sizes is None) and (sizes is None or torch.equal(other.sizes, sizes))
        assert ws.double().float().dtype == torch.float32
        assert ws.flat.requires_grad and not ws.detach().flat.requires_grad and ws.clone().flat.requires_grad
        copied = ws.detach().clone()
        copied.flat.zero_()
        assert ws.flat.any() and (sizes is None or copied.sizes is not ws.sizes)
    meta = WeightSpace(torch.zeros(2, 13, 1), spec, sizes).to(device="meta")
    assert meta.device.type == "meta" and meta.sizes is not None and meta.sizes.is_meta
    masked = ws.detach().masked()
    assert masked.mask is not None and not masked.flat[~masked.mask].any() and masked.flat[masked.mask].equal(ws.flat[masked.mask])


def test_functions_of_entries_do_not_see_what_is_outside() -> None:
    """The gradient of a logarithm at the zeros of the padding would be 0 * inf, in the input and in a factor of the function."""
    both = WeightSpace.cat([WeightSpace(1 + torch.rand(2, 4 * width + 1, 3).double(), [2, width, 1]) for width in (3, 5)])
    mask, factor = both.mask, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert mask is not None
    flat = both.flat.requires_grad_()
    mapped = both.map(lambda values: factor * values.log())
    assert torch.equal(mapped.flat[mask], factor * flat[mask].log()) and not mapped.flat[~mask].any()
    mapped.flat.sum().backward()
    torch.testing.assert_close(factor.grad, flat.detach()[mask].log().sum(), rtol=1e-14, atol=0)
    assert flat.grad is not None and not flat.grad[~mask].any()
    torch.testing.assert_close(flat.grad[mask], 2 / flat.detach()[mask], rtol=1e-14, atol=0)


def test_files_of_torch_are_read_without_pickled_code() -> None:
    spec = WeightSpec([1, 4, 3], filters=[(3, 3), ()], keys=[("a", None), ("b", "c")])
    for ws in (WeightSpace(torch.randn(2, spec.numel, 9), spec), WeightSpace(torch.randn(1, 13, 1), [2, 3, 1], torch.tensor([[2, 2, 1]]))):
        file = io.BytesIO()
        torch.save({"networks": ws}, file)
        file.seek(0)
        read = torch.load(file, weights_only=True)["networks"]
        assert isinstance(read, WeightSpace) and torch.equal(read.flat, ws.flat)
        assert read.spec == ws.spec and read.spec.keys == ws.spec.keys
        assert (read.sizes is None) == (ws.sizes is None) and (ws.sizes is None or torch.equal(read.sizes, ws.sizes))


def test_arguments_of_other_types_are_named() -> None:
    weights, biases = [torch.randn(4, 3, 2), torch.randn(4, 1, 3)], [torch.randn(4, 3), None]
    assert WeightSpace.from_tensors(weights, biases, [2, 3, 1]).spec == WeightSpec([2, 3, 1])
    assert WeightSpace.from_state_dicts(states(mlp(2, 3, 1)), spec=[2, 3, 1]).spec == WeightSpec([2, 3, 1])
    state_dict = mlp(2, 3, 1).state_dict()
    for call, error, text in (
        (lambda: WeightSpace.from_tensors(weights, biases, "231"), TypeError, "from_tensors: spec must be a WeightSpec or a list"),
        (lambda: WeightSpace.from_tensors(weights, biases, [2, 0, 1]), ValueError, "from_tensors: WeightSpec: widths must be"),
        (lambda: WeightSpace.from_tensors(weights[0], biases), TypeError, "from_tensors: weights must be a list of tensors, got Tensor"),
        (lambda: WeightSpace.from_tensors(weights, None), TypeError, "from_tensors: biases must be a list of tensors, got NoneType"),
        (lambda: WeightSpace.from_tensors([torch.zeros(3)], [None]), ValueError, r"from_tensors: weights\[0\] must have shape"),
        (
            lambda: WeightSpace.from_tensors([weights[0], weights[1] * float("inf")], biases),
            ValueError,
            r"from_tensors: weights\[1\] has values that are not finite",
        ),
        (lambda: WeightSpace.from_state_dicts([state_dict], 3), TypeError, "from_state_dicts: spec must be a WeightSpec or a list"),
        (
            lambda: WeightSpace.from_state_dicts([{key: value.to("meta") for key, value in state_dict.items()}]),
            TypeError,
            "from_state_dicts: state dict 0, '0.weight' must hold values, got a tensor on the meta device",
        ),
        (
            lambda: WeightSpace.from_state_dicts([{"0.weight": torch.eye(3).to_sparse()}]),
            TypeError,
            "from_state_dicts: state dict 0, '0.weight' must be dense, got torch.sparse_coo",
        ),
        (lambda: WeightSpace.from_state_dicts([{0: torch.eye(3)}]), TypeError, "from_state_dicts: state dict 0 must have strings for"),
    ):
        with pytest.raises(error, match=f"^WeightSpace.{text}"):
            call()
