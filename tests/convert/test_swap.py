"""A plain network swapped for an equivariant one: what is kept, and what the options do."""

from __future__ import annotations

import copy
import io
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from convert.architectures import VGG, BasicBlock, ResNet, UNet
from convert.plain_networks import Call, MyConv, MySwish, Steps, chain, head, invariance
from torch import Tensor, nn

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


def test_images_that_are_added_inside_of_a_network_leave_fields_as_they_are() -> None:
    """As V-Net adds its repeated input to its first layer: pooled there, nothing behind it would know of directions."""
    plain = Call(
        lambda m, x: m.out(m.inside(m.stem(x) + torch.cat([x] * 8, 1))),
        stem=nn.Conv2d(1, 8, 3, padding=1), inside=nn.Conv2d(8, 8, 3, padding=1), out=nn.Conv2d(8, 2, 1),
    ).double()  # fmt: skip
    images = torch.rand(2, 1, 7, 7, dtype=torch.float64)
    net: Any = swap(plain, "p4", images)
    assert isinstance(net.inside, iso.nn.GroupConv2d) and net.report.exact and net.report.equivariance_error < 1e-12
    turned = net.stem(images.rot90(1, (2, 3)))
    torch.testing.assert_close(turned, iso.testing.act("p4", 1, net.stem(images), "regular"))


@pytest.mark.parametrize("functional", [True, False])
def test_sub_pixel_convolution_at_the_end(functional: bool) -> None:
    last = nn.Identity() if functional else nn.PixelShuffle(2)
    plain = Steps(lambda net, x: F.pixel_shuffle(net.up(x), 2) if functional else net.up(x))
    plain.up = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), last)
    images = torch.rand(1, 3, 7, 7, dtype=torch.float64)
    net = swap(plain.double(), "p4m", images)
    assert net(images).shape == (1, 3, 14, 14) and net.report.exact and net.report.equivariance_error < 1e-12


@pytest.mark.parametrize(
    "window",
    [lambda x: (x.size(-2), x.size(-1)), lambda x: x.shape[2:], lambda x: x.size()[-2:], lambda x: (x.shape[2], x.shape[3])],
)
@pytest.mark.parametrize("init", [None, "pretrained"])
def test_generalised_mean_pooling_over_a_window_of_the_size_of_the_image(window: Any, init: str | None) -> None:
    class GeM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.p, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Parameter(torch.full((1,), 3.0)), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).clamp(min=1e-6).pow(self.p)
            return self.fc(F.avg_pool2d(x, window(x)).pow(1.0 / self.p).flatten(1))

    torch.manual_seed(0)
    plain, images = GeM().double(), torch.rand(2, 3, 9, 9, dtype=torch.float64)
    net = swap(plain, "p4m", images, init=init)
    assert net.report.exact and invariance(net, "p4m", images) < 1e-10
    assert net(torch.rand(1, 3, 13, 13, dtype=torch.float64)).shape == (1, 2)
    with pytest.raises(TypeError, match="avg_pool2d"):
        swap(Call(lambda m, x: F.avg_pool2d(m.conv(x), (x.size(-2), x.size(-1))), conv=nn.Conv2d(3, 8, 3)), "p4")


@pytest.mark.parametrize("dim", [2, 3, -1])
def test_a_softmax_over_positions_is_refused(dim: int) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.conv(x), dim)

    with pytest.raises(TypeError, match="dim must be 1, the channels"):
        swap(Positions(), "p4", torch.rand(1, 1, 7, 7))
