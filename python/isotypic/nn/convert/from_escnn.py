"""Conversion of trained networks of escnn, the library of steerable CNNs, without importing it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isotypic._constants import Constants
from isotypic.groups.planar import PlanarGroup, planar_group
from isotypic.nn._arguments import PADDING_MODES
from isotypic.nn.fields._lattice_fields import from_lattice_fields, permute_bank, to_lattice_fields
from isotypic.nn.fields.conv import GroupConv2d, LiftConv2d
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.norm import GroupBatchNorm
from isotypic.nn.fields.spatial_pool import BlurPool2d
from isotypic.nn.fields.steerable import SteerableConv2d, SteerableLiftConv2d


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
    | `R2Conv`, N = 4 | `LiftConv2d` (trivial fields to regular ones), `GroupConv2d` (regular to regular) |
    | `R2Conv`, N = 8, 12, 16, ... | `SteerableLiftConv2d`, `SteerableConv2d` |
    | `InnerBatchNorm` | `GroupBatchNorm`; `nn.BatchNorm2d` on trivial fields |
    | `ReLU` | `nn.ReLU` |
    | `GroupPooling` | `GroupPool("max")` |
    | `PointwiseAvgPoolAntialiased` | `BlurPool2d` with its Gaussian, where it pads by half its kernel |

    The group is that of `rot2dOnR2(N)` or `flipRot2dOnR2(N)`, N a multiple of 4. Element flip * N + rotation of escnn is element
    `flip * N + rotation` of `PlanarGroup` (of p4 and p4m for N = 4), so that the channels (B, C |G|, H, W) of a regular field type are our
    (B, C, |G|, H, W) by a view, `x.unflatten(1, (-1, order))`; trivial field types stay (B, C, H, W). Plain tensors take the place of
    geometric tensors.

    In training, layers of N = 4 have the full space of p4 and p4m convolutions, of which escnn spans a part. Those of N > 4 have the space
    they had in escnn, when this is its default; with `rings`, `sigma`, `frequencies_cutoff` or a dilation of their own they become p4 or
    p4m convolutions, which compute the same but are held to the symmetries of the lattice alone when trained.

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
    fibergroup = field_type.gspace.fibergroup
    letter = {"CyclicGroup": "C", "DihedralGroup": "D"}.get(type(fibergroup).__name__)
    count = fibergroup.order() // (2 if letter == "D" else 1) if letter else 0
    if field_type.gspace.dimensionality != 2 or not count or count % 4:
        raise _unsupported(
            module, f"its group must be that of rot2dOnR2(N) or flipRot2dOnR2(N), N = 4, 8, 12, 16, ..., got {field_type.gspace}"
        )
    return planar_group(f"{letter}{count}")


def _is_regular(module: Any, field_type: Any) -> bool:
    """True for regular fields, False for trivial ones; anything else is refused."""
    representations = field_type.representations
    if all(representation == field_type.gspace.regular_repr for representation in representations):
        return True
    if all(representation == field_type.gspace.trivial_repr for representation in representations):
        return False
    raise _unsupported(module, f"its fields must be all regular or all trivial, got {field_type}")


def _sequential(module: Any) -> nn.Module:
    return nn.Sequential(OrderedDict((name, from_escnn(child)) for name, child in module.named_children()))


def _convolution(module: Any) -> nn.Module:
    group = _group(module, module.in_type)
    regular = _is_regular(module, module.in_type)
    if not _is_regular(module, module.out_type):
        raise _unsupported(module, "its output must be regular fields")
    if module.padding_mode not in PADDING_MODES:
        raise _unsupported(module, f"padding_mode {module.padding_mode!r}")
    with torch.no_grad():
        weight, bias = module.expand_parameters()
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


def _same(found: nn.Conv2d, dense: nn.Conv2d) -> bool:
    """Equal filters, up to the float32 samples of escnn's basis."""
    return bool((found.weight - dense.weight).abs().max() <= 1e-5 * dense.weight.abs().max())


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
    if tuple(module.padding) != (size // 2, size // 2):
        raise _unsupported(module, f"its padding must be half its kernel, {size // 2}, got {module.padding}")
    layer = BlurPool2d(group, size, tuple(module.stride)).to(module.filter.device)
    layer.add_constant("kernel", module.filter[0, 0].double().numpy(force=True), module.filter.device)
    return layer


_CONVERTERS: dict[str, Callable[[Any], nn.Module]] = {
    "SequentialModule": _sequential,
    "R2Conv": _convolution,
    "InnerBatchNorm": _batch_norm,
    "ReLU": _relu,
    "GroupPooling": _group_pool,
    "PointwiseAvgPoolAntialiased2D": _blur_pool,
    "PointwiseAvgPoolAntialiased": _blur_pool,
}
