"""What the report of `swap` says, and that it is true."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import BasicBlock, ResNet
from convert.plain_networks import Call, Steps, head, invariance
from torch import Tensor, nn

import isotypic as iso
from isotypic.nn import swap


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


def test_without_an_example_what_only_some_sizes_keep_is_not_said_to_be_exact() -> None:
    conv, head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
    for step in (nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 2), nn.Upsample(size=10), nn.Upsample(scale_factor=1.5)):
        made = swap(nn.Sequential(conv, step, head), "p4").report
        assert not made.exact and made.approximate[0].name == "1" and "give swap an example" in made.approximate[0].note
    for step in (nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2), nn.Upsample(scale_factor=2), nn.Upsample(size=10, mode="bilinear")):
        assert swap(nn.Sequential(conv, step, head), "p4").report.exact


def test_nearest_neighbours_by_parts_of_a_step_are_said_to_be_approximate() -> None:
    images = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    for model in (
        Call(lambda m, x: m.out(F.interpolate(m.conv(x), size=10)), conv=nn.Conv2d(3, 8, 3), out=nn.Conv2d(8, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Upsample(size=10), nn.Conv2d(8, 2, 1)),
    ):
        made = swap(model.double(), "p4", images).report
        assert not made.exact and "not centred" in made.approximate[0].note and made.equivariance_error > 1e-3


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


def test_the_error_is_measured_on_images_of_whole_numbers() -> None:
    plain = Steps(lambda net, x: net.between(x.double() / 255, lambda y: y[:, :, ::2, ::2])).double()
    net = swap(plain, "p4", torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8))
    assert not net.report.exact and net.report.equivariance_error > 1e-6


def test_the_parts_of_what_is_kept_are_not_said_to_be_never_called() -> None:
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Conv2d(3, 8, 3), nn.ReLU(), *head(8))
    lines = {line.name: line for line in swap(plain, "p4", torch.rand(1, 3, 9, 9), keep=["0"]).report.lines}
    assert "0" in lines and "0.0" not in lines


def test_the_report_names_a_train_of_the_models_own() -> None:
    class Frozen(Steps):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self.two.eval()
            return self

    net = swap(Frozen(lambda net, x: net.between(x, lambda y: y)), "p4", torch.rand(1, 3, 9, 9))
    assert [line.was for line in net.report.lines if line.name == "train"] == ["Frozen.train"]
