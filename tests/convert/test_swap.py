"""A plain network swapped for an equivariant one: what is kept, what is refused and in which words, and what the options do."""

from __future__ import annotations

import copy
import io
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import NETWORKS, VGG, BasicBlock, ConvNeXt, DropPath, ResNet, UNet
from torch import Tensor, nn

import isotypic as iso
from isotypic.demo import SmallCNN
from isotypic.nn import swap


def invariance(net: nn.Module, group: str, images: Tensor) -> float:
    outputs = [net(iso.testing.act(group, element, images, "scalar")) for element in range(iso.groups.get(group).order)]
    return max(((output - outputs[0]).abs().max() / outputs[0].abs().max()).item() for output in outputs)


def head(channels: int, classes: int = 2) -> list[nn.Module]:
    return [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


@pytest.mark.parametrize("group", ["p4", "p4m", "pmm"])
def test_swap_keeps_the_size_and_makes_invariant(group: str) -> None:
    plain = SmallCNN(22).double()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    net = swap(plain.eval(), group)
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items()), "the plain network is left as it was"
    count = sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in plain.parameters())
    assert 0.9 < count < 1.1
    images = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    iso.testing.assert_equivariant(net.features, group, images, in_field="scalar")
    assert invariance(net, group, images) < 1e-10


def test_swap_knows_the_usual_layers() -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.Dropout2d(0.1),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Conv2d(8, 16, 3, dilation=2), nn.GELU()),
        nn.Flatten(),
        nn.Linear(16 * 4, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    )
    net = swap(plain, "p4", head="pool")
    assert net(torch.rand(2, 3, 12, 12)).shape == plain(torch.rand(2, 3, 12, 12)).shape == (2, 2)
    assert net[0].padding_mode == "circular" and net[0].out_fields == 4
    assert isinstance(net[1], iso.nn.FieldDropout) and isinstance(net[2], iso.nn.GroupAvgPool2d)
    assert net[3][0].dilation == (2, 2) and net[3][0].out_fields == 8
    assert invariance(net.double().eval(), "p4", torch.rand(2, 3, 12, 12, dtype=torch.float64)) < 1e-10


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_a_forward_pass_that_works_on_fields_is_kept(group: str) -> None:
    plain = ResNet(BasicBlock).double()
    images = torch.rand(2, 3, 33, 33, dtype=torch.float64)
    net = swap(plain, group, images)
    assert type(net) is ResNet and net.report.forward == "as written"
    iso.testing.assert_equivariant(net.eval().features, group, images, in_field="scalar")
    names = [key for key in net.state_dict() if not key.endswith("_extra_state")]  # the keys of groups
    assert names == list(plain.state_dict()), "residual networks keep their names"
    other = swap(plain, group).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images), net(images))


def test_a_graph_keeps_the_names_and_can_be_copied_pickled_and_saved() -> None:
    plain = UNet()
    images = torch.rand(1, 1, 16, 16)
    net = swap(plain, "p4", images).eval()
    assert isinstance(net, torch.fx.GraphModule) and net.report.forward == "graph"
    assert set(plain.state_dict()) <= set(net.state_dict())
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        assert torch.equal(other(images), net(images)) and str(other.report) == str(net.report)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(images), net(images))


def test_outputs_keep_their_channels() -> None:
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3)).double()
    net = swap(plain, "p4", images)
    assert net(images).shape == plain(images).shape == (2, 10, 5, 5)
    iso.testing.assert_equivariant(net, "p4", images, in_field="scalar", out_field="scalar")
    fields = swap(plain, "p4", images, head="fields")
    assert fields(images).shape == (2, 10, 4, 5, 5) and fields.report.equivariance_error < 1e-10
    iso.testing.assert_equivariant(fields, "p4", images, in_field="scalar")
    # A backbone: its last convolution is added to what other layers read too.
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 8), BasicBlock(8, 8)).double()
    net = swap(backbone, "p4", images)
    assert (
        net(images).shape == backbone(images).shape and invariance(nn.Sequential(net.eval(), nn.AdaptiveAvgPool2d(1)), "p4", images) < 1e-10
    )


class Call(nn.Module):
    """A forward pass from a function of the model and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class MySwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid() if x.sum() > 0 else x  # which no trace follows


class BatchNormAct2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class MyConv(nn.Conv2d):
    pass


def chain(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *modules)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (chain(nn.MaxPool2d(2, ceil_mode=True)), r"1 \(MaxPool2d\): ceil_mode must be False, got True"),
        (chain(nn.MaxPool2d(2, dilation=2)), r"1 \(MaxPool2d\): dilation must be 1, got 2"),
        (chain(nn.MaxPool2d(2, return_indices=True)), r"1 \(MaxPool2d\): return_indices must be False, got True"),
        (chain(nn.AvgPool2d(3, padding=1, count_include_pad=False)), r"1 .*count_include_pad must be True, got False"),
        (chain(nn.AvgPool2d(2, divisor_override=3)), r"1 .*divisor_override must be None, got 3"),
        (chain(nn.Conv2d(8, 8, 3, stride=(1, 2))), r"1 \(Conv2d\): GroupConv2d: stride must be equal"),
        (chain(nn.Conv2d(8, 8, (1, 2)), *head(8)), r"1 \(Conv2d\): its kernel \(1, 2\) cannot be made \(2, 2\)"),
        (chain(nn.Linear(9, 9)), r"1 \(Linear\): a linear layer reads the last axis, which are positions"),
        (chain(nn.Flatten(), nn.Linear(72, 3)), r"2 \(Linear\): it reads 9 positions of each of 8 channels.*head='pool'"),
        (chain(nn.Flatten(), nn.Linear(9, 3)), r"2 \(Linear\): it reads 9 numbers, and gets 8 channels"),
        (VGG(), r"classifier\.0 \(Linear\): it reads 9 positions of each of 16 channels.*head='pool'"),
        (chain(BatchNormAct2d(8)), r"1 \(BatchNormAct2d\): no eq.*no BatchNorm2d itself.*pointwise=\[BatchNormAct2d\].*keep=\['1'\]"),
        (nn.Sequential(MyConv(3, 8, 3)), r"0 \(MyConv\): no equivariant layer is known.*no Conv2d itself"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))), r"0 \(ParametrizedConv2d\): it is parametrized"),
        (nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 8, 3))), r"0 \(Conv2d\): it has hooks"),
        (chain(MySwish()), r"1 \(MySwish\): its forward pass cannot be traced.*pointwise=\[MySwish\].*keep=\['1'\]"),
        (chain(nn.Fold(3, 1)), r"1 \(Fold\): no equivariant layer is known for Fold\. "),
        (chain(nn.ZeroPad2d((1, 0, 1, 0))), r"1 \(ZeroPad2d\): padding \(1, 0, 1, 0\) is not the same on the sides that p4 exchanges"),
        (nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(3, 4, 3)), r"0 \(PixelShuffle\): it reads images"),
        (Call(lambda m, x: torch.roll(m.conv(x), 1, 2), conv=nn.Conv2d(3, 8, 3)), "model: the function roll is not known on images"),
        (Call(lambda m, x: m.conv(x)[:, :, 1:], conv=nn.Conv2d(3, 8, 3)), "model: the index .* cuts positions off on one side"),
        (Call(lambda m, x: m.conv(x).view(-1, 8), conv=nn.Conv2d(3, 8, 3)), r"model: view: shape \(-1, 8\) is not known"),
        (Call(lambda m, x: m.fc(m.conv(x).mean()), conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(1, 2)), "model: mean: it reduces all axes"),
        (Call(lambda m, x: m.a(x) + m.b(x.mean((2, 3)))[:, :, None, None], a=nn.Conv2d(3, 8, 3), b=nn.Linear(3, 8)), "model: add of inv"),
        (Call(lambda m, x: m.conv(m.conv(x)), conv=nn.Conv2d(3, 3, 3)), r"conv \(Conv2d\): it is called on images .* and on .* fields"),
    ],
)  # fmt: skip
def test_swap_names_what_it_cannot_do_and_the_way_on(model: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^swap: {message}"):
        swap(model, "p4")


def test_swap_checks_its_arguments() -> None:
    plain = chain()
    for options, error, message in [
        ({"head": "flatten"}, ValueError, 'head must be None, "pool" or "fields"'),
        ({"init": "zeros"}, ValueError, 'init must be None or "pretrained"'),
        ({"init": "pretrained", "fields": lambda c: c}, ValueError, "fields cannot be chosen with init='pretrained'"),
        ({"pointwise": ["MySwish"]}, TypeError, "pointwise must hold types of modules, got 'MySwish'"),
        ({"keep": ["conv"]}, ValueError, "keep has 'conv', which is no module of the model"),
        ({"fields": {"1": 3}}, ValueError, "fields has '1', which is no convolution"),
        ({"example": torch.rand(1, 4, 9, 9)}, ValueError, "the model does not run on the example: RuntimeError"),
    ]:
        with pytest.raises(error, match=rf"^swap: {message}"):
            swap(plain, "p4", **options)
    with pytest.raises(ValueError, match=r"^swap: group must act on 2 spatial axes, but O acts on 3"):
        swap(SmallCNN(8), "O")
    with pytest.raises(TypeError, match=r"^swap: model must be an nn\.Module, got list"):
        swap([nn.Conv2d(1, 4, 3)], "p4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^swap: no layer of the model is known to read images; give swap an example"):
        swap(nn.Sequential(nn.Linear(9, 9), nn.Conv2d(3, 8, 3)), "p4")
    plain = chain(*head(8))
    plain.report = "mine"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"^swap: the model has an attribute `report`"):
        swap(plain, "p4")
    assert swap(plain, "p4", report=False).report == "mine"


def test_parameters_that_two_layers_share_are_refused_and_shared_layers_stay_shared() -> None:
    tied = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), *head(8))
    tied[1].weight = tied[0].weight
    with pytest.raises(TypeError, match=r"^swap: 0 and 1 share a parameter"):
        swap(tied, "p4")
    shared, norm, relu = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    net = swap(chain(nn.Sequential(shared, norm, relu), nn.Sequential(shared, norm), *head(8)), "p4")
    assert net[1][0] is net[2][0] and net[1][1] is net[2][1]
    assert net[1][1].activation is None and isinstance(net[1][2], nn.ReLU), "no ReLU follows the second use"
    assert net(torch.rand(1, 3, 7, 7)).shape == (1, 2)
    pool = nn.MaxPool2d(2, 1)
    net = swap(nn.Sequential(pool, nn.Conv2d(3, 8, 3), pool, pool, *head(8)), "p4")
    assert net[0] is net[2] is net[3] and net(torch.rand(1, 3, 9, 9)).shape == (1, 2)


def test_modes_gradients_and_dtypes_come_along() -> None:
    plain = chain(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), *head(12)).double()
    plain[1].eval()
    plain[0].weight.requires_grad_(False)
    net = swap(plain, "p4")
    assert not net[1].training and net[0].training and net.training
    assert not net[0].weight.requires_grad and net[0].bias.requires_grad
    assert all(parameter.dtype == torch.float64 for parameter in net.parameters())
    assert swap(chain(*head(8)).to("meta"), "p4")[0].weight.is_meta
    seen: list[int] = []
    hooked = chain(nn.ReLU(), *head(8))
    hooked[1].register_forward_hook(lambda module, args, output: seen.append(output.dim()))
    with pytest.raises(TypeError, match=r"^swap: 1 \(ReLU\): it has hooks"):
        swap(hooked, "p4")
    hooked = chain(nn.ReLU(), *head(8))
    hooked.register_forward_hook(lambda module, args, output: seen.append(output.dim()))
    swap(hooked, "p4")(torch.rand(1, 3, 9, 9))
    assert seen[-1] == 2, "hooks of what is kept are kept"


def test_declared_and_kept_modules() -> None:
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    plain = chain(MySwish(), *head(8)).double()
    net = swap(plain, "p4", images, pointwise=[MySwish])
    assert isinstance(net[1], MySwish) and net.report.equivariance_error < 1e-10
    stem = nn.Sequential(MyConv(3, 4, 3), nn.Conv2d(4, 8, 3), *head(8)).double()
    net = swap(stem, "p4", images, keep=["0"])
    assert type(net[0]) is MyConv and torch.equal(net[0].weight, stem[0].weight)
    assert not net.report.exact and net.report.equivariance_error > 1e-3 and "0" in [line.name for line in net.report.approximate]
    behind = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), MySwish(), nn.Linear(8, 2)).double()
    net = swap(behind, "p4", images, keep=[MySwish])
    assert net.report.exact and net.report.equivariance_error < 1e-10


def test_fields_chooses_widths() -> None:
    net = swap(chain(nn.ReLU(), nn.Conv2d(8, 12, 3), *head(12)), "p4", fields={"0": 3})
    assert net[0].out_fields == net[2].in_fields == 3 and net[2].out_fields == 6
    assert swap(chain(*head(8)), "p4", fields=lambda channels: 2 * channels)[0].out_fields == 16


@pytest.mark.parametrize("head_of", ["linear", "flatten"])
def test_a_positional_head_is_pooled_on_request(head_of: str) -> None:
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    plain = VGG().double() if head_of == "linear" else chain(nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10)).double()
    net = swap(plain, "p4m", images, head="pool")
    assert net(images).shape == (2, 10) and net.report.exact and net.report.equivariance_error < 1e-10
    # One position is no position: the last pooling of LeNet and the like.
    one = nn.Sequential(nn.Conv2d(3, 8, 16), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)).double()
    assert swap(one, "p4m", images).report.equivariance_error < 1e-10


def test_swap_passes_what_no_field_reaches_and_what_acts_on_values() -> None:
    pointwise = (
        *(nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Hardtanh(), nn.CELU(), nn.SELU()),
        *(nn.LogSigmoid(), nn.PReLU(), nn.Identity(), nn.Sequential()),
    )
    tail = nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.GLU(), nn.Linear(3, 2), nn.LogSoftmax(1)
    net = swap(nn.Sequential(nn.Conv2d(1, 8, 3), *pointwise, *tail), "p4").eval()
    images = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(net(images), net(images.rot90(1, (2, 3))), rtol=0, atol=1e-5)
    decoder = nn.Sequential(nn.Conv2d(1, 4, 3), *tail[:2], nn.Linear(4, 9), nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 3, 3, groups=1))
    net = swap(decoder, "p4")
    assert net(images).shape == (2, 3, 1, 1) and net[5] is not decoder[5] and torch.equal(net[5].weight, decoder[5].weight)


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate"])
def test_swap_takes_other_paddings_where_they_are_equivariant(padding_mode: str) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode=padding_mode))
    iso.testing.assert_equivariant(swap(plain, "p4m"), "p4m", torch.rand(1, 1, 7, 7), in_field="scalar")
    with pytest.raises(TypeError, match=f'^swap: 0 .*LiftConv2d: padding_mode "{padding_mode}" is not equivariant under p6'):
        swap(plain, "p6", torch.rand(1, 1, 7, 7))


def test_the_report_says_which_sizes_are_only_approximate() -> None:
    plain = ResNet(BasicBlock).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", iso.EquivarianceWarning)
        made = swap(plain, "p4", torch.rand(1, 3, 32, 32, dtype=torch.float64)).report
    assert not made.exact and made.equivariance_error > 1e-4 and "sizes 31 and 33 keep it" in made.approximate[0].note
    assert made.approximate[0].name == "conv1"
    text = str(made)
    assert "conv1" in text and "approximate: spatial axis 0 of size 32" in text and "LiftConv2d" in text
    assert made.parameters_before == sum(p.numel() for p in plain.parameters())
    assert swap(plain, "p4").report.equivariance_error is None and "no example" in str(swap(plain, "p4").report)


@pytest.mark.parametrize("group", ["p6", "p6m", "p3m1"])
def test_hexagonal_groups_get_masks(group: str) -> None:
    images = torch.rand(2, 3, 11, 11, dtype=torch.float64)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).double()  # fmt: skip
    net = swap(plain, group, images).eval()
    assert any(isinstance(module, iso.nn.FieldMask) for module in net.modules())
    assert invariance(net, group, iso.testing.act(group, 0, images, "scalar")) < 1e-10
    with pytest.raises(TypeError, match=r"^swap: 0 \(Conv2d\): with padding under .* it needs a FieldMask.*give swap an example"):
        swap(plain, group)
    with pytest.raises(TypeError, match="does not leave a box of positions invariant; use BlurPool2d"):
        swap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), *head(8)), group)


PRETRAINED = [
    "ResNet-18",
    "ResNet-18, option A",
    "ResNeXt",
    "DenseNet",
    "EfficientNet",
    "SENet",
    "Inception",
    "U-Net",
    "FPN",
    "siamese",
    "denoiser",
]


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_pretrained_weights_give_the_mean_over_the_group(name: str, group: str) -> None:
    torch.manual_seed(0)
    make, shapes = NETWORKS[name]
    plain = make().double()
    for _ in range(2):  # statistics away from their initial values
        plain.train()(*(torch.rand(shape, dtype=torch.float64) for shape in shapes))
    plain.eval()
    data = tuple(torch.rand(shape, dtype=torch.float64) for shape in shapes)
    net = swap(plain, group, data, init="pretrained")
    elements = iso.groups.get(group)
    if name != "siamese":  # its distance is computed before the mean
        if name == "U-Net":
            assert net.report.forward == "graph"
        outputs = []
        for element in range(elements.order):
            moved = plain(*(iso.testing.act(group, element, value, "scalar") for value in data))
            outputs.append(moved if isinstance(moved, Tensor) else moved["p1"])
        back = [
            iso.testing.act(group, int(elements.inverse[e]), output, "scalar") if output.dim() == 4 else output
            for e, output in enumerate(outputs)
        ]
        expected = torch.stack(back).mean(0)
        found = net(*data)
        torch.testing.assert_close(found if isinstance(found, Tensor) else found["p1"], expected, rtol=0, atol=1e-10)
    assert net.report.equivariance_error < 1e-10


def test_pretrained_norms_over_channels_are_said_to_be_near() -> None:
    net = swap(ConvNeXt(), "p4", torch.rand(1, 3, 24, 24), init="pretrained", pointwise=[DropPath])
    assert any("not the plain network's mean" in line.note for line in net.report.lines)


def test_modules_that_fields_and_numbers_share() -> None:
    """One ReLU and one Dropout for features and head, as is usual; what would have to be two is refused or made two."""
    images = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    relu, drop, hidden = nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 8)
    net = swap(nn.Sequential(nn.Conv2d(3, 8, 3), relu, drop, *head(8, 8), relu, drop, hidden, relu).double(), "p4", images)
    assert net[1] is net[6] and net[2] is net[7] and net.report.equivariance_error < 1e-10
    pool = nn.AdaptiveAvgPool2d(1)
    twice = Call(
        lambda m, x: m.pool(m.fc(m.pool(m.conv(x)).flatten(1))[:, None, None]), conv=nn.Conv2d(3, 8, 3), pool=pool, fc=nn.Linear(8, 4)
    )
    net = swap(twice.double(), "p4", images)
    assert net(images).shape == (2, 1, 1, 1) and net.report.forward == "graph" and net.report.equivariance_error < 1e-10
    with pytest.raises(TypeError, match=r"^swap: norm \(BatchNorm2d\): it is called on .* fields .* and on invariant numbers"):
        norm = nn.BatchNorm2d(8)
        swap(
            Call(
                lambda m, x: m.norm(m.fc(m.norm(m.conv(x)).mean((2, 3)))[:, :, None, None]),
                conv=nn.Conv2d(3, 8, 3),
                norm=norm,
                fc=nn.Linear(8, 8),
            ),
            "p4",
        )


def test_nearest_neighbours_by_parts_of_a_step_are_said_to_be_approximate() -> None:
    images = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    for model in (
        Call(lambda m, x: m.out(F.interpolate(m.conv(x), size=10)), conv=nn.Conv2d(3, 8, 3), out=nn.Conv2d(8, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Upsample(size=10), nn.Conv2d(8, 2, 1)),
    ):
        made = swap(model.double(), "p4", images).report
        assert not made.exact and "not centred" in made.approximate[0].note and made.equivariance_error > 1e-3


def test_training_and_evaluation_are_both_looked_at() -> None:
    class Auxiliary(nn.Module):
        """A second head in training, as in GoogLeNet."""

        def __init__(self, gate: bool) -> None:
            super().__init__()
            self.conv, self.pool, self.fc, self.aux, self.gate = (
                nn.Conv2d(3, 8, 3),
                nn.AdaptiveAvgPool2d(1),
                nn.Linear(8, 4),
                nn.Linear(8, 4),
                gate,
            )

        def forward(self, x: Tensor) -> Any:
            x = self.conv(x)
            pooled = x.mean((2, 3)) if self.gate else torch.flatten(self.pool(x), 1)
            return (self.fc(pooled), self.aux(pooled)) if self.training else self.fc(pooled)

    images = torch.rand(2, 3, 9, 9)
    net = swap(Auxiliary(gate=False), "p4", images)
    assert len(net.train()(images)) == 2 and net.eval()(images).shape == (2, 4) and net.aux.in_features == 4
    with pytest.raises(TypeError, match="its forward pass is another one in training than in evaluation"):
        swap(Auxiliary(gate=True), "p4", images)


def test_functional_dropout_follows_the_mode_in_a_graph() -> None:
    plain = Call(lambda m, x: m.fc(F.dropout(m.conv(x).mean((2, 3)), 0.5, m.training)), conv=nn.Conv2d(3, 64, 3), fc=nn.Linear(64, 4))
    images = torch.rand(2, 3, 9, 9)
    net = swap(plain, "p4", images)
    assert net.report.forward == "graph"
    assert torch.equal(net.eval()(images), net(images)) and not torch.equal(net.train()(images), net(images))


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend")
    path = Path(__file__).parents[2] / "examples" / "group_convolutions.py"
    runpy.run_path(str(path))["main"](train_size=120, epochs=1)
    plain, p4 = capsys.readouterr().out.splitlines()
    assert float(plain.split()[-1]) > 1e-2 and float(p4.split()[-1]) < 1e-4


class Steps(nn.Module):
    """Two convolutions, what `forward` makes of them, and a head."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **more: Any) -> None:
        super().__init__()
        self.steps = forward
        self.one, self.two, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        for name, module in more.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)

    def between(self, x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
        return self.fc(F.relu(self.two(step(F.relu(self.one(x))))).mean((2, 3)))


@pytest.mark.parametrize(
    "step, message",
    [
        (lambda net, y: F.adaptive_avg_pool2d(y, (2, 3)), "output_size must be equal on the axes that p4m exchanges"),
        (lambda net, y: F.interpolate(y, size=(24, 36)), "size must be equal on the axes that p4m exchanges"),
        (lambda net, y: net.up(y), "scale_factor must be equal on the axes that p4m exchanges"),
        (lambda net, y: y[:, :, ::2], "steps must be equal on the axes that p4m exchanges"),
        (lambda net, y: y.clamp(min=0.1).pow(net.exponents), "pow of 8 fields .* a tensor of several numbers"),
    ],
)
def test_what_treats_axes_or_elements_differently_is_refused(step: Any, message: str) -> None:
    plain = Steps(lambda net, x: net.between(x, lambda y: step(net, y)), up=nn.Upsample(scale_factor=(2, 1)))
    plain.exponents = nn.Parameter(torch.full((1, 8, 1, 1), 1.5))
    with pytest.raises(TypeError, match=message):
        swap(plain, "p4m", torch.rand(1, 3, 13, 13), fields=lambda channels: 8)


def test_a_map_that_is_flattened_into_an_output_is_refused() -> None:
    with pytest.raises(TypeError, match="169 positions of each of 8 channels on one axis"):
        swap(Steps(lambda net, x: net.two(F.relu(net.one(x))).flatten(1)), "p4", torch.rand(1, 3, 13, 13))
    images = torch.rand(1, 3, 5, 5, dtype=torch.float64)
    one = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3), nn.Flatten()).double()
    assert swap(one, "p4", images).report.exact and invariance(swap(one, "p4", images), "p4", images) < 1e-12
    assert not swap(one, "p4").report.exact


@pytest.mark.parametrize(
    "size, exact, settings",
    [
        (13, False, {"scale_factor": 1.5, "mode": "bilinear"}),
        (12, True, {"scale_factor": 1.5, "mode": "bilinear"}),
        (13, True, {"scale_factor": 1.5, "mode": "bilinear", "recompute_scale_factor": True}),
        (13, True, {"scale_factor": 1.5, "mode": "bilinear", "align_corners": True}),
        (12, False, {"scale_factor": 0.5, "mode": "nearest-exact"}),
        (12, False, {"scale_factor": 1.5, "mode": "nearest-exact"}),
        (12, True, {"size": 20, "mode": "bicubic"}),
        (15, True, {"size": 25, "mode": "nearest-exact"}),
    ],
)
@pytest.mark.parametrize("functional", [True, False])
def test_positions_between_those_of_the_grid_are_exact_or_said_not_to_be(
    size: int, exact: bool, settings: dict[str, Any], functional: bool
) -> None:
    def step(y: Tensor) -> Tensor:
        return F.interpolate(y, **settings)

    images = torch.rand(1, 3, size, size, dtype=torch.float64)
    plain = Steps(lambda net, x: net.between(x, step if functional else net.up), up=nn.Upsample(**settings)).double()
    net = swap(plain, "p4", images)
    assert net.report.exact == exact
    assert (invariance(net, "p4", images) < 1e-12) == exact


def test_what_stands_in_front_of_a_module_stands_in_front_of_its_every_call() -> None:
    images = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    again = Steps(lambda net, x: net.between(x, lambda y: F.relu(net.two(F.relu(net.two(y)))))).double()
    net = swap(again, "p6", images)
    assert [node.target for node in net.graph.nodes].count("two") == 3 and net.report.equivariance_error < 1e-12

    def pyramid(net: Any, x: Tensor) -> list[Tensor]:
        fine = F.relu(net.one(x))
        return [net.head(fine), net.head(F.relu(net.two(fine)))]

    shared = swap(Steps(pyramid, head=nn.Conv2d(8, 4, 1)).double(), "p4m", images)
    assert [tuple(output.shape) for output in shared(images)] == [(1, 4, 9, 9)] * 2 and shared.report.equivariance_error < 1e-12


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: F.log_softmax(net.between(x, lambda y: y), dim=-1),
        lambda net, x: F.normalize(net.between(x, lambda y: y), dim=-1),
        lambda net, x: net.between(x, lambda y: y).max(-1, keepdim=True)[0],
        lambda net, x: net.between(x, lambda y: y.softmax(-3)),
        lambda net, x: net.between(x, lambda y: y * y.mean(-3, keepdim=True)),
        lambda net, x: net.mix(F.relu(x + net.back(F.relu(net.one(x))))),
        lambda net, x: net.mix(F.relu(x * net.back(F.relu(net.one(x))))),
    ],
)
def test_pretrained_channels_counted_from_the_end_and_images_that_meet_fields(forward: Any) -> None:
    torch.manual_seed(0)
    plain = Steps(forward, back=nn.Conv2d(8, 3, 3, padding=1), mix=nn.Conv2d(3, 2, 3, padding=1)).double().eval()
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    outputs = [plain(images.rot90(k, (2, 3))) for k in range(4)]
    mean = torch.stack([y.rot90(-k, (2, 3)) if y.dim() == 4 else y for k, y in enumerate(outputs)]).mean(0)
    torch.testing.assert_close(swap(plain, "p4", images, init="pretrained")(images), mean, rtol=1e-10, atol=1e-12)


def test_the_error_is_measured_on_images_of_whole_numbers() -> None:
    plain = Steps(lambda net, x: net.between(x.double() / 255, lambda y: y[:, :, ::2, ::2])).double()
    net = swap(plain, "p4", torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8))
    assert not net.report.exact and net.report.equivariance_error > 1e-6


def test_a_graph_keeps_modules_that_are_never_called_and_refuses_every_kind_of_hook() -> None:
    plain = Steps(lambda net, x: net.between(x, lambda y: y), auxiliary=nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    plain.auxiliary[0].eval()
    net = swap(plain, "p4", torch.rand(1, 3, 9, 9))
    assert type(net).__name__ == "Steps" and net.report.forward == "graph" and not net.get_submodule("auxiliary.0").training
    assert torch.equal(net.state_dict()["auxiliary.0.weight"], plain.auxiliary[0].weight)
    hooked = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 4, 3))
    hooked[0].register_full_backward_hook(lambda module, before, after: None)
    with pytest.raises(TypeError, match="swap: 0: it has hooks, which a graph does not call"):
        swap(hooked, "p4", torch.rand(1, 3, 9, 9))


def test_the_parts_of_what_is_kept_are_not_said_to_be_never_called() -> None:
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 8, 3), nn.ReLU(), *head(8))
    lines = {line.name: line for line in swap(plain, "p4", torch.rand(1, 3, 9, 9), keep=["0"]).report.lines}
    assert "0" in lines and "0.0" not in lines


@pytest.mark.parametrize("functional", [True, False])
def test_sub_pixel_convolution_at_the_end(functional: bool) -> None:
    last = nn.Identity() if functional else nn.PixelShuffle(2)
    plain = Steps(lambda net, x: F.pixel_shuffle(net.up(x), 2) if functional else net.up(x))
    plain.up = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), last)
    images = torch.rand(1, 3, 7, 7, dtype=torch.float64)
    net = swap(plain.double(), "p4m", images)
    assert net(images).shape == (1, 3, 14, 14) and net.report.exact and net.report.equivariance_error < 1e-12


def test_the_report_names_a_train_of_the_models_own() -> None:
    class Frozen(Steps):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.two.eval()
            return self

    net = swap(Frozen(lambda net, x: net.between(x, lambda y: y)), "p4", torch.rand(1, 3, 9, 9))
    assert [line.was for line in net.report.lines if line.name == "train"] == ["Frozen.train"]


@pytest.mark.parametrize(
    "step, message",
    [
        (
            lambda net, y: net.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            "norm .BatchNorm2d.: BatchNorm2d reads channels on the last axis",
        ),
        (lambda net, y: F.max_pool2d(y.permute(0, 2, 3, 1), 3, 1, 1).permute(0, 3, 1, 2), "MaxPool2d reads channels on the last axis"),
        (lambda net, y: y * net.rows.view(1, 1, -1, 1), "rows of shape .1, 1, 8, 1. is not one number for each of 8 channels"),
    ],
)
def test_what_takes_positions_for_channels_is_refused(step: Any, message: str) -> None:
    plain = Steps(lambda net, x: net.between(x, lambda y: step(net, y)), norm=nn.BatchNorm2d(8), rows=nn.Parameter(torch.rand(8)))
    with pytest.raises(TypeError, match=message):
        swap(plain, "p4", torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match="rows of shape"):
        swap(
            Steps(lambda net, x: net.between(x * net.rows.view(-1, 1), lambda y: y), rows=nn.Parameter(torch.rand(3))),
            "p4",
            torch.rand(1, 3, 3, 3),
        )


@pytest.mark.parametrize("read", [lambda scale: scale, lambda scale: scale.view(1, -1)])
def test_pretrained_numbers_for_each_feature(read: Any) -> None:
    plain = Steps(lambda net, x: net.between(x, lambda y: y) * read(net.scale), scale=nn.Parameter(torch.rand(5))).double()
    images = torch.rand(2, 3, 7, 7, dtype=torch.float64)
    mean = torch.stack([plain(images.rot90(k, (2, 3))) for k in range(4)]).mean(0)
    torch.testing.assert_close(swap(plain, "p4", images, init="pretrained")(images), mean, rtol=1e-10, atol=1e-12)
