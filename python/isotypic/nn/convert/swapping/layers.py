"""The counterparts of layers of plain torch on regular fields."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from isotypic import groups
from isotypic.groups.planar import PlanarGroup
from isotypic.nn.fields.conv import GroupConv2d, GroupConv3d, LiftConv2d, LiftConv3d
from isotypic.nn.fields.conv_transpose import GroupConvTranspose2d, GroupConvTranspose3d
from isotypic.nn.fields.line import GroupAvgPool1d, GroupConv1d, GroupConvTranspose1d, GroupMaxPool1d, LiftConv1d
from isotypic.nn.fields.linear import GroupLinear
from isotypic.nn.fields.norm import FieldGroupNorm, FieldInstanceNorm, FieldLayerNorm, GroupBatchNorm
from isotypic.nn.fields.spatial_pool import GroupAvgPool2d, GroupAvgPool3d, GroupMaxPool2d, GroupMaxPool3d
from isotypic.nn.fields.steerable import SteerableConv2d, SteerableLiftConv2d
from isotypic.nn.fields.steerable_transpose import SteerableConvTranspose2d
from isotypic.ops.fields.equivariance import Grid, _broken

AnyGroup = groups.Group | PlanarGroup


def place(module: nn.Module) -> dict[str, Any]:
    """Device and dtype of a module; those of torch where it has no parameters."""
    return next(({"device": tensor.device, "dtype": tensor.dtype} for tensor in module.parameters()), {})


def follow(old: nn.Module, new: nn.Module) -> nn.Module:
    """The new module in the mode of the old one, with its `requires_grad` and the names of what stays the same."""
    before = dict(old.named_parameters(recurse=False))
    for name, parameter in new.named_parameters():
        if name in before:
            parameter.requires_grad_(before[name].requires_grad)
    return new.train(old.training)


def copy_state(old: nn.Module, new: nn.Module) -> None:
    """Parameters and buffers of equal names and shapes."""
    known = {**dict(old.named_parameters()), **dict(old.named_buffers())}
    with torch.no_grad():
        for name, tensor in [*new.named_parameters(), *new.named_buffers()]:
            if name in known and known[name].shape == tensor.shape:
                tensor.copy_(known[name])


def as_tuple(value: int | Sequence[int], dim: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * dim


def default(module: nn.Module, **defaults: Any) -> None:
    """Raises unless the arguments that no layer on fields has are as they are by default."""
    for name, value in defaults.items():
        found = getattr(module, name)
        if (set(found) != {value}) if isinstance(found, (tuple, list)) else found != value:
            raise TypeError(f"{name} must be {value}, got {found}")


def square(conv: nn.Module, group: groups.Group) -> tuple[nn.Module, str]:
    """A convolution with equal sides on the axes that the group exchanges, and the same function: zeros around the kernel."""
    size: tuple[int, ...] = conv.kernel_size  # type: ignore[assignment]
    mixed = (group.elements != 0).any(axis=0)
    sides = tuple(max(size[j] for j in range(len(size)) if mixed[i, j] or i == j) for i in range(len(size)))
    if sides == tuple(size):
        return conv, ""
    grown = [new - old for new, old in zip(sides, size, strict=True)]
    if any(extent % 2 for extent in grown) or (isinstance(conv.padding, str) and conv.padding != "same"):
        raise TypeError(
            f"its kernel {tuple(size)} cannot be made {sides} about the same centre, as {group.name} asks, which exchanges axes"
        )
    result = copy.copy(conv)
    result._parameters = dict(conv._parameters)
    result.kernel_size = sides  # type: ignore[assignment]
    weight: torch.Tensor = conv.weight  # type: ignore[assignment]
    padded = nn.functional.pad(weight.detach(), [extent // 2 for extent in reversed(grown) for _ in range(2)])
    result.weight = nn.Parameter(padded, requires_grad=weight.requires_grad)
    if not isinstance(conv.padding, str):
        dilation: tuple[int, ...] = conv.dilation  # type: ignore[assignment]
        result.padding = tuple(p + d * extent // 2 for p, d, extent in zip(conv.padding, dilation, grown, strict=True))  # type: ignore
        result._reversed_padding_repeated_twice = [p for p in reversed(result.padding) for _ in range(2)]  # type: ignore
    return result, f"kernel {tuple(size)} made {sides}, because {group.name} exchanges the axes"


LIFTS: Any = (LiftConv1d, LiftConv2d, LiftConv3d)
CONVOLUTIONS: Any = (GroupConv1d, GroupConv2d, GroupConv3d)
TRANSPOSED: Any = (GroupConvTranspose1d, GroupConvTranspose2d, GroupConvTranspose3d)
MAX_POOLS: Any = (GroupMaxPool1d, GroupMaxPool2d, GroupMaxPool3d)
MEAN_POOLS: Any = (GroupAvgPool1d, GroupAvgPool2d, GroupAvgPool3d)


def convolution(conv: Any, group: AnyGroup, lift: bool, width: int, fields: int, blocks: int, pretrained: bool) -> nn.Module:
    """`width` fields (channels when lifting) to `fields` fields, in `blocks` blocks."""
    transposed = isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    sizes = {"kernel_size": conv.kernel_size, "stride": conv.stride, "dilation": conv.dilation}
    if isinstance(group, PlanarGroup):
        kind: Any = SteerableConvTranspose2d if transposed else SteerableLiftConv2d if lift else SteerableConv2d
        for name, values in sizes.items():
            if len(set(values)) > 1:
                raise TypeError(f"{name} must be equal on both axes for {group.name}, got {tuple(values)}")
        sizes = {name: values[0] for name, values in sizes.items()}
    else:
        kind = (TRANSPOSED if transposed else LIFTS if lift else CONVOLUTIONS)[group.dim - 1]
    if pretrained:
        return follow(conv, kind.from_conv(conv, group, field_per_channel=True))
    options: dict[str, Any] = {"output_padding": conv.output_padding} if transposed else {"padding_mode": conv.padding_mode}
    if transposed and conv.padding_mode != "zeros":
        raise TypeError(f"padding_mode must be zeros, got {conv.padding_mode}")
    options |= {"padding": conv.padding, "groups": blocks, "bias": conv.bias is not None, **sizes, **place(conv)}
    return follow(conv, kind(width, fields, group=group, **options))


def linear(layer: nn.Linear, group: AnyGroup, width: int, fields: int, pretrained: bool) -> nn.Module:
    new = GroupLinear(width, fields, group=group, bias=layer.bias is not None, **place(layer))
    if pretrained:  # each element of the group computes the plain layer
        with torch.no_grad():
            # Where positions are averaged that the layer read one by one, the sum of their weights.
            new.weight.zero_()[:, :, 0] = layer.weight.unflatten(1, (width, -1)).sum(-1)
            if new.bias is not None:
                new.bias.copy_(layer.bias)
    return follow(layer, new)


def batch_norm(norm: Any, width: int, pretrained: bool) -> nn.Module:
    new = GroupBatchNorm(width, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, **place(norm))
    if pretrained:
        copy_state(norm, new)
    return follow(norm, new)


def group_norm(norm: nn.GroupNorm, width: int, pretrained: bool) -> tuple[nn.Module, str]:
    blocks = width if norm.num_groups == norm.num_channels else math.gcd(norm.num_groups, width)
    new = FieldGroupNorm(blocks, width, norm.eps, norm.affine, **place(norm))
    if pretrained:
        copy_state(norm, new)
    return follow(norm, new), "" if blocks == norm.num_groups else f"{blocks} blocks of fields for {norm.num_groups} of channels"


def instance_norm(norm: Any, width: int, pretrained: bool) -> nn.Module:
    default(norm, track_running_stats=False)
    new = FieldInstanceNorm(width, norm.eps, norm.affine, **place(norm))
    if pretrained:
        copy_state(norm, new)
    return follow(norm, new)


def layer_norm(norm: Any, width: int, pretrained: bool) -> nn.Module:
    new = FieldLayerNorm(width, norm.eps, norm.elementwise_affine, **place(norm))
    if new.bias is not None and norm.bias is None:
        raise TypeError("bias must be True, got False")
    if pretrained:
        copy_state(norm, new)
    return follow(norm, new)


def max_pool(pool: Any, group: AnyGroup) -> nn.Module:
    default(pool, ceil_mode=False, dilation=1, return_indices=False)
    return MAX_POOLS[group.dim - 1](pool.kernel_size, pool.stride, pool.padding, group=group)


def average_pool(pool: Any, group: AnyGroup) -> nn.Module:
    default(pool, ceil_mode=False, **({} if group.dim == 1 else {"divisor_override": None}))
    if any(as_tuple(pool.padding, group.dim)):
        default(pool, count_include_pad=True)
    return MEAN_POOLS[group.dim - 1](pool.kernel_size, pool.stride, pool.padding, group=group)


def resized(layer: Any, width: int) -> nn.Module:
    """A plain layer for another number of inputs, or of channels, with settings and initialisation of its own."""
    if isinstance(layer, nn.Linear):
        new: nn.Module = nn.Linear(width, layer.out_features, layer.bias is not None, **place(layer))
    elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        default(layer, groups=1)
        settings: tuple[Any, ...] = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, 1, layer.bias is not None)
        kind: Any = type(layer)
        new = kind(width, layer.out_channels, *settings, layer.padding_mode, **place(layer))
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        kind = type(layer)
        new = kind(width, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, **place(layer))
    elif isinstance(layer, nn.LayerNorm):
        new = nn.LayerNorm(width, layer.eps, layer.elementwise_affine, layer.bias is not None, **place(layer))
    else:
        raise TypeError(f"a layer of this type is not known for another number of channels ({width})")
    return follow(layer, new)


def off_centre(layer: Any, group: groups.Group, size: tuple[int, ...]) -> str:
    """Why the outputs of a strided layer are not equivariant for inputs of this size; "" where they are."""
    dim = group.dim
    ones = (1,) * dim
    if isinstance(layer, TRANSPOSED):
        output = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + o + 1
            for n, s, p, d, k, o in zip(
                size, layer.stride, layer.padding, layer.dilation, layer.kernel_size, layer.output_padding, strict=True
            )
        )
        return _broken(Grid(group.key, layer.kernel_size, layer.stride, layer.padding, layer.dilation, (), True), output)
    window = getattr(layer, "window", None)
    if window is not None:
        return _broken(Grid(group.key, window, layer.stride, layer.padding, ones), size)
    end: tuple[int, ...] = ()
    padding = (0,) * dim if layer.padding == "valid" else layer.padding
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding, end = tuple(t // 2 for t in total), tuple(t % 2 for t in total)
    return _broken(Grid(group.key, layer.kernel_size, layer.stride, padding, layer.dilation, end), size)
