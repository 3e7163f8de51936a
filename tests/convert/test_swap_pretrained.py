"""`swap` with the weights of the plain network: its mean over the group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import NETWORKS, ConvNeXt, DropPath
from convert.plain_networks import Steps
from torch import Tensor, nn

import isotypic as iso
from isotypic.nn import swap

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


@pytest.mark.parametrize("read", [lambda scale: scale, lambda scale: scale.view(1, -1)])
def test_pretrained_numbers_for_each_feature(read: Any) -> None:
    plain = Steps(lambda net, x: net.between(x, lambda y: y) * read(net.scale), scale=nn.Parameter(torch.rand(5))).double()
    images = torch.rand(2, 3, 7, 7, dtype=torch.float64)
    mean = torch.stack([plain(images.rot90(k, (2, 3))) for k in range(4)]).mean(0)
    torch.testing.assert_close(swap(plain, "p4", images, init="pretrained")(images), mean, rtol=1e-10, atol=1e-12)


def test_hexagonal_groups_are_said_to_be_near() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(1, 1, 9, 9)
    notes = [line.note for line in swap(plain, "p6", images, init="pretrained").report.lines if line.name == "weights"]
    assert notes == ["a hexagon of each image and kernel is left: near the plain network's mean over the group, not that mean"]
    assert not [line for line in swap(plain, "p4", images, init="pretrained").report.lines if line.name == "weights"]
