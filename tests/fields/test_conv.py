"""Group convolution modules: the plain convolution they stand for, the projection back, padding, initialisation and bad arguments."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from isotypic import EquivarianceWarning, groups
from isotypic.nn import (
    GroupConv2d,
    GroupConv3d,
    GroupConvTranspose2d,
    GroupConvTranspose3d,
    GroupLinear,
    GroupPool,
    LiftConv2d,
    LiftConv3d,
    SteerableConv2d,
    SteerableLiftConv2d,
)
from isotypic.testing import act, assert_equivariant

LAYERS: list[tuple[type[nn.Module], tuple[int, int], dict[str, Any], tuple[int, ...]]] = [
    (LiftConv2d, (3, 2), dict(kernel_size=3, group="p4", padding=1), (6, 6)),
    (LiftConv2d, (4, 4), dict(kernel_size=4, group="p4m", padding=(2, 2), stride=2, groups=2), (8, 8)),
    (LiftConv2d, (1, 2), dict(kernel_size=5, group="p6m", padding="same"), (7, 7)),
    (LiftConv2d, (2, 2), dict(kernel_size=(3, 5), group="pmm", padding="valid", dilation=(2, 1)), (9, 8)),
    (LiftConv3d, (2, 1), dict(kernel_size=3, group="Td", padding="same"), (4, 4, 4)),
    (GroupConv2d, (2, 3), dict(kernel_size=3, group="p4m", padding="same"), (6, 6)),
    (GroupConv2d, (3, 3), dict(kernel_size=3, group="p4", padding=1, groups=3, bias=False), (6, 6)),
    (GroupConv2d, (2, 2), dict(kernel_size=2, group="p4m", stride=2), (6, 6)),
    (GroupConv2d, (2, 2), dict(kernel_size=3, group="p3", padding=1), (5, 5)),
    (GroupConv2d, (2, 2), dict(kernel_size=5, group="p4", padding=2, padding_mode="circular"), (6, 6)),
    (GroupConv2d, (2, 2), dict(kernel_size=3, group="pm", padding=(2, 1), padding_mode="reflect"), (6, 5)),
    (GroupConv2d, (2, 2), dict(kernel_size=3, group="pm", padding=(3, 1), padding_mode="replicate"), (2, 5)),
    (GroupConv2d, (2, 2), dict(kernel_size=3, group="p2", padding="same", padding_mode="circular", dilation=2), (6, 5)),
    (GroupConv3d, (1, 2), dict(kernel_size=3, group="O", padding=1), (3, 3, 3)),
    (GroupConv3d, (1, 1), dict(kernel_size=2, group="D4h", padding=1, padding_mode="circular"), (3, 3, 3)),
    (GroupConvTranspose2d, (2, 4), dict(kernel_size=3, group="p4m", stride=2, padding=1, groups=2), (4, 4)),
    (GroupConvTranspose2d, (2, 2), dict(kernel_size=3, group="p6", bias=False), (5, 5)),
    (GroupConvTranspose2d, (2, 2), dict(kernel_size=2, group="p4", dilation=3, padding=1), (5, 5)),
    (GroupConvTranspose3d, (1, 2), dict(kernel_size=2, group="C4", stride=2), (3, 3, 3)),
]
every_layer = pytest.mark.parametrize("kind, fields, arguments, size", LAYERS)
LIFTS = (LiftConv2d, LiftConv3d)
CONVS = (LiftConv2d, LiftConv3d, GroupConv2d, GroupConv3d)


def make(kind: type[nn.Module], fields: tuple[int, int], arguments: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    layer: Any = kind(*fields, **arguments, dtype=dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_conv_is_the_same_function(kind: Any, fields: Any, arguments: Any, size: Any, dtype: torch.dtype) -> None:
    layer = make(kind, fields, arguments, dtype)
    x = torch.randn(2, fields[0], *(() if kind in LIFTS else (layer.order,)), *size, dtype=dtype)
    y, plain = layer(x), layer.to_conv()(x.flatten(1, -1 - layer.dim))
    assert y.shape[:3] == (2, fields[1], layer.order)
    assert (y.flatten(1, 2) - plain).abs().max().item() <= (1e-5 if dtype == torch.float32 else 1e-12) * plain.abs().max().item()


@pytest.mark.parametrize("group, kernel_size", [("p4m", (3, 3)), ("p4", (2, 2)), ("p6m", (3, 3)), ("T", (2, 2, 2)), ("p4", (3, 5))])
@pytest.mark.parametrize("lift", [True, False])
def test_bank_by_its_definition(group: str, kernel_size: tuple[int, ...], lift: bool) -> None:
    """bank[o, r, c, s](t) = psi[o, c, r^-1 s](r^-1 t), entry by entry; taps whose orbit leaves the box are 0."""
    g = groups.get(group)
    kinds: Any = {(2, True): LiftConv2d, (2, False): GroupConv2d, (3, True): LiftConv3d, (3, False): GroupConv3d}
    layer = kinds[g.dim, lift](2, 2, kernel_size, group=group, bias=False, dtype=torch.float64)
    nn.init.normal_(layer.weight)  # outside the support too, where it has to be ignored
    weight = layer.weight.detach().numpy() if not lift else layer.weight.detach().numpy()[:, :, None]
    sources = 1 if lift else g.order
    expected = np.zeros((2, g.order, 2, sources, *kernel_size))
    half = (np.array(kernel_size) - 1) / 2
    for tap in itertools.product(*map(range, kernel_size)):
        orbit = [tuple(np.round(matrix @ (np.array(tap) - half) + half, 6)) for matrix in g.elements]
        if not all(all(p == int(p) and 0 <= p < k for p, k in zip(place, kernel_size, strict=True)) for place in orbit):
            continue
        for r, s in itertools.product(range(g.order), range(sources)):
            back = int(g.inverse[r])
            u = 0 if lift else int(g.multiply[back, s])
            place = tuple(int(p) for p in orbit[back])
            expected[(slice(None), r, slice(None), s, *tap)] = weight[(slice(None), slice(None), u, *place)]
    assert np.array_equal(layer.to_conv().weight.detach().numpy(), expected.reshape(2 * g.order, 2 * sources, *kernel_size))


@every_layer
def test_from_conv_inverts_to_conv(kind: Any, fields: Any, arguments: Any, size: Any) -> None:
    if kind not in CONVS:
        return
    layer = make(kind, fields, arguments)
    back = kind.from_conv(layer.to_conv(), arguments["group"])
    assert repr(back) == repr(layer)
    assert torch.allclose(back.weight, layer.weight, rtol=1e-14, atol=1e-14)
    assert layer.bias is None or torch.allclose(back.bias, layer.bias, rtol=1e-14)


@pytest.mark.parametrize("kind, group", [(LiftConv2d, "p4m"), (GroupConv2d, "p4"), (GroupConv2d, "p6"), (GroupConv3d, "T")])
def test_from_conv_is_the_orthogonal_projection(kind: Any, group: str) -> None:
    """What is left of the bank is orthogonal to every equivariant bank, so that no other is nearer; projecting again changes nothing."""
    torch.manual_seed(0)
    template = kind(2, 2, 3, group=group, dtype=torch.float64)
    conv = template.to_conv()
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    layer = kind.from_conv(conv, group)
    nearest = layer.to_conv()
    left = [(a - b).detach() for a, b in zip(conv.parameters(), nearest.parameters(), strict=True)]
    assert all(rest.norm() > 0.1 for rest in left)
    for _ in range(5):
        for parameter in template.parameters():
            nn.init.normal_(parameter)
        for rest, other in zip(left, template.to_conv().parameters(), strict=True):
            assert abs((rest * other).sum().item()) <= 1e-12 * rest.norm().item() * other.norm().item()
    assert torch.allclose(kind.from_conv(nearest, group).weight, layer.weight, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("group", ["p4m", "p6"])
def test_a_field_for_every_channel_symmetrises_a_network(group: str) -> None:
    """A plain network converted channel by channel gives, at r, the plain network on the input moved by r^-1; the mean is the average."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU()).double()
    if group == "p6":  # a filter on the hexagonal lattice has its support there
        for layer in (plain[0], plain[2]):
            layer.weight.data.mul_(torch.from_numpy(groups.support(groups.get(group), 3).copy()))
    first = LiftConv2d.from_conv(plain[0], group, field_per_channel=True)
    second = GroupConv2d.from_conv(plain[2], group, field_per_channel=True)
    network = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    x = act(group, 0, torch.randn(1, 1, 9, 9, dtype=torch.float64), "scalar")
    g, y = groups.get(group), network(x)
    moved = [act(group, r, plain(act(group, int(g.inverse[r]), x, "scalar")), "scalar") for r in range(g.order)]
    inside = act(group, 0, y)
    assert torch.allclose(inside, torch.stack(moved, dim=2), rtol=1e-12, atol=1e-12)
    assert_equivariant(nn.Sequential(network, GroupPool("mean")), group, x, in_field="scalar")


@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("kernel_size, padding", [(3, "same"), (3, 1), (4, 2), (2, 0)])
def test_equivariance_in_every_padding_mode(padding_mode: str, kernel_size: int, padding: Any) -> None:
    network = nn.Sequential(
        LiftConv2d(2, 2, kernel_size, group="p4m", padding=padding, padding_mode=padding_mode),
        nn.ReLU(),
        GroupConv2d(2, 2, kernel_size, group="p4m", padding=padding, padding_mode=padding_mode),
    ).double()
    assert_equivariant(network, "p4m", torch.randn(1, 2, 6, 6, dtype=torch.float64), in_field="scalar", rtol=1e-12)


@pytest.mark.parametrize(
    "kind, group, size",
    [(LiftConv2d, "p4m", (9, 9)), (GroupConv2d, "p4m", (8, 8)), (GroupConv2d, "p6m", (9, 9)), (GroupConv3d, "T", (4, 4, 4))],
)
def test_initialisation_keeps_the_scale(kind: Any, group: str, size: tuple[int, ...]) -> None:
    """Through a layer and a ReLU the second moment stays what it was, with the fan-in counted over the support and the group.

    The moment is a mean over 400 independent filters, each a chi-square variable around it: 5 standard deviations are 5 sqrt(2 / 400).
    """
    torch.manual_seed(0)
    layer = kind(8, 400, 3, group=group, padding=1, padding_mode="circular")
    x = torch.randn(1, 8, *(() if kind in LIFTS else (layer.order,)), *size)
    with torch.no_grad():
        ratio = layer(x).square().mean() / 2 / x.square().mean()
    assert abs(ratio.item() - 1) < 5 * (2 / 400) ** 0.5


def test_weights_outside_the_support_start_at_zero_and_have_no_gradient() -> None:
    layer = GroupConv2d(1, 1, 3, group="p6")
    outside = ~torch.from_numpy(groups.support(groups.get("p6"), 3).copy())
    layer(torch.randn(1, 1, 6, 5, 5)).square().sum().backward()
    assert outside.sum() == 2 and layer.weight.grad is not None
    assert (layer.weight[..., outside] == 0).all() and (layer.weight.grad[..., outside] == 0).all()
    assert (layer.weight[..., ~outside] != 0).all() and (layer.weight.grad[..., ~outside] != 0).all()


def test_generated_groups_serve_like_named_ones() -> None:
    quarter = groups.generate([[[0, -1], [1, 0]]])
    layer = LiftConv2d(1, 2, 3, group=quarter, padding=1)
    assert layer(torch.randn(1, 1, 5, 5)).shape == (1, 2, 4, 5, 5)
    swap = groups.generate([[[0, 1], [1, 0]]])
    assert_equivariant(
        LiftConv2d(1, 2, 3, group=swap, padding=1).double(), swap, torch.randn(1, 1, 5, 5, dtype=torch.float64), in_field="scalar"
    )


def test_strides_that_break_equivariance() -> None:
    x = torch.randn(1, 1, 4, 6, 6)
    with pytest.warns(EquivarianceWarning, match="stride"):
        GroupConv2d(1, 1, 3, stride=2, padding=1)(x)
    with pytest.raises(ValueError, match="stride"):
        GroupConv2d(1, 1, 3, stride=2, padding=1, strict=True)(x)
    with pytest.warns(EquivarianceWarning, match="stride"):
        LiftConv2d(1, 1, 3, stride=2, padding=1)(x[:, 0, :1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GroupConv2d(1, 1, 3, stride=2, padding=1, strict=True)(x[..., :5, :5])


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_same_padding_of_even_kernels_is_off_the_centre(padding_mode: str) -> None:
    x = torch.randn(1, 1, 4, 6, 6)
    with pytest.warns(EquivarianceWarning, match="same"):
        assert GroupConv2d(1, 1, 2, padding="same", padding_mode=padding_mode)(x).shape == x.shape
    with pytest.raises(ValueError, match="same"):
        GroupConv2d(1, 1, 2, padding="same", padding_mode=padding_mode, strict=True)(x)


def test_transposed_convolution_is_the_adjoint() -> None:
    """<conv(x), y> = <x, transposed(y)> with one weight."""
    torch.manual_seed(0)
    conv = GroupConv2d(2, 3, 3, group="p4m", stride=2, padding=1, bias=False, dtype=torch.float64)
    transposed = GroupConvTranspose2d(3, 2, 3, group="p4m", stride=2, padding=1, bias=False, dtype=torch.float64)
    transposed.weight = conv.weight
    x, y = torch.randn(1, 2, 8, 7, 7, dtype=torch.float64), torch.randn(1, 3, 8, 4, 4, dtype=torch.float64)
    left, right = (conv(x) * y).sum(), (x * transposed(y)).sum()
    assert abs(left - right) <= 1e-12 * conv(x).norm() * y.norm()


def test_output_padding_breaks_equivariance() -> None:
    arguments = dict(kernel_size=3, group="p4", stride=2, padding=1, output_padding=1)
    with pytest.warns(EquivarianceWarning, match="output_padding"):
        assert GroupConvTranspose2d(1, 1, **arguments)(torch.randn(1, 1, 4, 4, 4)).shape == (1, 1, 4, 8, 8)
    with pytest.raises(ValueError, match="output_padding"):
        GroupConvTranspose2d(1, 1, **arguments, strict=True)(torch.randn(1, 1, 4, 4, 4))


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (GroupConv2d, dict(group="p5"), "GroupConv2d: unknown group 'p5'; known groups: p1"),
    (GroupConv2d, dict(padding=1.0), "GroupConv2d: padding must be an integer or 2 integers, each at least 0, got 1.0"),
    (GroupConv2d, dict(group="O"), "GroupConv2d: group must act on 2 spatial axes, but O acts on 3"),
    (LiftConv3d, dict(group="p4"), "LiftConv3d: group must act on 3 spatial axes, but p4 acts on 2"),
    (GroupConv2d, dict(kernel_size=0), "GroupConv2d: kernel_size must be an integer or 2 integers, each at least 1, got 0"),
    (GroupConv2d, dict(kernel_size=(3, 3, 3)), "GroupConv2d: kernel_size must be an integer or 2 integers, each at least 1, got (3, 3, 3)"),
    (GroupConv2d, dict(kernel_size=2, group="p6"), "GroupConv2d: kernel_size (2, 2) holds no tap"),
    (GroupConv2d, dict(stride=0), "GroupConv2d: stride must be an integer or 2 integers, each at least 1, got 0"),
    (GroupConv2d, dict(dilation=(1, 0)), "GroupConv2d: dilation must be an integer or 2 integers, each at least 1, got (1, 0)"),
    (GroupConv2d, dict(stride=(1, 2)), "GroupConv2d: stride must be equal on the axes that p4 exchanges, got (1, 2)"),
    (LiftConv3d, dict(dilation=(1, 2, 2)), "LiftConv3d: dilation must be equal on the axes that O exchanges, got (1, 2, 2)"),
    (GroupConvTranspose2d, dict(stride=(1, 2)), "GroupConvTranspose2d: stride must be equal on the axes that p4 exchanges, got (1, 2)"),
    (GroupConv2d, dict(padding=-1), "GroupConv2d: padding must be an integer or 2 integers, each at least 0, got -1"),
    (GroupConv2d, dict(padding="full"), 'GroupConv2d: padding must be "same", "valid", an integer or 2 integers, got \'full\''),
    (GroupConv2d, dict(padding="same", stride=2), 'GroupConv2d: padding="same" needs stride 1, got stride (2, 2)'),
    (
        GroupConv2d,
        dict(padding_mode="mirror"),
        "GroupConv2d: padding_mode must be one of zeros, circular, reflect, replicate, got",
    ),
    (LiftConv2d, dict(padding_mode="replicate", group="p6"), 'LiftConv2d: padding_mode "replicate" is not equivariant under p6'),
    (LiftConv2d, dict(padding_mode="reflect", group="p6"), 'LiftConv2d: padding_mode "reflect" is not equivariant under p6'),
    (GroupConv2d, dict(groups=3), "GroupConv2d: in_fields=4 must be divisible by groups=3"),
    (LiftConv2d, dict(groups=3), "LiftConv2d: in_channels=4 must be divisible by groups=3"),
    (GroupConv2d, dict(groups=0), "GroupConv2d: groups must be a positive integer, got 0"),
    (GroupConvTranspose2d, dict(groups=3), "GroupConvTranspose2d: in_fields=4 must be divisible by groups=3"),
    (
        GroupConvTranspose2d,
        dict(output_padding=-1),
        "GroupConvTranspose2d: output_padding must be an integer or 2 integers, each at least 0",
    ),
    (GroupConvTranspose3d, dict(group="p4"), "GroupConvTranspose3d: group must act on 3 spatial axes, but p4 acts on 2"),
]


@pytest.mark.parametrize("kind, arguments, message", BAD)
def test_bad_arguments(kind: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        kind(4, 4, **{"kernel_size": 3, **arguments})
    assert message in str(error.value)


def test_bad_numbers_of_fields() -> None:
    with pytest.raises(ValueError, match="GroupConv2d: out_fields must be a positive integer, got 0"):
        GroupConv2d(1, 0, 3)
    with pytest.raises(ValueError, match=r"LiftConv2d: in_channels must be a positive integer, got 1.5"):
        LiftConv2d(1.5, 1, 3)  # type: ignore[arg-type]


def test_bad_inputs() -> None:
    layer = GroupConv2d(2, 3, 3, group="p4m")
    circular = GroupConv2d(2, 3, 3, group="p4m", padding=1, padding_mode="circular")
    for shape in [(1, 2, 4, 5, 5), (1, 3, 8, 5, 5), (1, 2, 8, 5), (2, 5, 5), (1, 16, 5, 5)]:
        expected = re.escape(f"GroupConv2d: input must have shape (B, C=2, |G|=8, H, W), got {shape}")
        for each in (layer, circular):
            with pytest.raises(ValueError, match=f"^{expected}(; it looks like .*)?$"):
                each(torch.zeros(shape))
    for other, expected in (
        (LiftConv2d(3, 1, 3), "LiftConv2d: input must have shape (B, C=3, H, W), got (1, 1, 1, 1, 1)"),
        (LiftConv3d(3, 1, 3), "LiftConv3d: input must have shape (B, C=3, D, H, W), got (1, 1, 1, 1, 1)"),
        (GroupConv3d(2, 1, 3), "GroupConv3d: input must have shape (B, C=2, |G|=24, D, H, W), got (1, 1, 1, 1, 1)"),
        (GroupConvTranspose2d(2, 1, 3), "GroupConvTranspose2d: input must have shape (B, C=2, |G|=4, H, W), got (1, 1, 1, 1, 1)"),
        (GroupLinear(2, 1), "GroupLinear: input must have shape (B, C=2, |G|=4, *spatial), got (1, 1, 1, 1, 1)"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}(; it looks like .*)?$"):
            other(torch.zeros(1, 1, 1, 1, 1))
        with pytest.raises(TypeError, match=rf"^{type(other).__name__}: input must be a torch\.Tensor, got list"):
            other([1.0])
    with pytest.raises((TypeError, ValueError), match="group_conv"):
        layer(torch.zeros(1, 2, 8, 5, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="group_conv"):
        layer(torch.zeros(1, 2, 8, 2, 2))


def test_bad_conversions() -> None:
    with pytest.raises(ValueError, match=r"LiftConv2d.from_conv: conv.out_channels=6 must be a multiple of \|G\| \* groups = 4 \* 1"):
        LiftConv2d.from_conv(nn.Conv2d(3, 6, 3), "p4")
    with pytest.raises(ValueError, match=r"GroupConv2d.from_conv: conv.in_channels=3 .* field_per_channel=True makes every"):
        GroupConv2d.from_conv(nn.Conv2d(3, 8, 3), "p4")
    with pytest.raises(TypeError, match=r"GroupConv2d.from_conv: conv must be an nn.Conv2d, got Conv3d"):
        GroupConv2d.from_conv(nn.Conv3d(4, 4, 3), "p4")
    with pytest.raises(ValueError, match=r"^GroupConv2d\.from_conv: stride must be equal on the axes that p4 exchanges, got \(1, 2\)"):
        GroupConv2d.from_conv(nn.Conv2d(4, 4, 3, stride=(1, 2)), "p4")
    for kind in (LiftConv2d, SteerableLiftConv2d):
        expected = rf"^{kind.__name__}\.from_conv: conv must have its parameters, got an uninitialised LazyConv2d"
        with pytest.raises(TypeError, match=expected):
            kind.from_conv(nn.LazyConv2d(8, 3), "p4" if kind is LiftConv2d else "C8")
    with pytest.raises(TypeError, match=r"^GroupLinear\.from_linear: linear must have its parameters, got an uninitialised LazyLinear"):
        GroupLinear.from_linear(nn.LazyLinear(8), "p4")
    with pytest.raises(TypeError, match=r"^SteerableConv2d\.from_conv: dtype must be one of"):
        SteerableConv2d.from_conv(nn.Conv2d(8, 8, 3, dtype=torch.complex64), "C8")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::isotypic.EquivarianceWarning")
@pytest.mark.parametrize(
    "layer", [GroupConv2d(1, 2, 3, padding="same"), GroupConv2d(1, 2, 2, padding="same"), GroupConvTranspose2d(1, 2, 3, stride=2)]
)
def test_traced_layers(layer: nn.Module) -> None:
    traced = torch.jit.trace(layer, torch.randn(1, 1, 4, 5, 5))
    x = torch.randn(3, 1, 4, 5, 5)
    torch.testing.assert_close(traced(x), layer(x))


def test_layers_are_built_without_values() -> None:
    with FakeTensorMode():
        layers = GroupConv2d(1, 2, 3), GroupConvTranspose2d(1, 2, 3), SteerableConv2d(1, 2, 5)
        assert [tuple(layer(torch.empty(1, 1, layer.order, 9, 9)).shape[-2:]) for layer in layers] == [(7, 7), (11, 11), (5, 5)]


def test_gradients_flow_to_every_parameter() -> None:
    x: Tensor = torch.randn(2, 1, 7, 7)
    network = nn.Sequential(LiftConv2d(1, 2, 3), nn.ReLU(), GroupConv2d(2, 2, 3, padding_mode="reflect", padding=1), GroupPool("mean"))
    network(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("padding_mode", ["circular", "reflect", "replicate", "zeros"])
def test_whether_sizes_keep_the_equivariance_is_judged_before_padding(padding_mode: str) -> None:
    """Unequal reach on axes that p4 exchanges is refused; unequal kernels whose padding makes up for it are not."""
    unequal = GroupConv2d(1, 1, 3, group="p4", padding=(1, 0), padding_mode=padding_mode, strict=True)
    with pytest.raises(ValueError, match="reaches unequally far"):
        unequal(torch.zeros(1, 1, 4, 6, 6))
    with pytest.warns(UserWarning, match="keeps 9 of 15 taps"):
        equal = GroupConv2d(2, 2, (3, 5), group="p4", padding=(1, 2), padding_mode=padding_mode).double()
    equal.strict = True
    assert_equivariant(equal, "p4", torch.randn(1, 2, 4, 6, 6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_kept_of_a_weight_in_eval_follows_the_weight(dtype: torch.dtype, groups: int) -> None:
    torch.manual_seed(0)
    layer = GroupConv2d(4, 16, 3, group="p4", padding=1, groups=groups, dtype=dtype).eval()
    x = torch.randn(2, 4, 4, 7, 7).to(dtype)

    def expected() -> Tensor:
        return layer.train()(x)

    def change(weight: Tensor) -> None:
        weight.mul_(2)

    with torch.no_grad():
        for step in (lambda: None, lambda: change(layer.weight), lambda: change(layer.weight.data), lambda: layer.reset_parameters()):
            step()
            wanted = expected()
            layer.eval()
            assert torch.equal(layer(x), wanted) and torch.equal(layer(x), wanted)
        other = copy.deepcopy(layer)
        change(other.weight)
        assert torch.equal(layer(x), wanted) and not torch.equal(other(x), wanted)
        restored = pickle.loads(pickle.dumps(layer))
        assert torch.equal(restored(x), wanted)
        assert torch.equal(layer(x[:1, ..., :5]), layer.train()(x[:1, ..., :5]))  # another size, the same blocks
    assert set(layer.state_dict()) == {"weight", "bias", "_extra_state"}


def test_sizes_may_be_numpy_integers() -> None:
    layer = GroupConv2d(np.int64(2), np.int64(3), np.int64(3), padding=np.int64(1))
    assert layer(torch.zeros(1, 2, 4, 5, 5)).shape == (1, 3, 4, 5, 5)


@pytest.mark.parametrize(("layer", "group"), [(GroupConvTranspose2d, "p4m"), (GroupConvTranspose3d, "O")])
def test_transposed_convolutions_from_plain_ones(layer: Any, group: str) -> None:
    plain = nn.ConvTranspose2d if layer is GroupConvTranspose2d else nn.ConvTranspose3d
    own = layer(2, 4, 3, group=group, stride=2, padding=1, groups=2).double()
    again = layer.from_conv(own.to_conv(), group)
    torch.testing.assert_close(again.weight, own.weight)
    torch.testing.assert_close(again.bias, own.bias)
    # Every channel a field: a field that was moved by r from an image f gives, at r, what the plain layer gives, moved by r.
    conv = plain(2, 3, 3, stride=2).double()
    images = torch.randn(1, 2, *(3,) * layer.dim, dtype=torch.float64)
    field = torch.stack([act(group, r, images, "scalar") for r in range(groups.get(group).order)], 2)
    found, expected = layer.from_conv(conv, group, field_per_channel=True)(field), conv(images)
    for r in range(field.shape[2]):
        torch.testing.assert_close(found[:, :, r], act(group, r, expected, "scalar"))
    with pytest.raises(ValueError, match=r"from_conv: conv.in_channels=2 must be a multiple of \|G\|"):
        layer.from_conv(conv, group)
    with pytest.raises(TypeError, match=r"from_conv: conv must be an nn\.ConvTranspose"):
        layer.from_conv(nn.Conv2d(1, 1, 1), group)
