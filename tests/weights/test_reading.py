"""Reading networks of torch: what does not say in which order its layers are applied, or has fewer symmetries than a chain, is refused."""

from __future__ import annotations

import io
import itertools
import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from isotypic.nn import WeightSpace, WeightSpec
from isotypic.nn.weights._order import before


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        layers += [nn.Linear(columns, rows, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def shuffled(state_dict: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A plain dict in another order, as file formats give it."""
    keys = list(state_dict)
    random.Random(seed).shuffle(keys)
    return {key: state_dict[key] for key in keys}


def read(*state_dicts: dict[str, Tensor], spec: WeightSpec | None = None) -> WeightSpace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing biases
        return WeightSpace.from_state_dicts(list(state_dicts), spec)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("widths", [(8, 8, 8, 8), (3,) * 14, (2, 5, 5, 5, 1), (4, 9, 4, 9, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_numbers_say_the_order_of_any_dict(widths: tuple[int, ...], bias: bool, seed: int) -> None:
    network = mlp(*widths, bias=bias)
    expected = read(network.state_dict())
    found = read(shuffled(network.state_dict(), seed))
    assert torch.equal(found.flat, expected.flat) and found.spec.keys == expected.spec.keys
    x = torch.randn(7, widths[0])
    other = mlp(*widths, bias=bias)
    other.load_state_dict(found.permute([torch.randperm(width) for width in widths[1:-1]]).to_state_dicts(drop_biases=True)[0])
    torch.testing.assert_close(other(x), network(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shapes",
    [
        {"decoder": (20, 4), "encoder": (4, 20)},
        {"encoder": (4, 20), "decoder": (20, 4)},
        {"in": (6, 6), "mid": (6, 6), "out": (6, 6)},
        {"a": (3, 2), "b": (3, 3), "c": (3, 3), "d": (1, 3)},
        {"decoder.0": (7, 4), "decoder.2": (20, 7), "encoder.0": (7, 20), "encoder.2": (4, 7)},
        {"conv.0": (3, 3, 3, 3), "tail": (3, 3, 3, 3), "head": (3, 3, 3, 3)},
    ],
    ids=str,
)
def test_several_orders_are_refused_and_listed(shapes: dict[str, tuple[int, ...]], bias: bool) -> None:
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = torch.randn(shape)
        if bias:
            tensors[f"{name}.bias"] = torch.randn(shape[0])
    for seed in range(3):
        with pytest.raises(ValueError, match=r"does not say in which order .*more than one makes a chain: .*; or .*from_modules.*keys=\["):
            read(shuffled(tensors, seed))
    # The order of a module is known; so is that of keys.
    names = list(shapes)
    if "conv.0" not in shapes and "decoder.0" not in shapes:
        network = nn.ModuleDict({name: nn.Linear(shape[1], shape[0], bias=bias) for name, shape in shapes.items()})
        assert [weight for weight, _ in read(network.state_dict()).spec.keys] == [f"{name}.weight" for name in names]
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        assert [weight for weight, _ in read(torch.load(file)).spec.keys] == [f"{name}.weight" for name in names]
        widths = [shapes[names[0]][1], *(shape[0] for shape in shapes.values())]
        spec = WeightSpec(widths, keys=[(f"{name}.weight", f"{name}.bias" if bias else None) for name in names])
        assert read(shuffled(tensors, 1), spec=spec).spec.keys == spec.keys


def test_widths_of_a_spec_decide() -> None:
    tensors = {"decoder.weight": torch.randn(20, 4), "encoder.weight": torch.randn(4, 20)}
    assert read(tensors, spec=WeightSpec([20, 4, 20])).spec.keys == (("encoder.weight", None), ("decoder.weight", None))
    assert read(tensors, spec=WeightSpec([4, 20, 4])).spec.keys == (("decoder.weight", None), ("encoder.weight", None))


def test_one_order_is_taken_whatever_the_dict() -> None:
    tensors = {"z.weight": torch.randn(1, 3), "a.weight": torch.randn(5, 2), "m.weight": torch.randn(3, 5)}
    for order in itertools.permutations(tensors):
        assert [key for key, _ in read({key: tensors[key] for key in order}).spec.keys] == ["a.weight", "m.weight", "z.weight"]


def test_numbers_decide_where_names_part() -> None:
    assert before("blocks.0.up.weight", "blocks.1.down.weight") and not before("blocks.1.down.weight", "blocks.0.up.weight")
    assert before("layer2", "layer10") and not before("fc", "fc2") and not before("fc2", "fc")
    assert not before("encoder.0", "decoder.2") and not before("decoder.2", "encoder.0")


@pytest.mark.parametrize(
    "tie",
    [
        lambda w: {"0.weight": w, "2.weight": w},
        lambda w: {"0.weight": w, "2.weight": w.T},
        lambda w: {"0.weight": w, "2.weight": w.flip(0).flip(0)[:].set_(w)},
        lambda w: {"0.weight": w, "0.bias": w[0], "2.weight": torch.randn(4, 4)},
        lambda w: {"0.weight": w, "2.weight": w.as_strided((4, 4), (4, 1), 0)},
        lambda w: {"0.weight": w[:1].expand(4, 4), "2.weight": torch.randn(4, 4)},
    ],
)
def test_entries_that_share_memory_are_refused(tie: Callable[[Tensor], dict[str, Tensor]]) -> None:
    with pytest.raises(ValueError, match=r"state dict 0, '.*(share memory: tied weights|repeats its values in memory)"):
        read(tie(torch.randn(4, 4)))


def test_views_that_do_not_overlap_are_read() -> None:
    both = torch.randn(4, 8)
    read({"0.weight": both[:, ::2], "2.weight": both[:, 1::2]})
    rows = torch.randn(8, 4)
    read({"0.weight": rows[:4], "2.weight": rows[4:]})
    read(mlp(2, 3, 1).state_dict(), mlp(2, 3, 1).state_dict())


class Backwards(nn.Module):
    """Registered in another order than applied, with names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(4, 20)
        self.encoder = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.sin(30 * self.encoder(x)) + 0.5)


class Tied(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.second, self.how = nn.Linear(6, 6), nn.Linear(6, 6), how
        if how == "weight":
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x))
        if self.how == "skip":
            return self.second(y) + x
        if self.how == "transposed":
            return torch.nn.functional.linear(y, self.first.weight.T)
        if self.how == "twice":
            return self.first(y)
        if self.how == "branch":
            return self.second(y) if x.sum() > 0 else y
        if self.how == "softmax":
            return self.second(torch.cumsum(y, -1))
        return self.second(y)


def with_hook(index: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    network[index].register_forward_hook(lambda module, args, output: output.cumsum(-1))
    return network


def with_forward() -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    network[0].forward = lambda x: torch.cumsum(x, -1)  # type: ignore[method-assign]
    return network


class Pooled(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))


def test_global_means_are_read() -> None:
    for function in (lambda y: y.mean((2, 3)), lambda y: torch.mean(y, dim=[-1, -2]), lambda y: y.mean((-2, -1), keepdim=True).flatten(1)):
        network, x = Pooled(function), torch.randn(2, 3, 4, 4)
        expected = network(x)
        network.load_state_dict(WeightSpace.from_modules([network]).permute([torch.tensor([2, 0, 3, 1])]).to_state_dicts()[0])
        torch.testing.assert_close(network(x), expected)


def test_groups_of_a_first_convolution_are_asked_for() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 1, 3))
    with pytest.warns(UserWarning, match=r"does not say whether a convolution has groups; '0.weight' of shape \(8, 2, 3, 3\)"):
        WeightSpace.from_state_dicts([network.state_dict()])
    spec = WeightSpec([4, 8, 1], [(3, 3), (3, 3)])
    with pytest.raises(ValueError, match=r"spec is WeightSpec\(\[4, 8, 1\]"):
        WeightSpace.from_state_dicts([network.state_dict()], spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
        WeightSpace.from_state_dicts([plain.state_dict()], spec)
        WeightSpace.from_modules([plain])
        WeightSpace.from_state_dicts([mlp(2, 3, 1).state_dict()])


def test_modules_are_read_in_the_order_of_application() -> None:
    network = Backwards()
    ws = WeightSpace.from_modules([network, Backwards()])
    assert ws.spec == WeightSpec([20, 4, 20]) and ws.spec.keys[0] == ("encoder.weight", "encoder.bias")
    x = torch.randn(5, 20)
    expected = network(x)
    network.load_state_dict(ws.permute([torch.randperm(4)]).to_state_dicts()[0])
    torch.testing.assert_close(network(x), expected)
    assert WeightSpace.from_modules([nn.Linear(2, 3)]).spec == WeightSpec([2, 3])
    assert WeightSpace.from_modules(nn.ModuleList([mlp(2, 3, 1), mlp(2, 5, 1)])).sizes is not None


def test_cnns_are_read_from_modules() -> None:
    cnn = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(5, 7, 3, bias=False),
        nn.GELU(),
        nn.Dropout(0.0),
        nn.Flatten(),
        nn.Linear(7 * 4, 2),
    ).eval()
    with pytest.warns(UserWarning, match=r"no bias beside 1.weight"):
        ws = WeightSpace.from_modules([cnn])
    x = torch.randn(2, 3, 10, 10)
    expected = cnn(x)
    cnn.load_state_dict(ws.permute([torch.randperm(5), torch.randperm(7)]).to_state_dicts()[0])
    torch.testing.assert_close(cnn(x), expected)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 1, 3)), r"'0' is a convolution with groups=2"),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 1, 3)), r"'0' is a convolution with groups=4"),
        (lambda: nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=2)), r"'2' is a convolution with groups=2"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), r"'1' is a BatchNorm1d; .*normalisation"),
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.GLU(), nn.Linear(2, 1)), r"'1' is a GLU"),
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.PReLU(4), nn.Linear(4, 1)), r"'1' is a PReLU"),
        (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)), r"'0' is a ConvTranspose2d"),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 4)), nn.Linear(4, 1)), r"'0' is a Parametrized"),
        (lambda: Tied("weight"), r"uses the weight of 'second' twice, also as 'first'"),
        (lambda: Tied("twice"), r"uses the weight of 'first' twice"),
        (lambda: Tied("skip"), r"is no chain of layers"),
        (lambda: Tied("transposed"), r"is no chain of layers"),
        (lambda: Tied("branch"), r"is no chain of layers|cannot be traced"),
        (lambda: Tied("softmax"), r"calls cumsum, which is not known"),
        (lambda: nn.Sequential(nn.ReLU()), r"has no layers"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.AvgPool1d(3, 1, 1), nn.Linear(8, 2)), r"'1' is a AvgPool1d, which would mix neurons"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.AdaptiveMaxPool1d(8), nn.Linear(8, 2)), r"'1' is a AdaptiveMaxPool1d, which would mix"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool3d(3, 1, 1), nn.Conv2d(4, 2, 3)), r"'1' is a AvgPool3d, which would mix"),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 8)), r"'2' is a Linear that acts on the last axis of positions"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(16, 8)), r"'1' is a Flatten of axes 2 to -1"),
        (lambda: nn.Sequential(nn.Linear(3, 8), nn.Conv1d(8, 2, 1)), r"'1' is a Conv1d, which acts on 1 axes of positions, and gets .* 0"),
        (lambda: with_hook(0), r"'0' is a Linear that has hooks"),
        (lambda: with_hook(1), r"'1' is a ReLU that has hooks"),
        (lambda: prune.l1_unstructured(nn.Linear(3, 8), "weight", 0.5), r"'' is a Linear that has hooks"),
        (lambda: with_forward(), r"'0' is a Linear that has a forward pass of its own"),
        (lambda: Pooled(lambda y: y.mean((1, 2))), r"calls the method mean over axes \(1, 2\)"),
        (lambda: Pooled(lambda y: y.flatten(2)), r"calls the method flatten of axes 2 to -1"),
        (lambda: Pooled(lambda y: torch.nn.functional.max_pool3d(y, 3, 1, 1).flatten(1)), r"which would mix neurons"),
        (lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}), r"cannot be traced by torch.fx"),
    ],
)
def test_modules_that_are_refused(network: Callable[[], nn.Module], text: str) -> None:
    with pytest.raises(ValueError, match=r"^WeightSpace.from_modules: network 0.*" + text):
        WeightSpace.from_modules([network()])


def test_what_is_no_list_of_modules() -> None:
    with pytest.raises(TypeError, match=r"^WeightSpace.from_modules: modules must be a sequence of networks, got a single Sequential"):
        WeightSpace.from_modules(mlp(2, 3, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^WeightSpace.from_modules: network 1 must be a torch.nn.Module, got OrderedDict"):
        WeightSpace.from_modules([mlp(2, 3, 1), mlp(2, 3, 1).state_dict()])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^WeightSpace.from_modules: needs at least one network"):
        WeightSpace.from_modules([])
    with pytest.raises(ValueError, match=r"has WeightSpec\(\[2, 3, 1\]\), spec is WeightSpec\(\[2, 4, 1\]\)"):
        WeightSpace.from_modules([mlp(2, 3, 1)], [2, 4, 1])
