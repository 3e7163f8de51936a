"""What `swap` refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import VGG
from convert.plain_networks import BatchNormAct2d, Call, MyConv, MySwish, Steps, chain, head, invariance
from torch import Tensor, nn

from isotypic.demo import SmallCNN
from isotypic.nn import swap


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


def test_what_is_no_model_is_told_how_to_become_one() -> None:
    with pytest.raises(TypeError, match=r"^swap: model must be an nn\.Module, got the class Conv2d; make one of it: Conv2d\(\.\.\.\)"):
        swap(nn.Conv2d, "p4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^swap: the model is one Conv2d, .* wrap it: nn\.Sequential\(model\)"):
        swap(nn.Conv2d(3, 8, 3), "p4")


def test_pretrained_fields_and_numbers_are_told_the_way_on() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(10, 2)

        def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
            return self.fc(torch.cat([self.conv(x).mean((2, 3)), numbers], 1))

    data = torch.rand(2, 3, 9, 9), torch.rand(2, 2)
    with pytest.raises(TypeError, match=r"^swap: model: cat of invariant numbers with fields; without init='pretrained' fields are pooled"):
        swap(Joined(), "p4", data, init="pretrained")
    assert swap(Joined(), "p4", data).report.equivariance_error < 1e-5
