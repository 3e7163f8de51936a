"""Conversion of trained networks of escnn, the library of steerable CNNs, without importing it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isotypic import groups
from isotypic._constants import Constants
from isotypic.groups.planar import PlanarGroup, planar_group
from isotypic.nn._arguments import PADDING_MODES
from isotypic.nn.fields._lattice_fields import from_lattice_fields, permute_bank, to_lattice_fields
from isotypic.nn.fields.conv import GroupConv2d, LiftConv2d
from isotypic.nn.fields.conv_transpose import GroupConvTranspose2d
from isotypic.nn.fields.dropout import FieldDropout
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.norm import GroupBatchNorm
from isotypic.nn.fields.per_channel import PerChannel
from isotypic.nn.fields.restrict import Restrict
from isotypic.nn.fields.spatial_pool import BlurPool2d, GroupAvgPool2d, GroupMaxPool2d
from isotypic.nn.fields.steerable import SteerableConv2d, SteerableLiftConv2d
from isotypic.nn.fields.steerable_transpose import SteerableConvTranspose2d


class Mask(nn.Module):
    """A product with one number for each position."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


class _TrivialConv2d(Constants):
    """A convolution to trivial fields: the mean over the lattice's subgroup H of one to regular fields of it.

    That has weights at the identity alone, |H| times those of the bank, and is free to use the others when it is trained.
    """

    cosets: Tensor

    def __init__(self, dense: nn.Conv2d, group: PlanarGroup, regular: bool) -> None:
        super().__init__()
        self.regular = regular
        self.add_constant("cosets", group.cosets, dense.weight.device)
        lattice = groups.get(group.lattice)
        fields = dense.in_channels // (lattice.order if regular else 1)
        settings: Any = {name: getattr(dense, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
        settings |= {"bias": dense.bias is not None, "device": dense.weight.device, "dtype": dense.weight.dtype}
        kind: Any = GroupConv2d if regular else LiftConv2d
        self.conv = kind(fields, dense.out_channels, dense.kernel_size, group=lattice, **settings)
        self.pool = GroupPool("mean", group=lattice)
        with torch.no_grad():
            if regular:
                entries = dense.weight.unflatten(1, (-1, group.order))[:, :, self.cosets[:, 0]].flatten(1, 2)
                self.conv.weight.zero_()[:, :, 0] = lattice.order * entries
            else:
                self.conv.weight.copy_(dense.weight)
            if dense.bias is not None:
                self.conv.bias.copy_(dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(to_lattice_fields(x, self.cosets) if self.regular else x))

    def dense(self, planar: PlanarGroup) -> Tensor:
        """The bank (O, C |G|, k, k) or (O, C, k, k) of the whole."""
        conv = self.conv.to_conv().weight.unflatten(0, (-1, self.conv.order)).mean(1)
        if not self.regular:
            return conv
        places = self.cosets.flatten().argsort()
        return conv.unflatten(1, (-1, planar.order))[:, :, places].flatten(1, 2)


class _LatticeConv2d(Constants):
    """A convolution of fields of C_N or D_N of which nothing but its filter bank is known, as a convolution of the lattice's subgroup.

    Under that subgroup it is equivariant whatever its weight; under the other rotations it is as far as the bank it was made of.
    """

    cosets: Tensor
    places: Tensor

    def __init__(self, dense: nn.Conv2d, group: PlanarGroup, regular: bool) -> None:
        super().__init__()
        self.regular = regular
        self.add_constant("cosets", group.cosets, dense.weight.device)
        self.add_constant("places", group.cosets.argsort(axis=None), dense.weight.device)
        split = copy.deepcopy(dense)
        split.weight = nn.Parameter(permute_bank(dense.weight.detach(), self.cosets.flatten(), regular))
        self.conv = (GroupConv2d if regular else LiftConv2d).from_conv(split, group.lattice)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(to_lattice_fields(x, self.cosets) if self.regular else x)
        return from_lattice_fields(y, self.places, self.cosets.shape[0])

    def to_conv(self) -> nn.Conv2d:
        conv = self.conv.to_conv()
        assert isinstance(conv, nn.Conv2d)
        conv.weight = nn.Parameter(permute_bank(conv.weight.detach(), self.places, self.regular))
        return conv


def from_escnn(module: Any) -> nn.Module:
    """The same function as a trained escnn module, as layers of `isotypic` that go on training.

    | escnn | isotypic |
    |---|---|
    | `SequentialModule` | `nn.Sequential` with the same names |
    | `R2Conv`, N = 4 (or 1, 2) | `LiftConv2d` (trivial fields to regular ones), `GroupConv2d` (regular to regular) |
    | `R2Conv`, other N | `SteerableLiftConv2d`, `SteerableConv2d` |
    | `InnerBatchNorm` | `GroupBatchNorm`; `nn.BatchNorm2d` on trivial fields |
    | `R2Conv` to trivial fields | the mean over the group of a `LiftConv2d` or a `GroupConv2d` |
    | `R2ConvTransposed` | `GroupConvTranspose2d`, `SteerableConvTranspose2d` |
    | `ReLU`, `ELU`, `LeakyReLU`, `IdentityModule` | `nn.ReLU`, `nn.ELU`, `nn.LeakyReLU`, `nn.Identity` |
    | `PointwiseDropout`, `FieldDropout` | `nn.Dropout`; `FieldDropout`, `nn.Dropout2d` on trivial fields |
    | `GroupPooling` | `GroupPool("max")` |
    | `PointwiseMaxPool`, `PointwiseAvgPool` | `GroupMaxPool2d`, `GroupAvgPool2d` |
    | `PointwiseAdaptiveAvgPool`, `PointwiseAdaptiveMaxPool` | `PerChannel` of torch's |
    | `PointwiseAvgPoolAntialiased` | `BlurPool2d` with its Gaussian and its padding |
    | `PointwiseMaxPoolAntialiased` | `GroupMaxPool2d` with stride 1, and `BlurPool2d` |
    | `R2Upsampling` | `PerChannel(nn.Upsample)` |
    | `RestrictionModule`, `DisentangleModule` | `Restrict`, `nn.Identity` |
    | `MaskModule` | a product with its mask |

    The group is that of `rot2dOnR2(N)` or `flipRot2dOnR2(N)`. Element flip * N + rotation of escnn is element
    `flip * N + rotation` of `PlanarGroup` (of p4 and p4m for N = 4), so that the channels (B, C |G|, H, W) of a regular field type are our
    (B, C, |G|, H, W) by a view, `x.unflatten(1, (-1, order))`; trivial field types stay (B, C, H, W). Plain tensors take the place of
    geometric tensors.

    In training, layers of N = 1, 2 and 4 have the full space of convolutions of the lattice's group, of which escnn spans a part. Those of
    other N have the space they had in escnn, when this is its default; with `rings`, `sigma`, `frequencies_cutoff` or a dilation of their
    own they become convolutions of the lattice's group, which compute the same but are held to the symmetries of the lattice alone when
    trained. So do those whose output is trivial.

    Args:
        module: an escnn module, in train or eval mode, on any device; it is not changed, and no tensor is shared.

    Raises TypeError, naming the module, for what is not in the table: other field types, groups (also by another axis of reflection) or
    modules, and subclasses of these.

    G. Cesa, L. Lang and M. Weiler, "A Program to Build E(N)-Equivariant Steerable CNNs", 2022.

    >>> from_escnn(nn.ReLU())
    Traceback (most recent call last):
    ...
    TypeError: from_escnn: module must be one of escnn, got torch.nn.modules.activation.ReLU
    """
    kind = type(module)
    if kind.__module__.partition(".")[0] != "escnn":
        raise TypeError(f"from_escnn: module must be one of escnn, got {kind.__module__}.{kind.__qualname__}")
    convert = _CONVERTERS.get(kind.__name__)
    if convert is None:
        raise TypeError(f"from_escnn: no conversion of {kind.__name__}; there are those of {', '.join(_CONVERTERS)}")
    return convert(module).train(module.training)


def _unsupported(module: Any, reason: str) -> TypeError:
    return TypeError(f"from_escnn: cannot convert {type(module).__name__}: {reason}; the module is {module}")


def _group(module: Any, field_type: Any) -> PlanarGroup:
    """The group of a field type."""
    space = field_type.gspace
    # By what the space says: one reflection and one turn by half have the same abstract group. Continuous groups have -1 rotations.
    if space.dimensionality != 2 or space.rotations_order < 1:
        raise _unsupported(module, f"its group must be that of rot2dOnR2(N) or flipRot2dOnR2(N), got {space}")
    mirrored = space.fibergroup.order() > space.rotations_order
    return planar_group(f"{'D' if mirrored else 'C'}{space.rotations_order}")


def _is_regular_type(field_type: Any) -> bool:
    return all(representation == field_type.gspace.regular_repr for representation in field_type.representations)


def _is_regular(module: Any, field_type: Any) -> bool:
    """True for regular fields, False for trivial ones; anything else is refused."""
    if _is_regular_type(field_type):
        return True
    if all(representation == field_type.gspace.trivial_repr for representation in field_type.representations):
        return False
    raise _unsupported(module, f"its fields must be all regular or all trivial, got {field_type}")


def _orbits(field_type: Any) -> NDArray[np.int64] | None:
    """Of fields that were restricted to a subgroup H: the entries of each, (|G| / |H|, |H|), in the order in which H moves the first one.

    None for other fields. That of regular fields is (1, |G|).
    """
    found = None
    for representation in field_type.representations:
        matrices = np.stack([np.asarray(representation(element)) for element in field_type.gspace.fibergroup.elements])
        moved = matrices.argmax(axis=1)
        permutations = np.abs(matrices - np.eye(matrices.shape[-1])[:, moved].transpose(1, 0, 2)).max() < 1e-6
        entries = moved.T[moved.min(axis=0) == np.arange(matrices.shape[-1])]
        if not permutations or sorted(entries.flatten()) != list(range(matrices.shape[-1])):
            return None
        if found is not None and not np.array_equal(found, entries):
            return None
        found = entries
    return found


def _is_field(module: Any, field_type: Any) -> bool:
    """Whether fields have an axis of elements: regular ones and restricted ones; what is neither these nor trivial is refused."""
    representations = field_type.representations
    known = (field_type.gspace.regular_repr, field_type.gspace.trivial_repr)
    if all(representation in known for representation in representations) or _orbits(field_type) is None:
        return _is_regular(module, field_type)
    return True


def _sequential(module: Any) -> nn.Module:
    return nn.Sequential(OrderedDict((name, from_escnn(child)) for name, child in module.named_children()))


def _convolution(module: Any) -> nn.Module:
    group = _group(module, module.in_type)
    regular = _is_field(module, module.in_type)
    if module.padding_mode not in PADDING_MODES:
        raise _unsupported(module, f"padding_mode {module.padding_mode!r}")
    with torch.no_grad():
        weight, bias = module.expand_parameters()
        if regular and not _is_regular_type(module.in_type):
            entries = _orbits(module.in_type)
            assert entries is not None
            weight = weight.unflatten(1, (-1, entries.size))[:, :, torch.from_numpy(entries.flatten())].flatten(1, 2)
    dense = nn.Conv2d(
        module.in_type.size,
        module.out_type.size,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=bias is not None,
        padding_mode=module.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    if not _is_regular(module, module.out_type):
        trivial = _TrivialConv2d(dense, group, regular)
        if not _equal(trivial.dense(group), dense.weight):
            raise _unsupported(module, f"its filters are not equivariant under the elements of {group} in their order")
        return trivial
    if group.index > 1:
        steerable = (SteerableConv2d if regular else SteerableLiftConv2d).from_conv(dense, group)
        if _same(steerable.to_conv(), dense):
            return steerable
    layer = _LatticeConv2d(dense, group, regular)
    if not _same(layer.to_conv(), dense):
        raise _unsupported(
            module, f"its filters are not equivariant under the elements of {group} in their order (default axis of reflection)"
        )
    return layer if group.index > 1 else layer.conv


def _transposed(module: Any) -> nn.Module:
    group = _group(module, module.in_type)
    if not (_is_regular(module, module.in_type) and _is_regular(module, module.out_type)):
        raise _unsupported(module, "its fields must be regular")
    with torch.no_grad():
        weight, bias = module.expand_parameters()
    settings = (module.kernel_size, module.stride, module.padding, module.output_padding, module.groups, bias is not None, module.dilation)
    dense = nn.ConvTranspose2d(module.in_type.size, module.out_type.size, *settings, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        dense.weight.copy_(weight)
        if bias is not None and dense.bias is not None:
            dense.bias.copy_(bias)
    steerable = group.index > 1
    layer = SteerableConvTranspose2d.from_conv(dense, group) if steerable else GroupConvTranspose2d.from_conv(dense, group=group.lattice)
    if not _same(layer.to_conv(), dense):
        reason = "or with a basis of its own" if steerable else "(default axis of reflection)"
        raise _unsupported(module, f"its filters are not equivariant under the elements of {group} in their order {reason}")
    return layer


def _same(found: nn.Module, dense: nn.Module) -> bool:
    """Equal filters, up to the float32 samples of escnn's basis."""
    return _equal(found.get_parameter("weight"), dense.get_parameter("weight"))


def _equal(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).detach().abs().max() <= 1e-5 * expected.detach().abs().max())


def _batch_norm(module: Any) -> nn.Module:
    regular = _is_regular(module, module.in_type)
    order = module.in_type.gspace.fibergroup.order() if regular else 1
    source = getattr(module, f"batch_norm_[{order}]")
    layer = (GroupBatchNorm if regular else nn.BatchNorm2d)(
        source.num_features, source.eps, source.momentum, source.affine, source.track_running_stats
    )
    layer.load_state_dict(source.state_dict())
    for tensor in source.state_dict().values():
        if tensor.is_floating_point():
            layer.to(tensor.device, tensor.dtype)
    return layer


def _relu(module: Any) -> nn.Module:
    return nn.ReLU(inplace=module._inplace)


def _group_pool(module: Any) -> nn.Module:
    return GroupPool("max") if _is_regular(module, module.in_type) else nn.Identity()


def _blur_pool(module: Any) -> nn.Module:
    group = _group(module, module.in_type)
    size = module.kernel_size[0]
    layer = BlurPool2d(group, size, tuple(module.stride)).to(module.filter.device)
    # The convolution of the antialiased maximum pads by half its kernel; what the module calls its padding is that of the maximum.
    layer.padding = tuple(getattr(module, "_pad", module.padding))
    layer.add_constant("kernel", module.filter[0, 0].double().numpy(force=True), module.filter.device)
    return layer


def _antialiased_maximum(module: Any) -> nn.Module:
    if module.ceil_mode or set(module.dilation) != {1}:
        raise _unsupported(module, "its ceil_mode must be False and its dilation 1")
    maximum = GroupMaxPool2d(tuple(module.kernel_size), 1, tuple(module.padding), group=_group(module, module.in_type))
    return nn.Sequential(maximum, _blur_pool(module))


def _upsampling(module: Any) -> nn.Module:
    layer = nn.Upsample(module._size, module._scale_factor, module._mode, module._align_corners)
    return PerChannel(layer, _group(module, module.in_type)) if _is_field(module, module.in_type) else layer


def _restriction(module: Any) -> nn.Module:
    if not _is_regular(module, module.in_type):
        return nn.Identity()
    group, part = _group(module, module.in_type), _group(module, module.out_type)
    try:
        layer = Restrict(group, part)
    except ValueError as error:
        raise _unsupported(module, str(error)) from error
    found = _orbits(module.out_type)
    if found is None or found.flatten().tolist() != layer.entries.tolist():
        raise _unsupported(module, f"its subgroup must be {part} with the default axis of reflection")
    return layer


def _disentangle(module: Any) -> nn.Module:
    """The entries of restricted fields stand in the order of the orbits already, so that only one that changes nothing is known."""
    unit = torch.eye(module.in_type.size)[:, :, None, None]
    if not torch.allclose(module(module.in_type(unit)).tensor, unit, atol=1e-6):
        raise _unsupported(module, "it changes the basis of its fields")
    return nn.Identity()


def _window(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def convert(module: Any) -> nn.Module:
        if module.ceil_mode or set(getattr(module, "dilation", (1,))) != {1}:
            raise _unsupported(module, "its ceil_mode must be False and its dilation 1")
        return kind(tuple(module.kernel_size), tuple(module.stride), tuple(module.padding), group=_group(module, module.in_type))

    return convert


def _adaptive(kind: type[nn.Module]) -> Callable[[Any], nn.Module]:
    def convert(module: Any) -> nn.Module:
        pool = kind(module.output_size)
        return PerChannel(pool, _group(module, module.in_type)) if _is_field(module, module.in_type) else pool

    return convert


def _field_dropout(module: Any) -> nn.Module:
    return (FieldDropout if _is_regular(module, module.in_type) else nn.Dropout2d)(module.p, module.inplace)


_CONVERTERS: dict[str, Callable[[Any], nn.Module]] = {
    "SequentialModule": _sequential,
    "R2Conv": _convolution,
    "InnerBatchNorm": _batch_norm,
    "ReLU": _relu,
    "R2ConvTransposed": _transposed,
    "LeakyReLU": lambda module: nn.LeakyReLU(module._negative_slope, module._inplace),
    "IdentityModule": lambda module: nn.Identity(),
    "RestrictionModule": _restriction,
    "DisentangleModule": _disentangle,
    "R2Upsampling": _upsampling,
    **dict.fromkeys(("PointwiseMaxPoolAntialiased2D", "PointwiseMaxPoolAntialiased"), _antialiased_maximum),
    "ELU": lambda module: nn.ELU(module.alpha, module._inplace),
    "PointwiseDropout": lambda module: nn.Dropout(module.p, module.inplace),
    "FieldDropout": _field_dropout,
    "MaskModule": lambda module: Mask(module.mask.detach().clone()),
    **dict.fromkeys(("PointwiseMaxPool2D", "PointwiseMaxPool"), _window(GroupMaxPool2d)),
    **dict.fromkeys(("PointwiseAvgPool2D", "PointwiseAvgPool"), _window(GroupAvgPool2d)),
    **dict.fromkeys(("PointwiseAdaptiveAvgPool2D", "PointwiseAdaptiveAvgPool"), _adaptive(nn.AdaptiveAvgPool2d)),
    **dict.fromkeys(("PointwiseAdaptiveMaxPool2D", "PointwiseAdaptiveMaxPool"), _adaptive(nn.AdaptiveMaxPool2d)),
    "GroupPooling": _group_pool,
    "PointwiseAvgPoolAntialiased2D": _blur_pool,
    "PointwiseAvgPoolAntialiased": _blur_pool,
}
