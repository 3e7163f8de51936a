"""DWSNet: invariant or equivariant, for any hidden widths, and learning what it should."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic.models import DWSNet
from isotypic.nn import WeightSpace, WeightSpec
from isotypic.nn.weights.space import parameter_mask

SPEC = WeightSpec([2, 5, 4, 3])
SETTINGS: list[dict[str, Any]] = [
    dict(),
    dict(norm="block", activation="gelu", residual=True),
    dict(norm="layer", activation="silu", pool="sum", dropout=0.3),
    dict(norm=None, activation="tanh", pool="max"),
    dict(rank=1, residual=True),
    dict(norm=None),
    dict(symmetry="all", norm="block", residual=True),
]
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def sample(batch: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0) -> WeightSpace:
    generator = torch.Generator().manual_seed(seed)
    return WeightSpace(torch.randn(batch, SPEC.numel, 1, generator=generator, dtype=torch.float64).to(dtype), SPEC)


def permutations() -> list[Tensor]:
    return [torch.randperm(width) for width in SPEC.hidden]


@every_setting
@pytest.mark.parametrize("training", [True, False])
def test_symmetry(settings: dict[str, Any], training: bool) -> None:
    ws = sample()
    for out_features in (7, None):
        net = DWSNet(SPEC, [6, 6], out_features, **{**settings, "dropout": 0.0}).double().train(training)
        order = permutations()
        y, moved = net(ws), net(ws.permute(order))
        if out_features is None:
            assert isinstance(y, WeightSpace) and y.channels == 1
            torch.testing.assert_close(moved.flat, y.permute(order).flat, rtol=0, atol=1e-11)  # type: ignore[union-attr]
        else:
            assert isinstance(y, Tensor) and y.shape == (4, 7)
            torch.testing.assert_close(moved, y, rtol=0, atol=1e-11)
            torch.testing.assert_close(net(ws.flat), y, rtol=0, atol=1e-11)


@every_setting
def test_any_hidden_widths(settings: dict[str, Any]) -> None:
    net = DWSNet(SPEC, [6, 6], 3, **settings).double().eval()
    others = [
        WeightSpace(torch.randn(1, spec.numel, 1, dtype=torch.float64), spec)
        for spec in (SPEC, WeightSpec([2, 7, 2, 3]), WeightSpec([2, 3, 9, 3]))
    ]
    torch.testing.assert_close(net(WeightSpace.cat(others)), torch.cat([net(other) for other in others]), rtol=0, atol=1e-12)


@every_setting
def test_copies_and_state(settings: dict[str, Any]) -> None:
    net, ws = DWSNet(SPEC, [6, 6], 3, **settings), sample(dtype=torch.float32)
    net.train()(ws)
    keys = list(net.state_dict())
    y = net.eval()(ws)
    assert list(net.state_dict()) == keys
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(ws), y)
    fresh = DWSNet(SPEC, [6, 6], 3, **settings).eval()
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(ws), y)


@pytest.mark.parametrize("settings, out_features", [(SETTINGS[0], 3), (SETTINGS[1], None), (SETTINGS[4], 3)], ids=str)
@pytest.mark.parametrize("hidden", ["equal widths", "different widths"])
def test_compile(settings: dict[str, Any], out_features: int | None, hidden: str) -> None:
    torch._dynamo.reset()
    net, ws = DWSNet(SPEC, [6, 6], out_features, **{**settings, "dropout": 0.0}), sample(dtype=torch.float32)
    if hidden == "different widths":
        other = WeightSpec([2, 7, 2, 3])
        ws = WeightSpace.cat([ws, WeightSpace(torch.randn(2, other.numel, 1), other)])
    compiled = torch.compile(copy.deepcopy(net), fullgraph=True, backend="aot_eager")

    def loss(model: Any) -> Tensor:
        y = model(ws)
        return y.square().mean() if isinstance(y, Tensor) else sum(network.flat.square().mean() for network in y.split())  # type: ignore[return-value]

    found, expected = loss(compiled), loss(net)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found.backward()
    expected.backward()
    for (name, one), other in zip(net.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_autocast() -> None:
    net, ws = DWSNet(SPEC, [16, 16], 3), sample(dtype=torch.float32)
    expected = net(ws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(ws)
    y.float().sum().backward()
    # Three layers and two normalisations, each of which rounds once.
    assert ((y.float() - expected).norm() / expected.norm()).item() < 4 * torch.finfo(torch.bfloat16).eps
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in net.parameters())


def test_dtype_and_device() -> None:
    net = DWSNet(SPEC, [6], 3, dtype=torch.float64)
    assert net(sample()).dtype == torch.float64
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(TypeError, match=r"^DWSNet: input must have the dtype of the parameters, torch.float64, got torch.float32"):
        net(sample(dtype=torch.float32))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())  # no statistics of what is refused
    assert all(tensor.is_meta for tensor in DWSNet(SPEC, [6], 3, device="meta").state_dict().values())


def test_filters_of_a_cnn() -> None:
    networks = [nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 5)) for _ in range(3)]
    ws = WeightSpace.from_state_dicts([network.state_dict() for network in networks])
    assert DWSNet(ws.spec, [8], 2)(ws).shape == (3, 2)
    edited = DWSNet(ws.spec, [8], None)(ws)
    assert isinstance(edited, WeightSpace)
    networks[0].load_state_dict(edited.with_flat(edited.flat.detach()).to_state_dicts()[0])


def test_norms_make_the_scale_of_the_input_not_matter() -> None:
    net, ws = DWSNet(SPEC, [6], 3).double(), sample()
    for module in net.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-30  # what is left of the scale
    scales = torch.cat(
        [torch.full((count,), scale) for scale, count in zip((1, 5, 1e-2, 3, 20, 7), (10, 5, 20, 4, 12, 3), strict=True)]
    ).double()
    torch.testing.assert_close(net(ws.map(lambda flat: flat * scales.unsqueeze(-1))), net(ws), rtol=0, atol=1e-10)


def test_learns_an_invariant_property() -> None:
    """The norm of the product of the matrices, to which neurons contribute together: a network with one hidden layer gets it from means of
    products, an affine function of the means does not."""
    spec = WeightSpec([2, 8, 1])
    torch.manual_seed(0)
    train, test = (WeightSpace(torch.randn(count, spec.numel, 1), spec) for count in (512, 256))

    def target(ws: WeightSpace) -> Tensor:
        product = (ws.weights[1][..., 0] @ ws.weights[0][..., 0]).squeeze(1)
        return (product.sum(1, keepdim=True) > 0).float()

    def error(net: nn.Module) -> float:
        with torch.no_grad():
            return ((net(test) > 0).float() != target(test)).float().mean().item()

    net = DWSNet(spec, [24, 24], 1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(train), target(train)).backward()
        optimizer.step()
    assert error(net.eval()) < 0.15


@pytest.mark.parametrize("norm", [None, "layer"])
def test_hooks_see_what_a_layer_computed(norm: str | None) -> None:
    net, seen = DWSNet(SPEC, [6, 6], 3, norm=norm), {}
    watched = net.layers[0] if norm is None else net.norms[0]
    watched.register_forward_hook(lambda module, inputs, output: seen.setdefault("output", output))
    net(sample(dtype=torch.float32))
    assert (seen["output"].flat < 0).any()


def test_all_neurons_permuted_needs_no_parameter_for_a_width() -> None:
    """The layers do not see which input is which; the positions in front of them do."""
    net = DWSNet([300, 4, 3], [6], 2, symmetry="all")
    small = DWSNet([2, 4, 3], [6], 2, symmetry="all")
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in small.parameters())
    net = DWSNet(SPEC, [6], 3, symmetry="all").double().eval()
    ws = sample()
    swapped = ws.clone()
    swapped.weights[0].copy_(ws.weights[0].flip(2))
    assert (net(swapped) - net(ws)).abs().max() > 1e-3
    assert DWSNet(SPEC, [6], None, symmetry="all").double()(ws).shape == ws.shape  # type: ignore[union-attr]


def test_wrong_arguments_are_named() -> None:
    for arguments, text in (
        (dict(symmetry="none"), "symmetry must be 'hidden' or 'all', got 'none'"),
        (dict(symmetry="all", rank=1), "rank must be 0 with symmetry 'all', got 1"),
        (dict(pool="avg"), "pool must be 'mean', 'sum' or 'max', got 'avg'"),
        (dict(rank=9), "rank must be 0, or at most d_0=2 with .*, got 9 with pool='mean'"),
        (dict(dropout=True), r"dropout must be a number in \[0, 1\], got True"),
        (dict(channels=[]), "channels must have at least one entry"),
        (dict(channels=[4, 0]), "channels must be a positive integer, got 0"),
        (dict(norm="group"), "norm must be 'batch', 'block', 'layer' or None, got 'group'"),
        (dict(activation="sine"), "activation must be one of relu, gelu, silu, tanh, got 'sine'"),
    ):
        with pytest.raises(ValueError, match=f"DWSNet: {text}"):
            DWSNet(SPEC, **{"channels": [4], "out_features": 2, **arguments})  # type: ignore[arg-type]
    net = DWSNet(SPEC, [4], 2)
    with pytest.raises(ValueError, match=r"the layer is for WeightSpec\(\[2, 5, 4, 3\]\), the input is WeightSpec\(\[3, 5, 4, 3\]\)"):
        other = WeightSpec([3, 5, 4, 3])
        net(WeightSpace(torch.zeros(2, other.numel, 1), other))


@pytest.mark.parametrize("symmetry", ["hidden", "all"])
@pytest.mark.parametrize("residual", [False, True])
def test_edits_leave_zeros_where_there_are_no_parameters(symmetry: str, residual: bool) -> None:
    """Padding of filters with fewer taps, and of biases: another network reads an edit as it reads the networks that it stands for."""
    cnns = [
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 2)) for _ in range(3)
    ]
    ws = WeightSpace.from_modules(cnns)
    out = DWSNet(ws.spec, [4], None, symmetry=symmetry, residual=residual)(ws)
    assert isinstance(out, WeightSpace)
    again = WeightSpace.from_state_dicts(out.to_state_dicts(), ws.spec)
    assert torch.equal(again.flat, out.flat) and out.flat.count_nonzero() > 0
    critic = DWSNet(ws.spec, [4], 1)
    assert torch.equal(critic(out), critic(again))
    flat = DWSNet(ws.spec, [4], None, symmetry=symmetry)(ws.flat)
    padding = ~parameter_mask(ws.spec)
    assert padding.any() and not flat[:, padding].any() and not ws.flat[:, padding].any()
