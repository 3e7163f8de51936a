"""Networks as plain torch: the same function for every layer of fields, loaded where there is no isotypic, and ONNX."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.architectures import NETWORKS, DropPath
from torch import Tensor, nn

import isotypic as iso
from isotypic._register import substituted
from isotypic.export import to_torch
from isotypic.nn import swap

MIRROR = iso.groups.generate([[[-1]]])
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LiftConv2d": (iso.nn.LiftConv2d(3, 2, 3, "p4m", padding=1, padding_mode="reflect"), (2, 3, 7, 7)),
    "LiftConv1d": (iso.nn.LiftConv1d(3, 2, 5, MIRROR, padding=2), (2, 3, 9)),
    "GroupConv1d": (iso.nn.GroupConv1d(2, 3, 3, MIRROR, stride=2), (2, 2, 2, 9)),
    "GroupConvTranspose1d": (iso.nn.GroupConvTranspose1d(2, 3, 3, MIRROR, stride=2), (2, 2, 2, 5)),
    "GroupMaxPool1d": (iso.nn.GroupMaxPool1d(3, 2, 1, group=MIRROR), (2, 3, 2, 5)),
    "GroupAvgPool1d": (iso.nn.GroupAvgPool1d(2, group=MIRROR), (2, 3, 2, 6)),
    "LiftConv3d": (iso.nn.LiftConv3d(1, 2, 3, "O"), (1, 1, 5, 5, 5)),
    "GroupConv2d": (iso.nn.GroupConv2d(4, 6, 3, "p6", groups=2, padding="same"), (2, 4, 6, 7, 7)),
    "GroupConv3d": (iso.nn.GroupConv3d(1, 2, 3, "T", stride=2), (1, 1, 12, 5, 5, 5)),
    "GroupConvTranspose2d": (iso.nn.GroupConvTranspose2d(2, 3, 3, "p4", stride=2, padding=1), (2, 2, 4, 4, 4)),
    "GroupConvTranspose3d": (iso.nn.GroupConvTranspose3d(1, 2, 2, "T", stride=2), (1, 1, 12, 2, 2, 2)),
    "SteerableLiftConv2d": (iso.nn.SteerableLiftConv2d(2, 2, 5, "C8", padding=2), (1, 2, 7, 7)),
    "SteerableConv2d": (iso.nn.SteerableConv2d(2, 2, 5, "D8"), (1, 2, 16, 7, 7)),
    "SteerableConvTranspose2d": (iso.nn.SteerableConvTranspose2d(2, 2, 4, "D8", stride=2, padding=1), (1, 2, 16, 3, 3)),
    "GroupLinear of D8": (iso.nn.GroupLinear(2, 3, "D8"), (2, 2, 16, 3, 3)),
    "GroupLinear": (iso.nn.GroupLinear(2, 3, "p4m"), (2, 2, 8)),
    "GroupLinear on positions": (iso.nn.GroupLinear(2, 3, "p4"), (2, 2, 4, 3, 5)),
    "GroupBatchNorm": (iso.nn.GroupBatchNorm(3, activation="relu"), (4, 3, 8, 5, 5)),
    "GroupBatchNorm, no statistics": (iso.nn.GroupBatchNorm(3, affine=False, track_running_stats=False), (4, 3, 24, 2, 2, 2)),
    "FieldGroupNorm": (iso.nn.FieldGroupNorm(2, 4), (2, 4, 8, 5, 5)),
    "FieldLayerNorm": (iso.nn.FieldLayerNorm(3), (2, 3, 8, 5, 5)),
    "FieldInstanceNorm": (iso.nn.FieldInstanceNorm(3, affine=True), (2, 3, 4, 5, 5)),
    "FieldDropout": (iso.nn.FieldDropout(0.5), (2, 3, 4, 5, 5)),
    "FieldMask": (iso.nn.FieldMask(5, "p6"), (2, 3, 6, 5, 5)),
    "FieldPixelShuffle": (iso.nn.FieldPixelShuffle(3, "p4m"), (1, 18, 8, 3, 4)),
    "GroupPool": (iso.nn.GroupPool("mean", keepdim=True, group="p4"), (2, 3, 4, 5, 5)),
    "GroupPool to cosets": (iso.nn.GroupPool("max", group="p4m", subgroup="p4"), (2, 3, 8, 5, 5)),
    "Restrict": (iso.nn.Restrict("p4m", "pmm"), (2, 3, 8, 5, 5)),
    "GroupMaxPool2d": (iso.nn.GroupMaxPool2d(3, 2, 1), (2, 3, 4, 5, 5)),
    "GroupMaxPool3d": (iso.nn.GroupMaxPool3d(2, group="T"), (1, 2, 12, 4, 4, 4)),
    "GroupAvgPool2d": (iso.nn.GroupAvgPool2d(2), (2, 3, 4, 6, 6)),
    "GroupAvgPool2d of scalars": (iso.nn.GroupAvgPool2d(2), (2, 3, 6, 6)),
    "GroupAvgPool3d": (iso.nn.GroupAvgPool3d(2, group="T"), (1, 2, 12, 4, 4, 4)),
    "BlurPool2d": (iso.nn.BlurPool2d("p6m"), (1, 2, 12, 5, 5)),
    "BlurPool3d": (iso.nn.BlurPool3d("O", padding_mode="replicate"), (1, 1, 24, 3, 3, 3)),
    "PerChannel": (iso.nn.PerChannel(nn.Upsample(scale_factor=2), "p4"), (2, 3, 4, 5, 5)),
}


def foreign(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if type(part).__module__.partition(".")[0] not in ("torch", "builtins")]


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_fields_has_a_dense_counterpart(name: str) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    x = torch.randn(shape, dtype=torch.float64)
    if "BatchNorm" in name:
        layer(x)  # statistics
    dense = to_torch(layer.eval())
    assert isinstance(dense, torch.fx.GraphModule) or type(dense).__module__.startswith("torch.")
    # A GraphModule has a class of its own, whose code is generated.
    assert not [
        part for part in foreign(dense) if part not in {type(m).__name__ for m in dense.modules() if isinstance(m, torch.fx.GraphModule)}
    ]
    torch.testing.assert_close(dense(x), layer(x))
    if "BatchNorm" in name:
        torch.testing.assert_close(to_torch(layer.train())(x), layer(x))
        for (key, found), (_, expected) in zip(dense.named_buffers(), layer.named_buffers(), strict=False):
            assert key and found.shape == expected.shape


def test_every_layer_of_fields_is_here() -> None:
    fields = {
        name for name in iso.nn.__all__ if "isotypic.nn" in getattr(iso.nn, name).__module__ and isinstance(getattr(iso.nn, name), type)
    }
    kinds = {type(layer).__name__ for layer, _ in LAYERS.values()}
    known = {name for name in fields if name.startswith(("Group", "Field", "Lift", "Blur", "Steerable", "Restrict", "PerChannel"))}
    assert known == kinds


def test_what_has_no_counterpart_is_named() -> None:
    spec = iso.nn.WeightSpec([2, 4, 2])
    with pytest.raises(TypeError, match=r"^to_torch: 1: no counterpart in plain torch is known for DWSLinear"):
        to_torch(nn.Sequential(nn.ReLU(), iso.nn.DWSLinear(spec, 1, 2)))
    with pytest.raises(TypeError, match=r"^to_torch: model must be an nn\.Module, got int"):
        to_torch(3)  # type: ignore[arg-type]


def network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, shapes = NETWORKS[name]
    data = tuple(torch.rand(shape) for shape in shapes)
    return swap(make(), "p4m", data, pointwise=[DropPath]).eval(), data


def flat(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output.values()) if isinstance(output, dict) else list(output)


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(flat(found), flat(expected), strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


LOAD = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("isotypic", "_editable_skbc_isotypic", "convert"):
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Refuse())
import torch
model = torch.load(sys.argv[1] + "/model.pt", weights_only=False)
inputs, expected = torch.load(sys.argv[1] + "/data.pt")
found = model(*inputs)
torch.testing.assert_close(found, expected)
program = torch.export.load(sys.argv[1] + "/program.pt2").module()(*inputs)
torch.testing.assert_close(program, expected)
torch.testing.assert_close(torch.jit.load(sys.argv[1] + "/traced.pt")(*inputs), expected)
assert not any(name.partition(".")[0] == "isotypic" for name in sys.modules)
"""


def test_it_loads_where_there_is_no_isotypic(tmp_path: Path) -> None:
    net, data = network("U-Net")
    plain = to_torch(net)
    expected = plain(*data).detach()
    assert_same(plain(*data), net(*data))
    torch.save(plain, tmp_path / "model.pt")
    torch.save((data, expected), tmp_path / "data.pt")
    torch.export.save(torch.export.export(plain, data), tmp_path / "program.pt2")
    torch.jit.save(torch.jit.trace(plain, data), tmp_path / "traced.pt")
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["MobileNetV3 head", "U-Net", "norms and padding"])
def test_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    net, data = network(name)
    plain, path = to_torch(net), str(tmp_path / "net.onnx")
    torch.onnx.export(plain, data, path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {given.name: x.numpy() for given, x in zip(session.get_inputs(), data, strict=True)})
    assert_same(found, net(*data))


def test_batch_and_image_sizes_stay_dynamic(tmp_path: Path) -> None:
    net, (images,) = network("ResNet-18")
    batch, size = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("size", min=4, max=20)
    for model in (net, to_torch(net)):
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch, 2: 4 * size + 1, 3: 4 * size + 1},)).module()
        other = torch.rand(3, 3, 41, 41)
        assert_same(program(other), net(other))


def test_a_network_that_cannot_be_traced_keeps_its_class() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.pool = iso.nn.LiftConv2d(1, 2, 3, "p4"), iso.nn.GroupPool("max", group="p4")

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.lift(x if x.sum() > 0 else -x))

    net, images = Branching(), torch.randn(2, 1, 7, 7)
    plain = to_torch(net)
    assert type(plain) is Branching and not isinstance(plain.lift, iso.nn.LiftConv2d) and isinstance(net.lift, iso.nn.LiftConv2d)
    torch.testing.assert_close(plain(images), net(images))


def test_frozen_parameters_stay_frozen() -> None:
    net = nn.Sequential(iso.nn.LiftConv2d(1, 2, 3, "p4"), iso.nn.GroupBatchNorm(2), iso.nn.GroupPool("max"))
    net[0].requires_grad_(False)
    net[1].bias.requires_grad_(False)
    wanted = {name: parameter.requires_grad for name, parameter in iso.export.to_torch(net).named_parameters()}
    assert wanted == {"0.conv.weight": False, "0.conv.bias": False, "1.norm.weight": True, "1.norm.bias": False}


SPEC = iso.nn.WeightSpec([2, 4, 3, 2])
WEIGHTS, FORMS, TOKENS = (3, SPEC.numel, 2), (2, 3, 8), ((2, 5, 1, 16), (2, 5, 2))
OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "DWSLinear": (lambda: iso.nn.DWSLinear(SPEC, 2, 4), (WEIGHTS,)),
    "DWSLinear, maxima": (lambda: iso.nn.DWSLinear(SPEC, 2, 4, pool="max"), (WEIGHTS,)),
    "DWSLinear of rank 1": (lambda: iso.nn.DWSLinear(SPEC, 2, 4, rank=1), (WEIGHTS,)),
    "NPLinear": (lambda: iso.nn.NPLinear(SPEC, 2, 4), (WEIGHTS,)),
    "DWSInvariant": (lambda: iso.nn.DWSInvariant(SPEC, 2, 3), (WEIGHTS,)),
    "DWSNet": (lambda: iso.models.DWSNet(SPEC, channels=[4, 4], out_features=2), ((3, SPEC.numel, 1),)),
    "Transvectants": (lambda: iso.nn.Transvectants([2, 4], 4, 3), (FORMS,)),
    "GATr": (lambda: iso.models.GATr(1, 1, 4, 2, 3, 8, num_blocks=1, num_heads=2), TOKENS),
    "fields": (
        lambda: nn.Sequential(iso.nn.LiftConv2d(1, 2, 3, "p4"), iso.nn.GroupConvTranspose2d(2, 3, 3, "p4", stride=2)),
        ((1, 1, 6, 6),),
    ),
    "norms": (lambda: iso.nn.GroupBatchNorm(3, activation="relu"), ((4, 3, 8, 5, 5),)),
}


def other(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, shapes = OTHERS[name]
    model = make().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval(), tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("name", OTHERS)
def test_an_example_exports_layers_of_every_family(name: str) -> None:
    model, data = other(name)
    plain = to_torch(model, data)
    assert isinstance(plain, torch.fx.GraphModule) and "isotypic" not in plain.code
    for found, expected in zip(flat(plain(*data)), flat(model(*data)), strict=True):
        torch.testing.assert_close(found, expected)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
    gradients = []
    for network in (model, plain):
        sum(output.square().sum() for output in flat(network(*data))).backward()
        gradients.append([parameter.grad for _, parameter in sorted(network.named_parameters())])
    for found, expected in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(found, expected)


def test_an_exported_network_of_another_family_loads_where_there_is_no_isotypic(tmp_path: Path) -> None:
    model, data = other("GATr")
    inputs = tuple(x.float() for x in data)
    plain = to_torch(model.float(), inputs)
    expected = tuple(output.detach() for output in plain(*inputs))
    for found, wanted in zip(expected, model(*inputs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.save(plain, tmp_path / "model.pt")
    torch.save((inputs, expected), tmp_path / "data.pt")
    torch.export.save(torch.export.export(plain, inputs), tmp_path / "program.pt2")
    torch.jit.save(torch.jit.trace(plain, inputs), tmp_path / "traced.pt")
    done = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_exported_network_takes_other_batches_and_goes_to_onnx(tmp_path: Path) -> None:
    model, (weights,) = other("DWSNet")
    model, batch = model.float(), torch.export.Dim("batch", min=2, max=64)
    plain, more = to_torch(model, weights.float(), dynamic_shapes=({0: batch},)), torch.randn(7, SPEC.numel, 1)
    assert_same(plain(more), model(more))
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(tmp_path / "net.onnx")
    torch.onnx.export(plain, (weights.float(),), path, dynamo=True, verbose=False, dynamic_shapes=({0: batch},))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert_same(session.run(None, {session.get_inputs()[0].name: more.numpy()}), model(more))


def test_other_threads_keep_their_kernels_while_a_network_is_traced() -> None:
    a, found = torch.randn(2, 3, 3), []
    with substituted({}):
        thread = threading.Thread(target=lambda: found.append(iso.ops.polar(a)[0]))
        thread.start()
        thread.join()
        with pytest.raises(TypeError, match="no counterpart in plain torch is known for the operator polar"):
            iso.ops.polar(a)
    torch.testing.assert_close(found[0], iso.ops.polar(a)[0])


def test_what_an_example_cannot_export_is_named() -> None:
    class Polar(nn.Module):
        def forward(self, a: Tensor) -> Tensor:
            return iso.ops.polar(a)[0]

    with pytest.raises(TypeError, match=r"^to_torch: no counterpart in plain torch is known for the operator polar"):
        to_torch(Polar(), torch.randn(2, 3, 3))
    with pytest.raises(ValueError, match=r"^to_torch: dynamic_shapes are those of an example, got none"):
        to_torch(nn.ReLU(), dynamic_shapes=({0: 1},))
    x = torch.randn(1, 2, 4, 5, 5)  # what was put in the place of operators is gone again
    assert "isotypic" in str(torch.export.export(iso.nn.GroupConv2d(2, 2, 3), (x,)).graph)
