"""Conversion of escnn networks: against escnn itself where it is installed, and against stand-ins built to its documented layout elsewhere.

escnn wants numpy < 2, a Fortran compiler and `pip install escnn --no-deps` with lie_learn, py3nj, pymanopt, autograd, joblib, requests and
scipy beside it; its tests are skipped by name without it.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isotypic.export import to_torch
from isotypic.nn import (
    BlurPool2d,
    GroupBatchNorm,
    GroupConv2d,
    GroupPool,
    LiftConv2d,
    PlanarGroup,
    SteerableConv2d,
    SteerableLiftConv2d,
    from_escnn,
)


@pytest.fixture(scope="module")
def escnn() -> Any:
    pytest.importorskip("escnn", reason="escnn is not installed (it needs numpy < 2 and a Fortran compiler)", exc_type=ImportError)
    import escnn.gspaces
    import escnn.nn

    return SimpleNamespace(nn=escnn.nn, gspaces=escnn.gspaces)


def space(escnn: Any, name: str) -> Any:
    count = int(name[1:])
    if name == "D1":
        return escnn.gspaces.flip2dOnR2()
    return escnn.gspaces.rot2dOnR2(count) if name[0] == "C" else escnn.gspaces.flipRot2dOnR2(count)


def fields(escnn: Any, gspace: Any, kinds: Sequence[str]) -> Any:
    return escnn.nn.FieldType(gspace, [getattr(gspace, f"{kind}_repr") for kind in kinds])


def assert_same_function(module: Any, converted: nn.Module, size: int = 9) -> None:
    """Equal up to float32 rounding, of which a fit to escnn's float32 samples has a little more."""
    torch.manual_seed(1)
    field_type = module.in_type
    x = torch.randn(2, field_type.size, size, size)
    expected = module(field_type(x)).tensor
    regular = field_type.representations[0] != field_type.gspace.trivial_repr
    found = converted(x.unflatten(1, (len(field_type), -1)) if regular else x)
    if found.dim() == 5:
        found = found.flatten(1, 2)
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


def randomised(module: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


@pytest.mark.parametrize("name", ["C4", "D4", "C8", "D8", "C16", "D16", "C1", "D1", "C2", "D2", "C6", "D6", "C10"])
@pytest.mark.parametrize("lift", [True, False])
@pytest.mark.parametrize(
    "kernel_size, arguments",
    [
        (3, dict(padding=1)),
        (5, dict(padding=2, padding_mode="circular", bias=False)),
        (7, dict(stride=2, padding=3)),
        (5, dict(groups=2)),
    ],
)
def test_convolutions(escnn: Any, name: str, lift: bool, kernel_size: int, arguments: dict[str, Any]) -> None:
    gspace = space(escnn, name)
    inside = fields(escnn, gspace, ["trivial" if lift else "regular"] * 2)
    module = randomised(escnn.nn.R2Conv(inside, fields(escnn, gspace, ["regular"] * 4), kernel_size, **arguments))
    names = (LiftConv2d, GroupConv2d) if PlanarGroup(name).index == 1 else (SteerableLiftConv2d, SteerableConv2d)
    for training in (True, False):
        converted = from_escnn(module.train(training))
        assert type(converted) is names[not lift] and converted.training is module.training is training
        assert_same_function(module, converted)


@pytest.mark.parametrize("name", ["C4", "C8", "D8"])
@pytest.mark.parametrize("lift", [True, False])
@pytest.mark.parametrize("arguments", [dict(sigma=[0.1, 0.9, 0.9]), dict(frequencies_cutoff=3.0, padding=1), dict(dilation=2)])
def test_convolutions_with_a_basis_of_their_own(escnn: Any, name: str, lift: bool, arguments: dict[str, Any]) -> None:
    gspace = space(escnn, name)
    inside = fields(escnn, gspace, ["trivial" if lift else "regular"] * 2)
    module = randomised(escnn.nn.R2Conv(inside, fields(escnn, gspace, ["regular"] * 2), 5, **arguments))
    converted = from_escnn(module)
    assert_same_function(module, converted, size=11)
    assert_same_function(module, pickle.loads(pickle.dumps(converted)), size=11)


@pytest.mark.parametrize("name", ["C4", "D4", "C8", "D8"])
def test_networks(escnn: Any, name: str) -> None:
    gspace = space(escnn, name)
    scalars, first, second = (fields(escnn, gspace, kinds) for kinds in (["trivial"] * 2, ["regular"] * 3, ["regular"] * 2))
    scalar_end = fields(escnn, gspace, ["trivial"] * 2)
    module = escnn.nn.SequentialModule(
        escnn.nn.R2Conv(scalars, first, 5, padding=2, bias=False),
        escnn.nn.InnerBatchNorm(first),
        escnn.nn.ReLU(first, inplace=True),
        escnn.nn.PointwiseAvgPoolAntialiased(first, sigma=0.66, stride=2),
        escnn.nn.SequentialModule(escnn.nn.R2Conv(first, second, 3), escnn.nn.InnerBatchNorm(second, affine=False), escnn.nn.ReLU(second)),
        escnn.nn.GroupPooling(second),
        escnn.nn.InnerBatchNorm(scalar_end),
        escnn.nn.GroupPooling(scalar_end),
    )
    randomised(module)
    for _ in range(2):
        module(scalars(torch.randn(2, 2, 13, 13)))  # moves the running statistics
    for training in (False, True):
        module.train(training)
        kept = copy.deepcopy({key: value.clone() for key, value in module.state_dict().items()})
        converted = from_escnn(module)
        assert [type(layer) for layer in converted] == [  # type: ignore[union-attr]
            LiftConv2d if name[1:] == "4" else SteerableLiftConv2d,
            GroupBatchNorm, nn.ReLU, BlurPool2d, nn.Sequential, GroupPool, nn.BatchNorm2d, nn.Identity,
        ]  # fmt: skip
        assert_same_function(module, converted, size=13)
        converted(torch.randn(1, 2, 13, 13)).sum().backward()
        assert all(parameter.grad is not None for parameter in converted.parameters())
        if not training:
            assert all(torch.equal(value, kept[key]) for key, value in module.state_dict().items())


def test_refusals(escnn: Any) -> None:
    c8 = space(escnn, "C8")
    regular = fields(escnn, c8, ["regular"])
    irrep = escnn.nn.FieldType(c8, [c8.irrep(1)])
    conv = escnn.nn.R2Conv
    cases = [
        (conv(irrep, regular, 5), "cannot convert R2Conv: its fields must be all regular or all trivial"),
        (conv(fields(escnn, c8, ["regular", "trivial"]), regular, 5), "cannot convert R2Conv: its fields must be all"),
        (escnn.nn.PointwiseMaxPool2D(regular, 3, ceil_mode=True), "its ceil_mode must be False and its dilation 1"),
        (escnn.nn.NormNonLinearity(irrep), "no conversion of NormNonLinearity; there are those of SequentialModule, R2Conv"),
        (escnn.nn.SequentialModule(escnn.nn.NormNonLinearity(irrep)), "no conversion of NormNonLinearity"),
    ]
    for module, message in cases:
        with pytest.raises(TypeError, match=message):
            from_escnn(module)
    # Another axis of reflection is another element order.
    tilted = escnn.gspaces.flipRot2dOnR2(8, axis=0.3)
    with pytest.raises(TypeError, match="default axis of reflection"):
        from_escnn(conv(fields(escnn, tilted, ["regular"]), fields(escnn, tilted, ["regular"]), 5))


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D4", "C6", "C8", "D8", "C10"])
def test_the_networks_of_the_tutorials(escnn: Any, name: str) -> None:
    """Mask, ELU, dropout, pools without padding, and convolutions to trivial fields."""
    gspace = space(escnn, name)
    scalars, regular = fields(escnn, gspace, ["trivial"] * 2), fields(escnn, gspace, ["regular"] * 2)
    module = escnn.nn.SequentialModule(
        escnn.nn.MaskModule(scalars, 13, margin=1),
        escnn.nn.R2Conv(scalars, regular, 5, padding=2),
        escnn.nn.InnerBatchNorm(regular),
        escnn.nn.ELU(regular),
        escnn.nn.PointwiseAvgPoolAntialiased(regular, sigma=0.66, stride=2, padding=0),
        escnn.nn.PointwiseMaxPool2D(regular, 3, 2, 1),
        escnn.nn.FieldDropout(regular, 0.3),
        escnn.nn.R2Conv(regular, scalars, 3, padding=1),
    )
    converted = from_escnn(randomised(module).eval())
    assert_same_function(module, converted, size=13)
    assert_same_function(module, to_torch(converted), size=13)


@pytest.mark.parametrize("whole, subgroup", [("C8", 4), ("C6", 3), ("D8", (None, 4)), ("D4", (0, 2)), ("D6", (0, 1))])
def test_restriction(escnn: Any, whole: str, subgroup: Any) -> None:
    gspace = space(escnn, whole)
    scalars, regular = fields(escnn, gspace, ["trivial"]), fields(escnn, gspace, ["regular"] * 2)
    restrict = escnn.nn.RestrictionModule(regular, subgroup)
    apart = escnn.nn.DisentangleModule(restrict.out_type)
    part = fields(escnn, apart.out_type.gspace, ["regular"] * 3)
    module = escnn.nn.SequentialModule(
        escnn.nn.R2Conv(scalars, regular, 5, padding=2),
        restrict,
        apart,
        escnn.nn.ELU(apart.out_type),
        escnn.nn.R2Conv(apart.out_type, part, 3, padding=1),
        escnn.nn.GroupPooling(part),
    )
    assert_same_function(module, from_escnn(randomised(module).eval()))
    with pytest.raises(TypeError, match="cannot convert InnerBatchNorm: its fields must be all regular or all trivial"):
        from_escnn(escnn.nn.InnerBatchNorm(apart.out_type))


def test_a_subgroup_about_another_axis_is_refused(escnn: Any) -> None:
    regular = fields(escnn, space(escnn, "D4"), ["regular"])
    with pytest.raises(TypeError, match=r"cannot convert RestrictionModule: its subgroup must be .*default axis of reflection"):
        from_escnn(escnn.nn.RestrictionModule(regular, (1, 2)))


@pytest.mark.parametrize(
    "kind", ["LeakyReLU", "IdentityModule", "R2Upsampling", "PointwiseMaxPoolAntialiased2D", "PointwiseAdaptiveAvgPool2D"]
)
def test_layers_on_positions(escnn: Any, kind: str) -> None:
    arguments = {"R2Upsampling": (2,), "PointwiseMaxPoolAntialiased2D": (3, 2, 1), "PointwiseAdaptiveAvgPool2D": (1,)}.get(kind, ())
    module = getattr(escnn.nn, kind)(fields(escnn, space(escnn, "D8"), ["regular"] * 2), *arguments)
    assert_same_function(module, from_escnn(module))


# Stand-ins: what `from_escnn` reads of an escnn module, with filters in escnn's element order, flip * N + rotation, made by turning arrays.


def stand_in(kind: str, **attributes: Any) -> Any:
    module = type(kind, (nn.Module,), {"__module__": "escnn.nn.modules.stand_in"})()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


class CyclicGroup:
    def __init__(self, order: int) -> None:
        self.order = lambda: order


class DihedralGroup(CyclicGroup):
    pass


def stand_in_fields(name: str, kinds: Sequence[str]) -> Any:
    count = int(name[1:])
    group = CyclicGroup(count) if name[0] == "C" else DihedralGroup(2 * count)
    gspace = SimpleNamespace(fibergroup=group, dimensionality=2, rotations_order=count, regular_repr="regular", trivial_repr="trivial")
    size = sum(group.order() if kind == "regular" else 1 for kind in kinds)
    return SimpleNamespace(gspace=gspace, representations=list(kinds), size=size)


def stand_in_convolution(weight: Tensor, bias: Tensor, in_type: Any, out_type: Any, **arguments: Any) -> Any:
    defaults = dict(stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros")
    module = stand_in("R2Conv", in_type=in_type, out_type=out_type, kernel_size=weight.shape[-1], **{**defaults, **arguments})
    module.expand_parameters = lambda: (weight, bias)
    return module


def turned(array: np.ndarray, element: int) -> np.ndarray:
    """The filter moved by element flip * 4 + k of D_4: column -> -column first, then k counter-clockwise quarter turns."""
    return np.rot90(array[..., ::-1] if element >= 4 else array, element % 4, axes=(-2, -1))


def relative(order: int, r: int, s: int) -> int:
    """r^-1 s, found by what the elements do to an array without symmetry."""
    probe = np.arange(9).reshape(3, 3)
    target = turned(probe, s)
    return next(u for u in range(order) if (turned(turned(probe, u), r) == target).all())


@pytest.mark.parametrize("name, order", [("C4", 4), ("D4", 8)])
@pytest.mark.parametrize("lift", [True, False])
def test_stand_in_convolutions(name: str, order: int, lift: bool) -> None:
    """bank[o, r, c, s] = psi[o, c, r^-1 s] moved by r."""
    psi = np.random.default_rng(0).standard_normal((2, 3, 1 if lift else order, 5, 5)).astype(np.float32)
    bank = np.stack(
        [np.stack([turned(psi[:, :, 0 if lift else relative(order, r, s)], r) for s in range(psi.shape[2])], axis=2) for r in range(order)],
        axis=1,
    )
    weight = torch.from_numpy(bank.reshape(2 * order, 3 * psi.shape[2], 5, 5).copy())
    bias = torch.tensor([1.0, -2.0]).repeat_interleave(order)
    kinds = ["trivial" if lift else "regular"] * 3
    module = stand_in_convolution(weight, bias, stand_in_fields(name, kinds), stand_in_fields(name, ["regular"] * 2), padding=2)
    layer = from_escnn(module.eval())
    assert type(layer) is (LiftConv2d if lift else GroupConv2d) and not layer.training
    x = torch.randn(2, weight.shape[1], 7, 7)
    expected = torch.nn.functional.conv2d(x, weight, bias, padding=2)
    found = layer(x if lift else x.unflatten(1, (3, order))).flatten(1, 2)
    assert (found - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()
    broken = weight.clone()
    broken[0, 0, 0, 0] += 1
    with pytest.raises(TypeError, match="cannot convert R2Conv: its filters are not equivariant"):
        from_escnn(stand_in_convolution(broken, bias, module.in_type, module.out_type))


@pytest.mark.parametrize("lift", [True, False])
def test_stand_in_without_a_band_limit(lift: bool) -> None:
    """Filters of C_8 that know the quarter turns only, made by the average over them: turns of the taps, steps of 2 along the elements."""
    torch.manual_seed(0)
    random = torch.randn(2, 8, 3, 1 if lift else 8, 5, 5)
    mean = sum(random.rot90(k, (-2, -1)).roll((2 * k, 2 * k), (1, 3)) for k in range(4)) / 4
    assert isinstance(mean, Tensor)
    weight, bias = mean.reshape(16, -1, 5, 5), torch.tensor([1.0, -2.0]).repeat_interleave(8)
    kinds = ["trivial" if lift else "regular"] * 3
    module = stand_in_convolution(weight, bias, stand_in_fields("C8", kinds), stand_in_fields("C8", ["regular"] * 2), stride=2, padding=1)
    layer = from_escnn(module)
    assert not isinstance(layer, (SteerableConv2d, SteerableLiftConv2d))
    x = torch.randn(2, weight.shape[1], 7, 7)
    expected = torch.nn.functional.conv2d(x, weight, bias, stride=2, padding=1)
    found = layer(x if lift else x.unflatten(1, (3, 8))).flatten(1, 2)
    assert (found - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


def test_stand_in_network() -> None:
    torch.manual_seed(0)
    scalars, regular = stand_in_fields("D8", ["trivial"]), stand_in_fields("D8", ["regular"] * 2)
    plain = SteerableLiftConv2d(1, 2, 5, group="D8").to_conv()
    norm = nn.BatchNorm3d(2)
    norm.running_mean, norm.running_var = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5])
    gaussian = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]).div(16)
    module = stand_in("SequentialModule")
    module.add_module("lift", stand_in_convolution(plain.weight.detach(), plain.bias.detach(), scalars, regular))  # type: ignore[union-attr]
    module.add_module("norm", stand_in("InnerBatchNorm", in_type=regular, **{"batch_norm_[16]": norm}))
    module.add_module("relu", stand_in("ReLU", in_type=regular, _inplace=True))
    module.add_module(
        "blur",
        stand_in(
            "PointwiseAvgPoolAntialiased2D",
            in_type=regular, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), filter=gaussian.expand(32, 1, 3, 3),
        ),
    )  # fmt: skip
    module.add_module("pool", stand_in("GroupPooling", in_type=regular))
    converted = from_escnn(module.eval())
    assert [name for name, _ in converted.named_children()] == ["lift", "norm", "relu", "blur", "pool"]
    x = torch.randn(2, 1, 9, 9)
    y = norm.eval()(plain(x).unflatten(1, (2, 16))).relu().flatten(1, 2)
    y = torch.nn.functional.conv2d(y, gaussian.expand(32, 1, 3, 3), stride=2, padding=1, groups=32)
    expected = y.unflatten(1, (2, 16)).amax(dim=2)
    found = converted(x)
    assert found.shape == (2, 2, 3, 3) and (found - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()


def test_stand_in_of_a_tutorial() -> None:
    """A mask, pools without padding, ELU, dropout, a restriction and a convolution to trivial fields, by plain convolutions."""
    torch.manual_seed(0)
    scalars, regular = stand_in_fields("D4", ["trivial"]), stand_in_fields("D4", ["regular"] * 2)
    part = stand_in_fields("C4", ["trivial"] * 2)
    whole = PlanarGroup("D4")

    def restricted(k: int) -> np.ndarray:
        """Rotation k moves entry s of the fields of D4 to entry k s."""
        return np.eye(8)[whole.multiply[whole.inverse[k]]]

    part.gspace.fibergroup.elements = [0, 1, 2, 3]
    inside = SimpleNamespace(gspace=part.gspace, representations=[restricted] * 2, size=16)
    plain = LiftConv2d(1, 2, 5, group="p4m").to_conv()
    mask = torch.rand(1, 1, 11, 11)
    gaussian = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]).div(16)
    # A bank to trivial fields: entry k t of the coset C4 t has the filter of t turned by k.
    psi = torch.randn(2, 2, 2, 3, 3)  # (out, field, coset)
    bank = torch.zeros(2, 2, 8, 3, 3)
    for coset, first in enumerate((0, 4)):
        for k in range(4):
            bank[:, :, whole.multiply[k, first]] = psi[:, :, coset].rot90(k, (-2, -1))
    bank = bank.flatten(1, 2)
    module = stand_in("SequentialModule")
    steps = {
        "mask": stand_in("MaskModule", mask=mask),
        "lift": stand_in_convolution(plain.weight.detach(), plain.bias.detach(), scalars, regular),  # type: ignore[union-attr]
        "elu": stand_in("ELU", alpha=1.0, _inplace=False),
        "drop": stand_in("FieldDropout", in_type=regular, p=0.5, inplace=False),
        "blur": stand_in(
            "PointwiseAvgPoolAntialiased2D",
            in_type=regular, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), filter=gaussian.expand(16, 1, 3, 3),
        ),
        "restrict": stand_in("RestrictionModule", in_type=regular, out_type=inside),
        "end": stand_in_convolution(bank, torch.tensor([0.5, -0.5]), inside, part, padding=1),
    }  # fmt: skip
    for key, step in steps.items():
        module.add_module(key, step)
    x = torch.randn(2, 1, 11, 11)
    y = torch.nn.functional.elu(plain(x * mask))
    y = torch.nn.functional.conv2d(y, gaussian.expand(16, 1, 3, 3), groups=16)
    expected = torch.nn.functional.conv2d(y, bank, torch.tensor([0.5, -0.5]), padding=1)
    converted = from_escnn(module.eval())
    for network in (converted, to_torch(converted)):
        found = network(x)
        assert found.shape == expected.shape and (found - expected).abs().max().item() <= 1e-5 * expected.abs().max().item()
    bank[0, 0, 0, 0] += 1
    with pytest.raises(TypeError, match="cannot convert R2Conv: its filters are not equivariant"):
        from_escnn(module)
    inside.representations = [lambda k: restricted(-k % 4)] * 2
    with pytest.raises(TypeError, match="cannot convert RestrictionModule: its subgroup must be"):
        from_escnn(steps["restrict"])


def test_refusals_without_escnn() -> None:
    with pytest.raises(TypeError, match=r"from_escnn: module must be one of escnn, got torch.nn.modules.conv.Conv2d"):
        from_escnn(nn.Conv2d(1, 1, 1))
    with pytest.raises(TypeError, match=r"from_escnn: no conversion of NormReLU; there are those of SequentialModule, R2Conv, InnerBatch"):
        from_escnn(stand_in("NormReLU"))
    mixed = stand_in_fields("C8", ["regular", "trivial"])
    with pytest.raises(TypeError, match="cannot convert GroupPooling: its fields must be all regular or all trivial"):
        from_escnn(stand_in("GroupPooling", in_type=mixed))
