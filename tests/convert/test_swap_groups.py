"""`swap` for groups beyond those of the square lattice: hexagonal ones, C_N and D_N, the line, anisotropic ones of space."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import NETWORKS, DropPath
from convert.plain_networks import head, invariance
from torch import Tensor, nn

import isotypic as iso
from isotypic.nn import swap


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


@pytest.mark.parametrize("name", ["ResNet-18", "U-Net", "MobileNetV2"])
@pytest.mark.parametrize("group", ["C8", "D12"])
def test_steerable_networks(name: str, group: str) -> None:
    """Exact under the quarter turns (and reflections); more nearly so under the others than a network that knows of no such turn."""
    torch.manual_seed(0)
    make, shapes = NETWORKS[name]
    data = tuple(torch.rand(shape, dtype=torch.float64) for shape in shapes)
    net = swap(make().double().eval(), group, data, pointwise=[DropPath])
    assert net.report.equivariance_error < 1e-10 and not net.report.exact
    (line,) = net.report.approximate
    assert (line.name, line.was) == ("group", group) and "on the example" in line.note
    iso.testing.assert_equivariant(net, group, data[0], in_field="scalar", out_field="scalar", rtol=1e-10)
    assert {type(module).__name__ for module in net.modules() if hasattr(module, "coefficients")} >= {"SteerableLiftConv2d"}
    if name == "U-Net":
        assert any(type(module).__name__ == "SteerableConvTranspose2d" for module in net.modules())
    torch.testing.assert_close(iso.export.to_torch(net)(*data), net(*data))


def test_turns_between_positions_are_nearer_than_without() -> None:
    """A smooth image turned by 45 degrees: the error of a network of C8 is a fraction of that of the plain network."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(1, 16, 7), nn.ELU(), nn.Conv2d(16, 16, 7), nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8)
    )
    line = torch.linspace(-1, 1, 33)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    bumps = [torch.exp(-20 * ((rows - a) ** 2 + (columns - b) ** 2)) for a, b in [(0.3, 0.1), (-0.2, 0.35), (-0.1, -0.4)]]
    images = (bumps[0] - 0.7 * bumps[1] + 0.4 * bumps[2])[None, None]
    turned = iso.testing.act("C8", 1, images, "scalar")

    def error(net: nn.Module) -> float:
        with torch.no_grad():
            base = net(torch.zeros_like(images))
            return float((net(turned) - net(images)).norm() / (net(images) - base).norm())

    assert error(swap(plain, "C8")) < 0.1 < error(plain)


def test_what_planar_groups_do_not_take_is_named() -> None:
    conv = nn.Conv2d(1, 4, 3)
    with pytest.raises(ValueError, match=r"^swap: init='pretrained' cannot turn trained filters between positions, as C8 asks; take p4"):
        swap(nn.Sequential(conv), "C8", init="pretrained")
    with pytest.raises(TypeError, match=r"^swap: 0 \(Conv2d\): stride must be equal on both axes for C8, got \(1, 2\)"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3, stride=(1, 2))), "C8")
    with pytest.raises(TypeError, match=r"^swap: 1 \(PixelShuffle\): its places are not exchanged by C8"):
        swap(nn.Sequential(nn.Conv2d(1, 16, 3), nn.PixelShuffle(2)), "C8", head="fields")


MIRROR = iso.groups.generate([[[-1]]])


class Signals(nn.Module):
    """Layers on a line, as in networks for sound and sensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.pool = nn.Conv1d(2, 8, 7, padding=3), nn.BatchNorm1d(8), nn.MaxPool1d(2)
        self.depthwise, self.point, self.instance = nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.Conv1d(8, 8, 1), nn.InstanceNorm1d(8)
        self.wider, self.finer = nn.ConvTranspose1d(8, 8, 2, stride=2), nn.Upsample(scale_factor=2)
        self.pad, self.mean = nn.ReflectionPad1d(2), nn.AvgPool1d(3, 3)
        self.everywhere, self.head = nn.AdaptiveAvgPool1d(1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.norm(self.stem(x))))
        x = F.max_pool1d(x + self.point(F.gelu(self.depthwise(x))), 3, 1, 1)
        return self.head(self.everywhere(self.mean(self.pad(self.instance(self.finer(self.wider(x)))))).flatten(1))


@pytest.mark.parametrize("init", [None, "pretrained"])
def test_networks_on_a_line(init: str | None) -> None:
    torch.manual_seed(0)
    plain, signals = Signals().double(), torch.rand(3, 2, 34, dtype=torch.float64)
    for _ in range(2):
        plain.train()(signals)
    net = swap(plain.eval(), MIRROR, signals, init=init)
    assert net.report.exact and net.report.equivariance_error < 1e-12
    torch.testing.assert_close(net(signals.flip(-1)), net(signals))
    assert (net(signals) - net(torch.rand_like(signals))).abs().max() > 1e-3
    torch.testing.assert_close(iso.export.to_torch(net)(signals), net(signals))
    if init == "pretrained":  # statistics of instances are shared over the group, and those of the two are the same
        torch.testing.assert_close(net(signals), (plain(signals) + plain(signals.flip(-1))) / 2)


def test_a_layer_on_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^swap: group must act on 1 spatial axes, but p4 acts on 2"):
        swap(Signals(), "p4")
    with pytest.raises(TypeError, match=r"^swap: 1 \(MaxPool1d\): p4 acts on 2 axes"):
        swap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool1d(2)), "p4")


@pytest.mark.parametrize("group", ["C4", "D4", "D4h"])
def test_anisotropic_groups_of_space_keep_anisotropic_kernels(group: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv3d(1, 8, (1, 3, 3), padding=(0, 1, 1)),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)),
        nn.SiLU(),
        nn.AvgPool3d((3, 2, 2), (2, 2, 2), (1, 0, 0)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).double()
    volumes = torch.rand(2, 1, 5, 8, 8, dtype=torch.float64)
    net = swap(plain, group, volumes)
    assert net[0].kernel_size == (1, 3, 3) and net.report.exact and net.report.equivariance_error < 1e-12
    assert invariance(net.eval(), group, volumes) < 1e-12
    with pytest.raises(TypeError, match=r"^swap: 3 \(MaxPool3d\): GroupMaxPool3d: kernel_size must be equal on the axes that O exchanges"):
        swap(plain, "O", volumes)
