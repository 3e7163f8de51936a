"""Steerable convolutions against their definition, written with polar coordinates and loops, and against rotations that the pixels lack."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import groups
from isotypic.nn import GroupConv2d, GroupPool, LiftConv2d, PlanarGroup, SteerableConv2d, SteerableConvTranspose2d, SteerableLiftConv2d

DOUBLE = torch.float64
KINDS = (SteerableLiftConv2d, SteerableConv2d)


def make(kind: Any, *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    layer = kind(*args, **kwargs, dtype=DOUBLE)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def matrix(name: str, element: int) -> np.ndarray:
    """Element flip * N + k on (row, column): the turn by k 2 pi / N after the exchange column -> -column."""
    count = int(name[1:])
    angle = 2 * math.pi * (element % count) / count
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag([1.0, -1.0 if element >= count else 1.0])


# (radius, width, highest frequency) of each ring.
RINGS = {
    1: [(0, 0.005, 0)],
    2: [(0.5, 0.4, 1)],
    3: [(0, 0.005, 0), (1, 0.4, 2)],
    4: [(0.5, 0.6, 1), (1.5, 0.4, 2)],
    5: [(0, 0.005, 0), (1, 0.6, 2), (2, 0.4, 2)],
    7: [(0, 0.005, 0), (1, 0.6, 2), (2, 0.6, 3), (3, 0.4, 2)],
}


def basis(kernel_size: int, row: float, column: float) -> list[float]:
    """The functions at one point, before they are scaled."""
    radius, angle = math.hypot(row, column), math.atan2(column, row)
    values = []
    for ring, width, limit in RINGS[kernel_size]:
        profile = math.exp(-((radius - ring) ** 2) / (2 * width**2))
        values.append(profile)
        for frequency in range(1, limit + 1):
            inside = profile if radius > 1e-6 else 0.0
            values += [inside * math.cos(frequency * angle), inside * math.sin(frequency * angle)]
    return values


def functions_at_turned_taps(name: str, kernel_size: int) -> np.ndarray:
    """b_n(r^-1 t) at [r, n, row, column], with norm 1 over the taps in the mean over r."""
    group = PlanarGroup(name)
    half = (kernel_size - 1) / 2
    values = np.array(
        [
            [[basis(kernel_size, *(matrix(name, r).T @ [i - half, j - half])) for j in range(kernel_size)] for i in range(kernel_size)]
            for r in range(group.order)
        ]
    )
    values = values.transpose(0, 3, 1, 2)
    return values / np.sqrt((values**2).sum(axis=(2, 3)).mean(axis=0))[:, None, None]


def dense_bank(layer: Any) -> Tensor:
    """bank[(o, r), (c, s)](t) = sum_n coefficients[o, c, r^-1 s, n] b_n(r^-1 t), by its definition."""
    group = PlanarGroup(layer.group)
    values = functions_at_turned_taps(layer.group, layer.kernel_size)
    coefficients = layer.coefficients.detach().numpy()
    rows = []
    for r in range(group.order):
        if coefficients.ndim == 3:
            rows.append(np.einsum("ocn,nij->ocij", coefficients, values[r])[:, :, None])
        else:
            sources = [int(group.multiply[group.inverse[r], s]) for s in range(group.order)]
            rows.append(np.einsum("ocsn,nij->ocsij", coefficients[:, :, sources], values[r]))
    bank = np.stack(rows, axis=1)  # (O, r, C, s, k, k)
    return torch.from_numpy(bank.reshape(bank.shape[0] * bank.shape[1], -1, *bank.shape[-2:]))


def act(name: str, element: int, field: Tensor) -> Tensor:
    """(L_g f)[c, s](x) = f[c, g^-1 s](g^-1 x) for an element that maps the lattice to itself."""
    group, inverse = PlanarGroup(name), int(PlanarGroup(name).inverse[element])
    if field.dim() == 5:
        field = field[:, :, group.multiply[inverse].tolist()]
    back = np.round(matrix(name, element)).astype(int).T
    size = field.shape[-1]
    places = 2 * np.stack(np.meshgrid(range(size), range(size), indexing="ij")) - (size - 1)
    row, column = (np.einsum("ij,jhw->ihw", back, places) + (size - 1)) // 2
    return field[..., row, column]


@pytest.mark.parametrize("name", ["C4", "C8", "C12", "D4", "D8", "D16", "C1", "D1", "C2", "D2", "C3", "C6", "D6", "C10"])
def test_tables_of_the_groups(name: str) -> None:
    group = PlanarGroup(name)
    expected = np.stack([matrix(name, element) for element in range(group.order)])
    assert group.order == int(name[1:]) * (2 if name[0] == "D" else 1)
    np.testing.assert_allclose(group.elements, expected, atol=1e-15)
    np.testing.assert_allclose(np.einsum("aij,bjk->abik", expected, expected), expected[group.multiply], atol=1e-14)
    assert (group.multiply[np.arange(group.order), group.inverse] == 0).all()
    # The lattice's subgroup in the order of its own, and its cosets.
    lattice = groups.get(group.lattice)
    np.testing.assert_allclose(expected[group.cosets[0]], lattice.elements, atol=1e-15)
    assert sorted(group.cosets.flatten()) == list(range(group.order))
    assert PlanarGroup("C1024").order == 1024
    with pytest.raises(ValueError, match="PlanarGroup: name must be that of a group of at most 1024 rotations, got 'C100000'"):
        PlanarGroup("C100000")
    assert pickle.loads(pickle.dumps(group)) == group and hash(copy.deepcopy(group)) == hash(group) and group != PlanarGroup("C20")


def test_four_turns_are_the_lattice_groups() -> None:
    for planar, lattice in (("C4", "p4"), ("D4", "p4m")):
        assert (PlanarGroup(planar).multiply == groups.get(lattice).multiply).all()


@pytest.mark.parametrize("name", ["E8", "C0", "C", "p4", "C08", "C8x", 8, None])
def test_unknown_groups(name: Any) -> None:
    with pytest.raises(ValueError, match=r'PlanarGroup: name must be "C" or "D" and a number of rotations .* got'):
        PlanarGroup(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, kernel_size, fields, arguments",
    [
        ("C8", 5, (2, 3), dict(padding="same")),
        ("C8", 4, (2, 4), dict(groups=2, padding=1)),
        ("D8", 3, (2, 2), dict(padding=1, stride=2)),
        ("C12", 3, (3, 3), dict(groups=3, bias=False)),
        ("C16", 7, (1, 1), dict(padding=3, padding_mode="circular")),
        ("D16", 2, (2, 1), dict(dilation=2, padding="valid")),
        ("C4", 5, (2, 2), dict(padding=2, padding_mode="reflect")),
        ("D4", 1, (2, 2), dict()),
        ("C6", 3, (2, 2), dict(padding=1)),
        ("D6", 4, (1, 2), dict()),
        ("C3", 5, (2, 1), dict()),
        ("D2", 3, (2, 2), dict()),
    ],
)
@pytest.mark.filterwarnings("ignore::isotypic.EquivarianceWarning")
def test_definition(kind: Any, name: str, kernel_size: int, fields: tuple[int, int], arguments: dict[str, Any]) -> None:
    layer = make(kind, *fields, kernel_size, group=name, **arguments)
    x = torch.randn(2, fields[0], *(() if kind is SteerableLiftConv2d else (layer.order,)), 9, 9, dtype=DOUBLE)
    y, conv = layer(x), layer.to_conv()
    bank = dense_bank(layer)
    assert (conv.weight - bank).abs().max().item() <= 1e-13 * bank.abs().max().item()
    conv.weight = nn.Parameter(bank)
    expected = conv(x.flatten(1, -3))
    assert y.shape[:3] == (2, fields[1], layer.order)
    assert (y.flatten(1, 2) - expected).abs().max().item() <= 1e-12 * expected.abs().max().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["C8", "D8", "C12"])
@pytest.mark.parametrize("kernel_size, size, padding", [(5, 7, 2), (3, 8, 1), (4, 6, 0)])
def test_the_lattice_symmetries_are_exact(kind: Any, name: str, kernel_size: int, size: int, padding: int) -> None:
    layer = make(kind, 2, 2, kernel_size, group=name, padding=padding)
    x = torch.randn(1, 2, *(() if kind is SteerableLiftConv2d else (layer.order,)), size, size, dtype=DOUBLE)
    y = layer(x)
    for element in PlanarGroup(name).cosets[0]:
        found = layer(act(name, int(element), x))
        assert (found - act(name, int(element), y)).abs().max().item() <= 1e-12 * y.abs().max().item()


@pytest.mark.parametrize("name", ["C4", "C8", "D8", "C16"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5, 7])
def test_every_coefficient_counts(name: str, kernel_size: int) -> None:
    """The banks of the coefficients are independent and well conditioned, and as many as the band limits allow."""
    lift = make(SteerableLiftConv2d, 1, 1, kernel_size, group=name, bias=False)
    functions = lift.coefficients.numel()
    assert functions == sum(1 + 2 * limit for _, _, limit in RINGS[kernel_size])
    banks = []
    for index in range(functions):
        with torch.no_grad():
            lift.coefficients.zero_().view(-1)[index] = 1
        banks.append(lift.to_conv().weight.detach().flatten())
    assert torch.linalg.cond(torch.stack(banks)).item() < 3
    # In the regular layer each element of the group has these functions to itself.
    assert make(SteerableConv2d, 1, 1, kernel_size, group=name).coefficients.numel() == functions * PlanarGroup(name).order


def image(seed: int, angle: float, size: int) -> Tensor:
    """Three channels of plane waves no shorter than 8 pixels, turned about the centre: not interpolated, but evaluated there."""
    generator = torch.Generator().manual_seed(seed)
    direction, phase, length = torch.rand(3, 6, 1, 1, generator=generator, dtype=DOUBLE)
    frequency = 2 * math.pi / 8 * length.sqrt()
    line = torch.arange(size, dtype=DOUBLE) - (size - 1) / 2
    row, column = torch.meshgrid(line, line, indexing="ij")
    row, column = math.cos(angle) * row + math.sin(angle) * column, math.cos(angle) * column - math.sin(angle) * row
    along = torch.cos(2 * math.pi * direction) * row + torch.sin(2 * math.pi * direction) * column
    waves = torch.cos(frequency * along + 2 * math.pi * phase)
    return torch.einsum("cw,whv->chv", torch.randn(3, 6, generator=generator, dtype=DOUBLE), waves)[None]


@pytest.mark.parametrize("name", ["C8", "C12", "D8", "C16"])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_rotations_between_the_pixels(name: str, kernel_size: int) -> None:
    """Two layers at the centre of smooth images that turn by 45 degrees (C_12: by 30): the field moves along the group.

    Nothing is interpolated, so the error is that of sampling band-limited filters and images alone: measured,
    2.7 to 4.0 % with 3 taps and 1.6 to 2.2 % with 5 and 7. A p4 or p4m network of the same width, pooled over its group so that nothing but
    invariance is asked of it, is off by 20 to 24 % with 3 taps and by 35 to 53 % with 5 and 7; pooled steerable fields by 1.1 to 3.5 %.
    """
    group = PlanarGroup(name)
    first = make(SteerableLiftConv2d, 3, 8, kernel_size, group=name)
    second = make(SteerableConv2d, 8, 8, kernel_size, group=name)
    steerable = nn.Sequential(first, nn.ReLU(), second)
    plain = nn.Sequential(
        LiftConv2d(3, 8 * group.index, kernel_size, group=group.lattice, dtype=DOUBLE),
        nn.ReLU(),
        GroupConv2d(8 * group.index, 8 * group.index, kernel_size, group=group.lattice, dtype=DOUBLE),
    )
    size = 2 * kernel_size - 1  # the output is one position, the centre
    turn = group.rotations // 8
    moved = group.multiply[group.inverse[turn]].tolist()
    field, pooled, pooled_plain = [], [], []
    with torch.no_grad():
        for seed in range(6):
            still, turned = (image(seed, angle, size) for angle in (0.0, 2 * math.pi * turn / group.rotations))
            y, z = steerable(still), steerable(turned)
            field.append(((z - y[:, :, moved]).norm() / y.norm()).item())
            pool = GroupPool("max")
            pooled.append(((pool(z) - pool(y)).norm() / pool(y).norm()).item())
            y, z = plain(still), plain(turned)
            pooled_plain.append(((pool(z) - pool(y)).norm() / pool(y).norm()).item())
    small, ratio = (0.05, 5) if kernel_size == 3 else (0.03, 15)
    assert np.mean(field) < small
    assert np.mean(pooled) < small
    assert np.mean(pooled_plain) > ratio * np.mean(pooled)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["C8", "D8"])
def test_initialisation_preserves_the_variance(kind: Any, name: str) -> None:
    """After a ReLU the second moment is 1 for standard normal input: the variance of the output is 2 of that of the input."""
    layer = make(kind, 16, 64, 5, group=name, bias=False)
    x = torch.randn(2, 16, *(() if kind is SteerableLiftConv2d else (layer.order,)), 12, 12, dtype=DOUBLE)
    # 64 output fields share 16 * 11 (lift) or 16 * |G| * 11 coefficients each; the relative deviation of the mean square stays below 15 %.
    assert layer(x).square().mean().item() == pytest.approx(2, rel=0.15)
    assert not kind(1, 1, 3, group=name).bias.detach().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["C8", "D8", "C4"])
def test_from_conv_is_the_orthogonal_projection(kind: Any, name: str) -> None:
    layer = make(kind, 2, 4, 5, group=name, groups=2, padding=2, padding_mode="circular")
    again = kind.from_conv(layer.to_conv().eval(), name)
    assert not again.training and again.blocks.padding_mode == "circular"
    assert (again.coefficients - layer.coefficients).abs().max().item() <= 1e-12 * layer.coefficients.abs().max().item()
    assert (again.bias - layer.bias).abs().max().item() <= 1e-14
    conv = copy.deepcopy(layer.to_conv())
    nn.init.normal_(conv.weight)
    rest = conv.weight - kind.from_conv(conv, PlanarGroup(name)).to_conv().weight
    bank = layer.to_conv().weight
    assert abs((rest * bank).sum().item()) <= 1e-12 * (rest.norm() * bank.norm()).item()
    assert rest.norm().item() > 0.1 * conv.weight.norm().item()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Any) -> None:
    layer = make(kind, 1, 1, 3, group="C8", bias=False)
    x = torch.randn(1, 1, *(() if kind is SteerableLiftConv2d else (8,)), 4, 4, dtype=DOUBLE, requires_grad=True)

    def run(x: Tensor, coefficients: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"coefficients": coefficients}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.coefficients))
    assert torch.autograd.gradgradcheck(run, (x, layer.coefficients))


def test_weight_is_kept_until_the_coefficients_change() -> None:
    layer = make(SteerableConv2d, 2, 2, 3, group="C8")
    x = torch.randn(1, 2, 8, 5, 5, dtype=DOUBLE)
    with torch.no_grad():
        assert layer.lattice_weight() is not layer.lattice_weight()
        before = layer.eval()(x)
        assert layer.lattice_weight() is layer.lattice_weight()
        layer.coefficients.mul_(2)
        layer.bias.mul_(2)
        assert torch.allclose(layer(x), 2 * before)
        layer.load_state_dict({key: value / 2 if value.is_floating_point() else value for key, value in layer.state_dict().items()})
        assert torch.allclose(layer(x), before)
        layer.coefficients.data.mul_(2)  # leaves no trace but the values
        layer.bias.mul_(2)
        assert torch.allclose(layer(x), 2 * before)
        layer.float()
        assert layer.lattice_weight().dtype == torch.float32
    # Where a gradient is asked for, nothing is kept.
    layer(x.float()).sum().backward()
    assert layer.coefficients.grad.abs().sum() > 0
    # A weight from inference mode serves training of what comes before.
    layer.requires_grad_(False)
    with torch.inference_mode():
        layer(x.float())
    leaf = x.float().requires_grad_()
    layer(leaf).sum().backward()
    assert leaf.grad is not None
    assert "_evaluated" not in layer.state_dict() and pickle.loads(pickle.dumps(layer))._evaluated is None


def test_a_change_of_dtype_rounds_the_basis_once() -> None:
    torch.manual_seed(0)
    layer = SteerableConv2d(1, 1, 5, group="C8").to(torch.bfloat16).to(DOUBLE)
    assert torch.equal(layer.samples, make(SteerableConv2d, 1, 1, 5, group="C8").samples)


@pytest.mark.parametrize(
    "kind, args, kwargs, message",
    [
        (SteerableConv2d, (0, 1, 3), {}, "SteerableConv2d: in_fields must be a positive integer, got 0"),
        (SteerableLiftConv2d, (1, 0, 3), {}, "SteerableLiftConv2d: out_fields must be a positive integer, got 0"),
        (SteerableConv2d, (1, 1, (3, 3)), {}, r"SteerableConv2d: kernel_size must be a positive integer, got \(3, 3\)"),
        (SteerableConv2d, (1, 1, 3), dict(stride=(1, 2)), "SteerableConv2d: stride must be a positive integer"),
        (SteerableConv2d, (2, 3, 3), dict(groups=2), "SteerableConv2d: out_fields=3 must be divisible by groups=2"),
        (SteerableConv2d, (1, 1, 3), dict(group="p4m"), "PlanarGroup: name must be"),
        (SteerableConv2d, (1, 1, 3), dict(padding_mode="mirror"), "padding_mode must be one of zeros, circular, reflect, replicate"),
        (SteerableConv2d, (1, 1, 3), dict(padding="full"), 'padding must be "same", "valid"'),
    ],
)
def test_bad_arguments(kind: Any, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*args, **kwargs)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"SteerableConv2d: input must have shape \(B, C=2, \|G\|=8, H, W\), got \(1, 2, 4, 5, 5\)"):
        SteerableConv2d(2, 2, 3)(torch.zeros(1, 2, 4, 5, 5))
    with pytest.raises(ValueError, match=r"SteerableLiftConv2d: input must have shape \(B, C=2, H, W\), got \(1, 3, 5, 5\)"):
        SteerableLiftConv2d(2, 2, 3)(torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r"from_conv: conv.out_channels=12 must be a multiple of \|G\| \* groups = 8 \* 1"):
        SteerableLiftConv2d.from_conv(nn.Conv2d(1, 12, 3), "C8")
    with pytest.raises(ValueError, match=r"from_conv: conv.kernel_size must be the same on both axes, got \(3, 5\)"):
        SteerableLiftConv2d.from_conv(nn.Conv2d(1, 8, (3, 5)), "C8")
    with pytest.raises(TypeError, match=r"from_conv: conv must be an nn\.Conv2d, got Conv1d"):
        SteerableLiftConv2d.from_conv(nn.Conv1d(1, 8, 3), "C8")  # type: ignore[arg-type]


def test_sizes_that_break_equivariance() -> None:
    layer = SteerableConv2d(1, 1, 3, stride=2, strict=True)
    assert layer(torch.zeros(1, 1, 8, 7, 7)).shape == (1, 1, 8, 3, 3)
    with pytest.raises(ValueError, match="equivarian"):
        layer(torch.zeros(1, 1, 8, 8, 8))


def test_a_turn_of_the_filters_is_a_turn_of_the_image() -> None:
    """Filters read between the taps: the lift with a filter turned by 45 degrees is entry 1 of the lift with the filter itself."""
    layer = make(SteerableLiftConv2d, 1, 1, 5, group="C8", bias=False)
    x = torch.randn(1, 1, 5, 5, dtype=DOUBLE)
    values = torch.from_numpy(functions_at_turned_taps("C8", 5))
    turned = torch.einsum("n,nij->ij", layer.coefficients[0, 0], values[1])
    assert layer(x)[0, 0, 1].item() == pytest.approx(F.conv2d(x, turned[None, None]).item(), rel=1e-12)


@pytest.mark.parametrize("name", ["C4", "C8", "D8", "C12", "C6", "D2"])
@pytest.mark.parametrize(
    "kernel_size, settings", [(3, dict()), (4, dict(stride=2, padding=1)), (5, dict(groups=2, stride=2, padding=2, dilation=2))]
)
def test_the_transposed_convolution_is_the_adjoint(name: str, kernel_size: int, settings: dict[str, Any]) -> None:
    layer = make(SteerableConvTranspose2d, 4, 2, kernel_size, name, **settings)
    direct = make(SteerableConv2d, 2, 4, kernel_size, name, bias=False, **settings)
    with torch.no_grad():
        direct.coefficients.copy_(layer.coefficients)
    y = torch.randn(1, 4, layer.order, 5, 5, dtype=DOUBLE)
    z = layer(y) - layer.bias[:, None, None, None]
    x = torch.randn_like(z)
    torch.testing.assert_close((z * x).sum(), (y * direct(x)).sum())
    plain = layer.to_conv()
    torch.testing.assert_close(plain(y.flatten(1, 2)).unflatten(1, (2, -1)), layer(y))
    again = SteerableConvTranspose2d.from_conv(plain, name)
    torch.testing.assert_close(again.coefficients, layer.coefficients)
    torch.testing.assert_close(again.bias, layer.bias)


def test_the_transposed_convolution_refuses() -> None:
    with pytest.raises(ValueError, match=r"^SteerableConvTranspose2d: in_fields=3 must be divisible by groups=2"):
        SteerableConvTranspose2d(3, 2, 3, groups=2)
    with pytest.raises(ValueError, match=r"^SteerableConvTranspose2d: input must have shape \(B, C=3, \|G\|=8, H, W\)"):
        SteerableConvTranspose2d(3, 2, 3)(torch.zeros(1, 3, 4, 5, 5))
    with pytest.raises(TypeError, match=r"^SteerableConvTranspose2d.from_conv: conv must be an nn.ConvTranspose2d, got Conv2d"):
        SteerableConvTranspose2d.from_conv(nn.Conv2d(8, 8, 3), "C8")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"^SteerableConvTranspose2d.from_conv: conv.in_channels=4 must be a multiple of \|G\| \* groups = 8 \* 1"
    ):
        SteerableConvTranspose2d.from_conv(nn.ConvTranspose2d(4, 8, 3), "C8")
