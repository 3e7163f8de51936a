"""From a plain CNN to an equivariant one of the same size, layer by layer."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from isotypic import groups
from isotypic.nn._arguments import resolve_group
from isotypic.nn.fields.conv import GroupConv2d, LiftConv2d
from isotypic.nn.fields.dropout import FieldDropout
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.norm import GroupBatchNorm
from isotypic.nn.fields.spatial_pool import GroupAvgPool2d, GroupMaxPool2d

HEAD = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Dropout, nn.Identity),
)


class _Swapper:
    """Visits modules in the order in which they are registered.

    The number of fields of a layer follows from its own number of channels, whatever was registered before it. Order says only which
    convolution is sure to read the images, the first one, and where the head begins.
    """

    def __init__(self, model: nn.Module, group: groups.Group) -> None:
        self.group = group
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        self.image_channels = convolutions[0].in_channels if convolutions else 0
        self.given = {conv.out_channels for conv in convolutions}  # numbers of channels that some convolution gives
        self.convolving = {module for module in model.modules() if any(isinstance(part, nn.Conv2d) for part in module.modules())}
        children = Counter(child for module in model.modules() for child in module._modules.values())
        self.shared = {module for module, uses in children.items() if uses > 1}
        self.swapped: dict[nn.Module, nn.Module] = {}
        self.channels = 0  # that the last convolution of the plain network gives; 0 before the first one
        self.pooled = False  # whether the group has been pooled over
        self.done = False  # whether a linear layer has read the pooled fields, so that nothing is left to be swapped
        self.rules: list[tuple[type | tuple[type, ...], Callable[[Any, bool], nn.Module]]] = [
            (nn.Conv2d, self.convolution),
            (nn.BatchNorm2d, self.batch_norm),
            (nn.MaxPool2d, self.max_pool),
            (nn.AvgPool2d, self.average_pool),
            (nn.Dropout2d, lambda module, behind: FieldDropout(module.p, module.inplace)),
            (HEAD, self.head),
            (nn.Linear, self.linear),
            (nn.PReLU, self.prelu),
            (POINTWISE, lambda module, behind: module),
        ]

    def visit(self, module: nn.Module, name: str, behind: bool = False) -> nn.Module:
        """The counterpart of a module; `behind`: it is certain to be called on what a convolution gave, not on images."""
        if module in self.swapped:
            return self.swapped[module]  # a module in two places stays one
        result = self.counterpart(module, name, behind)
        if not isinstance(module, HEAD):  # the group is pooled over before the first of two uses alone
            self.swapped[module] = result
        return result

    def counterpart(self, module: nn.Module, name: str, behind: bool) -> nn.Module:
        leaf = not module._modules and type(module) is not nn.Sequential
        if self.done and leaf and not isinstance(module, nn.Conv2d):
            return module
        for kinds, rule in self.rules:
            if isinstance(module, kinds):
                try:
                    return rule(module, behind)
                except (TypeError, ValueError) as error:
                    raise TypeError(f"swap: {name or 'model'}: {error}") from None
        if leaf:
            raise TypeError(f"swap: no equivariant layer is known for {name or 'model'}: {type(module).__name__}")
        chain = type(module).forward is nn.Sequential.forward  # type: ignore[comparison-overlap]
        plain = dict(module._modules)
        for child_name, child in plain.items():
            if child is not None:
                setattr(module, child_name, self.visit(child, f"{name}.{child_name}".lstrip("."), behind))
                behind = behind or (chain and child in self.convolving)
        if chain:
            self.fuse(module, list(plain.values()))
        return module

    def fuse(self, modules: nn.Module, plain: list[nn.Module | None]) -> None:
        """A ReLU behind a normalisation is computed with it; its place is kept, so that the names of what follows stay."""
        names = list(modules._modules)
        for index, name in enumerate(names[1:]):
            norm = modules._modules[names[index]]
            # A normalisation that is shared may have no ReLU behind it elsewhere.
            if isinstance(norm, GroupBatchNorm) and isinstance(modules._modules[name], nn.ReLU) and plain[index] not in self.shared:
                norm.activation = "relu"
                setattr(modules, name, nn.Identity())

    def fields(self, channels: int) -> int:
        # C fields of |G| channels in and out cost C^2 |G| k^2 parameters: C = channels / sqrt(|G|) keeps the number.
        return max(1, round(channels / math.sqrt(self.group.order)))

    def reads_images(self, channels: int, behind: bool) -> bool:
        """Whether a layer for this many channels is called on images; raises where its place and its size leave that open."""
        if behind or (channels != self.image_channels and channels in self.given):
            return False
        if channels == self.image_channels and (not self.channels or channels not in self.given):
            return True
        what = "the images and other convolutions have" if channels in self.given else "neither the images nor any convolution has"
        raise TypeError(f"cannot tell whether it reads images or fields: {what} {channels} channels")

    def convolution(self, conv: nn.Conv2d, behind: bool) -> nn.Module:
        if self.pooled and not (self.done and behind):
            raise TypeError("a convolution is registered behind the head, where the group has been pooled over")
        if self.done:
            return conv
        if conv.groups != 1:
            raise TypeError(f"grouped convolutions have no counterpart of equal size, got groups={conv.groups}")
        lift = self.reads_images(conv.in_channels, behind)
        self.channels = conv.out_channels
        return (LiftConv2d if lift else GroupConv2d)(
            conv.in_channels if lift else self.fields(conv.in_channels),
            self.fields(conv.out_channels),
            conv.kernel_size,
            group=self.group,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            **_place(conv),
        )

    def batch_norm(self, norm: nn.BatchNorm2d, behind: bool) -> nn.Module:
        if self.pooled:
            raise TypeError("batch normalisation is registered behind the head, where the group has been pooled over")
        if self.reads_images(norm.num_features, behind):
            return norm
        settings = norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        return GroupBatchNorm(self.fields(norm.num_features), *settings, **_place(norm))

    def max_pool(self, pool: nn.MaxPool2d, behind: bool) -> nn.Module:
        _as_default(pool, ceil_mode=False, dilation=1, return_indices=False)
        return GroupMaxPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def average_pool(self, pool: nn.AvgPool2d, behind: bool) -> nn.Module:
        _as_default(pool, ceil_mode=False, divisor_override=None)
        if any(_pair(pool.padding)):
            _as_default(pool, count_include_pad=True)
        return GroupAvgPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def head(self, module: nn.Module, behind: bool) -> nn.Module:
        if self.pooled or not self.channels:
            return module
        self.pooled = True
        return nn.Sequential(GroupPool("max", group=self.group), module)

    def linear(self, linear: nn.Linear, behind: bool) -> nn.Module:
        if not self.channels:  # no fields yet
            return linear
        if not self.pooled:
            raise TypeError("a linear layer needs a global pooling or nn.Flatten, as a module, registered between the convolutions and it")
        if linear.in_features % self.channels:
            raise TypeError(f"in_features={linear.in_features} is no multiple of the {self.channels} channels of the last convolution")
        self.done = True
        inputs = linear.in_features // self.channels * self.fields(self.channels)
        return nn.Linear(inputs, linear.out_features, bias=linear.bias is not None, **_place(linear))

    def prelu(self, module: nn.PReLU, behind: bool) -> nn.Module:
        _as_default(module, num_parameters=1)
        return module


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def _as_default(module: nn.Module, **defaults: Any) -> None:
    """Raises unless the arguments that no layer on fields has are as they are by default."""
    for name, default in defaults.items():
        value = getattr(module, name)
        if (_pair(value) != _pair(default)) if isinstance(value, Sequence) else value != default:
            raise TypeError(f"{name} must be {default}, got {value}")


def _place(module: nn.Module) -> dict[str, Any]:
    """Device and dtype of a module; those of torch where it has no parameters."""
    return next(({"device": tensor.device, "dtype": tensor.dtype} for tensor in module.parameters()), {})


def swap(model: nn.Module, group: str | groups.Group) -> nn.Module:
    """A copy of a plain CNN with its layers swapped for equivariant ones, freshly initialised, with about as many parameters.

    An `nn.Conv2d` that reads images becomes a `LiftConv2d`, the others `GroupConv2d`; c channels become c / sqrt(|G|) fields. Batch
    normalisation, spatial pooling and dropout become those of fields; before the first global pooling or flattening a `GroupPool` takes the
    maximum over G, and behind the first linear layer after it everything stays as it is. A module that occurs in several places stays one.
    Device, dtype and mode are those of the model. The result is invariant under the group when every spatial step is equivariant and the
    head pools over all positions.

    The first convolution registered reads images. So does every other one for as many channels, unless a convolution gives that many too:
    then it is an error, except in an `nn.Sequential` behind a convolution, where there are fields only.

    Args:
        model: a network whose first convolution and whose head are registered first and last, without grouped convolutions.
        group: a name or a `groups.Group` acting on 2 axes.

    Raises TypeError naming the first module that has no equivariant counterpart; ValueError for a group that is unknown or not planar.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> import torch
    >>> plain = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    >>> net = swap(plain, "p4")
    >>> digits = torch.rand(2, 1, 28, 28)
    >>> bool(torch.allclose(net(digits), net(digits.rot90(1, (-2, -1))), atol=1e-5))
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model must be an nn.Module, got {type(model).__name__}")
    resolved, plain = resolve_group("swap", group, 2), copy.deepcopy(model)
    return _Swapper(plain, resolved).visit(plain, "").train(model.training)
