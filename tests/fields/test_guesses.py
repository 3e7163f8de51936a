"""Fields of another group, images in place of fields, padding and taps outside of what the group keeps: refused or warned of by name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isotypic as iso
from isotypic import EquivarianceWarning, groups
from isotypic.nn import (
    BlurPool2d,
    FieldMask,
    GroupAvgPool2d,
    GroupAvgPool3d,
    GroupBatchNorm,
    GroupConv2d,
    GroupConv3d,
    GroupConvTranspose2d,
    GroupLinear,
    GroupMaxPool2d,
    GroupPool,
    LiftConv2d,
    LiftConv3d,
    Restrict,
    SteerableConv2d,
)
from isotypic.testing import assert_equivariant, check_network, equivariance_error

PAIRS: list[tuple[Callable[[Any], nn.Module], Any, Any]] = [
    (lambda g: GroupConv2d(2, 2, 3, g), "p4", "pmm"),
    (lambda g: GroupConv2d(2, 2, 3, g), "p6", "p3m1"),
    (lambda g: LiftConv2d(2, 2, 3, g), "p2", "pm"),
    (lambda g: GroupConv3d(1, 1, 3, g), "O", "Td"),
    (lambda g: LiftConv3d(1, 1, 3, g), "O", "Th"),
    (lambda g: GroupConvTranspose2d(2, 2, 3, g), "p4", "pmm"),
    (lambda g: GroupLinear(2, 2, g), "p6", "p3m1"),
    (lambda g: BlurPool2d(g), "p4", "pmm"),
    (lambda g: GroupMaxPool2d(2, group=g), "p4", "pmm"),
    (lambda g: GroupAvgPool2d(2, group=g), "p4", "pmm"),
    (lambda g: GroupPool("max", group=g), "p4", "pmm"),
    (lambda g: Restrict(g, "p1"), "p4", "pmm"),
    (lambda g: Restrict("p4m", g), "p4", "pmm"),
    (lambda g: GroupPool("mean", group="p4m", subgroup=g), "p4", "pmm"),
    (lambda g: FieldMask(5, g), "p6", "p3m1"),
    (lambda g: SteerableConv2d(1, 1, 3, group=g), "C8", "D4"),
]


@pytest.mark.parametrize(("make", "group", "other"), PAIRS)
def test_state_dicts_of_another_group_are_refused(make: Callable[[Any], nn.Module], group: str, other: str) -> None:
    layer, wrong = nn.Sequential(make(group)), nn.Sequential(make(other))
    with pytest.raises(
        RuntimeError, match=rf"'0\._extra_state' of a layer for (p4m to )?{other}( to p1)?, this layer is for (p4m to )?{group}"
    ):
        layer.load_state_dict(wrong.state_dict())
    with pytest.raises(RuntimeError, match=rf"of a layer for .*{other}"):
        layer.load_state_dict(wrong.state_dict(), strict=False)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    layer.load_state_dict(torch.load(file, weights_only=True))
    layer.load_state_dict({key: value.clone() for key, value in layer.state_dict().items()}, assign=True)
    old = {key: value for key, value in layer.state_dict().items() if "_extra_state" not in key}
    with pytest.raises(RuntimeError, match=r"Missing key.*0\._extra_state \(the group of the layer; .* loads with strict=False\)"):
        layer.load_state_dict(old)
    assert all("_extra_state" in key for key in layer.load_state_dict(old, strict=False).missing_keys)


def test_a_group_is_its_elements() -> None:
    named = groups.get("p4")
    same = groups.generate([named.elements[1]], name="p4")
    layer = GroupConv2d(1, 1, 3, same)
    layer.load_state_dict(GroupConv2d(1, 1, 3, "p4").state_dict())


def test_pooling_takes_fields_of_its_own_group() -> None:
    for layer, order in ((BlurPool2d(), 12), (GroupMaxPool2d(2), 8), (GroupAvgPool2d(2, group="p4m"), 4), (GroupAvgPool3d(2), 48)):
        space = (6,) * layer.dim
        with pytest.raises(ValueError, match=rf"input must be a field of \w+, \(B, C, \|G\|={layer.order}, .*got \(1, 2, {order}, "):
            layer(torch.zeros(1, 2, order, *space))
    assert BlurPool2d("C8")(torch.zeros(1, 2, 8, 5, 5)).shape == (1, 2, 8, 3, 3)
    assert GroupPool("max", group="D8")(torch.zeros(1, 2, 16, 5, 5)).shape == (1, 2, 5, 5)


@pytest.mark.parametrize("pool", [GroupPool("max"), GroupPool("mean", keepdim=True), GroupPool("max", group="p4"), GroupPool(group="O")])
def test_images_are_no_fields(pool: nn.Module) -> None:
    for image in (torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 24, 24), torch.zeros(1, 1, 28, 28)):
        with pytest.raises(ValueError, match=r"GroupPool: input must have shape \(B, C, \|G\|"):
            pool(image)


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (GroupConv2d(3, 2, 3, "p4m"), (1, 3, 9, 9), r"looks like images .*use LiftConv2d, which makes fields of p4m"),
        (GroupConv3d(1, 2, 3, "O"), (1, 1, 5, 5, 5), r"looks like images .*use LiftConv3d, which makes fields of O"),
        (LiftConv2d(3, 2, 3, "p4m"), (1, 3, 8, 9, 9), r"looks like a field with \|G\|=8: use GroupConv2d"),
        (GroupConv2d(3, 2, 3, "p4m"), (1, 3, 4, 9, 9), r"looks like a field of another group, the layer is for p4m"),
        (GroupConvTranspose2d(3, 2, 3, "p4"), (1, 3, 9, 9), r"looks like images"),
        (SteerableConv2d(3, 2, 3, group="C8"), (1, 3, 9, 9), r"looks like images .*fields of C8"),
    ],
)
def test_messages_say_what_an_input_looks_like(layer: nn.Module, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        layer(torch.zeros(shape))


class Residual(nn.Module):
    """Functions of torch between layers."""

    def __init__(self, group: str, other: str) -> None:
        super().__init__()
        self.lift = LiftConv2d(1, 2, 3, group, padding=1)
        self.norm = GroupBatchNorm(2)
        self.block = GroupConv2d(2, 2, 3, other, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.lift(x)))
        y = y.flatten(1, 2).mul(2.0).reshape(y.shape)
        return (y + F.gelu(self.block(y))).amax(2)


FITTING: list[tuple[nn.Module, tuple[int, ...]]] = [
    (Residual("p4", "p4"), (1, 1, 5, 5)),
    (nn.Sequential(Residual("p4", "p4"), nn.Conv2d(2, 2, 3)), (1, 1, 5, 5)),
    (nn.Sequential(LiftConv2d(1, 2, 3, "p4m"), Restrict("p4m", "pmm"), GroupConv2d(4, 2, 3, "pmm")), (1, 1, 7, 7)),
    (nn.Sequential(LiftConv2d(1, 2, 3, "p4"), BlurPool2d("p4"), GroupPool("mean"), nn.Flatten(), nn.Linear(2 * 9, 2)), (1, 1, 7, 7)),
    (nn.Sequential(BlurPool2d("p4"), LiftConv2d(1, 2, 3, "p4m")), (1, 1, 7, 7)),
]


@pytest.mark.parametrize(("network", "shape"), FITTING)
def test_networks_that_fit(network: nn.Module, shape: tuple[int, ...]) -> None:
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    check_network(network, torch.randn(shape))
    assert network.training and all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


class Between(nn.Module):
    """A function between a lifting convolution and a group convolution; "+" and "cat" join two fields of their groups."""

    def __init__(self, function: Callable[[Tensor], Tensor] | str, other: str = "pmm") -> None:
        super().__init__()
        self.lift, self.function, self.then = LiftConv2d(1, 4, 3, "p4"), function, GroupConv2d(4, 2, 3, "p4")
        self.other = LiftConv2d(1, 4, 3, other)

    def forward(self, x: Tensor) -> Tensor:
        if self.function == "+":
            return self.then(self.lift(x) + self.other(x))
        if self.function == "cat":
            return self.then(torch.cat([self.lift(x)[:, :2], self.other(x)[:, :2]], 1))
        return self.then(x=self.function(self.lift(x)))  # type: ignore[operator]


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.movedim(1, -1).mul(2).movedim(-1, 1),
        lambda y: F.linear(y.permute(0, 2, 3, 4, 1), torch.eye(4)).movedim(-1, 1),
        lambda y: torch.cat([y[:, 2:], y[:, :2].flip(1)], 1),
        lambda y: y.softmax(2),
        lambda y: F.pad(y, (1, 1, 1, 1))[..., 1:-1, 1:-1].contiguous(),
    ],
)
def test_functions_that_keep_a_field(function: Callable[[Tensor], Tensor]) -> None:
    network = Between(function)
    check_network(network, torch.randn(1, 1, 7, 7))
    x = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    if "eye" not in function.__code__.co_names:
        assert_equivariant(network.double(), "p4", x, in_field="scalar", out_field="regular")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda y: y.transpose(1, 2), r"then \(GroupConv2d\) is for .* axes in another order"),
        (lambda y: y.mT, r"then .* axes in another order"),
        (lambda y: y.flip(2), r"then .* no field .* from flip on a field of p4"),
        (lambda y: y.flip(-1), r"from flip"),
        (lambda y: y.roll(1, 2), r"from roll"),
        (lambda y: y[:, :, [1, 0, 2, 3]], r"from __getitem__"),
        (lambda y: y.sort(2).values, r"from sort"),
        (lambda y: torch.einsum("bcghw,gk->bckhw", y, torch.ones(4, 4).to(y)), r"from einsum"),
        (lambda y: F.conv3d(y, torch.ones(4, 4, 3, 3, 3).to(y), padding=1), r"from conv3d"),
        (lambda y: torch.stack([y[:, :, 0]] * 4, 2), r"no field"),
        (lambda y: torch.cat([y[:, :, 2:], y[:, :, :2]], 2), r"no field"),
        ("+", r"add takes a field of p4 from lift \(LiftConv2d\) and one of pmm from other"),
        ("cat", r"cat takes a field of p4 from lift \(LiftConv2d\) and one of pmm from other"),
    ],
)
def test_functions_that_lose_a_field_are_named(function: Callable[[Tensor], Tensor] | str, text: str) -> None:
    network = Between(function).double().eval()
    x = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"^check_network: .*{text}"):
        check_network(network, x)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.AvgPool3d(3, 1, 1),),
        (nn.MaxPool3d(2),),
        (nn.Flatten(1, 2), nn.BatchNorm2d(16)),
        (nn.Flatten(1, 2), nn.GroupNorm(2, 16)),
        (nn.Flatten(1, 2), nn.PReLU(16)),
    ],
)
def test_layers_of_torch_that_mix_a_field_are_named(layers: tuple[nn.Module, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{len(layers)} \({type(layers[-1]).__name__}\) mixes the entries of a field of p4"):
        check_network(nn.Sequential(LiftConv2d(1, 4, 3, "p4"), *layers), torch.randn(1, 1, 9, 9))


MIXED: list[tuple[nn.Module, tuple[int, ...], str]] = [
    (
        nn.Sequential(LiftConv3d(1, 2, 3, "O"), GroupConv3d(2, 2, 1, "Td")),
        (1, 1, 3, 3, 3),
        r"1 \(GroupConv3d\) is for fields of Td, .* O from 0",
    ),
    (
        Residual("p4", "pmm"),
        (1, 1, 5, 5),
        r"block \(GroupConv2d\) is for fields of pmm, and gets a field of p4 from lift \(LiftConv2d\)",
    ),
    (nn.Sequential(LiftConv2d(1, 2, 3, "pmm"), nn.ReLU(), BlurPool2d()), (1, 1, 7, 7), r"2 \(BlurPool2d\) is for fields of p4, .* pmm"),
    (nn.Sequential(LiftConv2d(1, 2, 3, "p4"), GroupPool("max", group="pmm")), (1, 1, 7, 7), r"1 \(GroupPool\) is for fields of pmm"),
    (
        nn.Sequential(nn.Unflatten(1, (2, 4)), GroupConv2d(2, 2, 3, "p4")),
        (1, 8, 5, 5),
        r"1 \(GroupConv2d\) is for fields of p4, .* no field",
    ),
    (nn.Sequential(nn.Unflatten(1, (2, 4)), GroupPool("max")), (1, 8, 5, 5), r"1 \(GroupPool\) is for fields of a group, .* no field"),
    (nn.Sequential(nn.Unflatten(1, (2, 4)), GroupBatchNorm(2)), (1, 8, 5, 5), r"1 \(GroupBatchNorm\) is for fields of a group"),
    (nn.Sequential(LiftConv2d(1, 2, 3, "p4"), nn.Flatten(), nn.Linear(2 * 4 * 9, 2)), (1, 1, 5, 5), r"2 \(Linear\) mixes the entries"),
    (nn.Sequential(LiftConv2d(1, 2, 3, "p4"), nn.Flatten(1, 2), nn.Conv2d(8, 2, 3)), (1, 1, 5, 5), r"2 \(Conv2d\) mixes the entries"),
    (
        nn.Sequential(LiftConv2d(1, 2, 3, "p4m"), Restrict("p4m", "pmm"), GroupConv2d(4, 2, 3, "p4")),
        (1, 1, 7, 7),
        r"2 .*p4, .* field of pmm",
    ),
    (
        nn.Sequential(LiftConv2d(1, 4, 3, "p4"), nn.Flatten(1, 2), LiftConv2d(16, 2, 3, "p4")),
        (1, 1, 7, 7),
        r"2 \(LiftConv2d\) lifts images",
    ),
]


@pytest.mark.parametrize(("network", "shape", "text"), MIXED)
def test_the_first_layer_with_a_field_of_another_group_is_named(network: nn.Module, shape: tuple[int, ...], text: str) -> None:
    network.eval()(torch.randn(shape))  # runs
    with pytest.raises(ValueError, match=r"^check_network: " + text):
        check_network(network, torch.randn(shape))


@pytest.mark.parametrize(
    ("make", "group", "kernel", "text"),
    [
        (GroupConv2d, "p4", (1, 7), r"kernel_size \(1, 7\) keeps 1 of 7 taps, .*p4 .*; kernel_size \(1, 1\) has the same"),
        (GroupConv2d, "p4m", (3, 5), r"keeps 9 of 15 taps"),
        (LiftConv2d, "p6", (3, 5), r"keeps 7 of 15 taps"),
        (GroupConv3d, "O", (3, 3, 1), r"keeps 1 of 9 taps"),
        (GroupConvTranspose2d, "p4", (5, 3), r"keeps 9 of 15 taps"),
    ],
)
def test_dead_taps_are_warned_of(make: Any, group: str, kernel: tuple[int, ...], text: str) -> None:
    with pytest.warns(UserWarning, match=text):
        make(2, 2, kernel, group)
    with pytest.raises(ValueError, match=text):
        make(2, 2, kernel, group, strict=True)


def test_live_taps_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for group, kernel in (("p4", 3), ("p4", 4), ("pmm", (1, 7)), ("p6m", 5), ("p3m1", 3), ("p2", (2, 5)), ("C4", (5, 3, 3))):
            layer = GroupConv3d if group == "C4" else GroupConv2d
            layer(2, 2, kernel, group, strict=True)


class TestHexagonalPadding:
    @pytest.mark.parametrize("group", ["p6", "p6m", "p3", "p3m1"])
    def test_is_warned_of_and_a_mask_mends_it(self, group: str) -> None:
        torch.manual_seed(0)
        first, second = LiftConv2d(1, 2, 3, group, padding=1).double(), GroupConv2d(2, 2, 3, group, padding="same").double()
        mask = FieldMask(7, group)
        x = torch.randn(1, 1, 7, 7, dtype=torch.float64)
        with pytest.warns(EquivarianceWarning, match=r"LiftConv2d: with padding, .*outside of the hexagon.*FieldMask\(\(7, 7\), "):
            y = first(x)
        with pytest.warns(EquivarianceWarning, match=r"GroupConv2d: with padding"):
            second(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EquivarianceWarning)
            assert equivariance_error(nn.Sequential(first, second), group, x, in_field="scalar") > 1e-3
        for layer in (first, second):
            layer.strict = True
        with pytest.raises(ValueError, match=r"LiftConv2d: with padding"):
            first(x)
        assert_equivariant(nn.Sequential(mask, first, mask, second), group, x, in_field="scalar", rtol=1e-12)

    def test_values_count_in_every_strict_call(self) -> None:
        layer = GroupConv2d(1, 1, 3, "p6", padding=1, strict=True)
        x = torch.zeros(1, 1, 6, 5, 5)
        layer(x)
        x[..., 2, 2] = 1.0
        layer(x)
        x[..., 0, 0] = 1.0
        with pytest.raises(ValueError, match="outside of the hexagon"):
            layer(x)
        with pytest.raises(ValueError, match="outside of the hexagon"):
            BlurPool2d("p6", strict=True)(x)

    def test_no_padding_and_periodic_grids_need_no_mask(self) -> None:
        x = torch.randn(1, 1, 6, 7, 7)
        GroupConv2d(1, 1, 3, "p6", strict=True)(x)
        GroupConv2d(1, 1, 3, "p6", padding=1, padding_mode="circular", strict=True)(x)
        GroupConv2d(1, 1, 1, "p6", padding="same", strict=True)(x)


STRICT: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = [  # layer, a shape that keeps the equivariance, and one that does not
    (LiftConv2d(1, 2, 3, "p4", stride=2, padding=1, strict=True), (1, 1, 7, 7), (1, 1, 8, 8)),
    (GroupConv2d(1, 2, 3, "p4m", stride=2, strict=True), (1, 1, 8, 7, 7), (1, 1, 8, 8, 8)),
    (GroupConv2d(1, 2, 3, "p4", stride=2, padding=1, padding_mode="circular", strict=True), (1, 1, 4, 7, 7), (1, 1, 4, 6, 6)),
    (GroupConv3d(1, 1, 3, "O", stride=2, strict=True), (1, 1, 24, 5, 5, 5), (1, 1, 24, 4, 4, 4)),
    (BlurPool2d("p4", strict=True), (1, 1, 4, 7, 7), (1, 1, 4, 8, 8)),
    (GroupMaxPool2d(2, strict=True), (1, 1, 4, 6, 6), (1, 1, 4, 7, 7)),
    (GroupAvgPool2d(3, stride=2, strict=True), (1, 1, 4, 7, 7), (1, 1, 4, 8, 8)),
]


@pytest.mark.parametrize(("layer", "good", "bad"), STRICT, ids=[type(layer).__name__ for layer, _, _ in STRICT])
class TestStrictInGraphs:
    def test_compile(self, layer: nn.Module, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
        torch._dynamo.reset()
        compiled = torch.compile(layer.eval(), fullgraph=True, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(torch.ones(good)), layer(torch.ones(good)))
            with pytest.raises(Exception, match=r"ValueError|breaks exact equivariance"):
                compiled(torch.ones(bad))
            torch._dynamo.reset()
            with pytest.raises(Exception, match=r"ValueError|breaks exact equivariance"):
                torch.compile(layer, fullgraph=True, backend="eager")(torch.ones(bad))
            torch._dynamo.reset()
            with pytest.raises(ValueError, match=r"breaks exact equivariance"):
                torch.compile(layer, backend="eager")(torch.ones(bad))

    def test_export(self, layer: nn.Module, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
        torch.export.export(layer.eval(), (torch.ones(good),))
        with pytest.raises(ValueError, match=r"breaks exact equivariance"):
            torch.export.export(layer, (torch.ones(bad),))


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        GroupConv2d(1, 1, 3, "p6", padding=1, strict=True),
        GroupConvTranspose2d(1, 1, 3, "p6", padding=1, strict=True),
        BlurPool2d("p6", strict=True),
    ],
)
def test_strict_hexagonal_padding_is_checked_under_compile(layer: nn.Module, fullgraph: bool) -> None:
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"outside of the hexagon|breaks exact equivariance|Observed exception"):
        torch.compile(layer.eval(), backend="eager", fullgraph=fullgraph)(torch.randn(1, 1, 6, 5, 5))
    with pytest.raises(ValueError, match=r"a graph cannot tell|breaks exact equivariance"):
        torch.export.export(layer, (torch.randn(1, 1, 6, 5, 5),))


def test_strict_transposed_convolutions_and_functions_in_graphs() -> None:
    layer = GroupConvTranspose2d(1, 1, 3, "p4", stride=2, padding=1, output_padding=1, strict=True)
    with pytest.raises(ValueError, match=r"breaks exact equivariance"):
        torch.export.export(layer, (torch.ones(1, 1, 4, 3, 3),))
    torch._dynamo.reset()
    weight = torch.ones(1, 1, 4, 3, 3)

    def call(x: Tensor) -> Tensor:
        return iso.ops.group_conv(x, weight, group="p4", stride=2, strict=True)

    with pytest.raises(Exception, match=r"ValueError|breaks exact equivariance"):
        torch.compile(call, fullgraph=True, backend="eager")(torch.ones(1, 1, 4, 6, 6))
