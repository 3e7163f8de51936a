"""From a plain CNN to an equivariant one of the same size, layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from torch import nn

from isotypic import groups
from isotypic.nn._arguments import resolve_group
from isotypic.nn.conv import GroupConv2d, LiftConv2d
from isotypic.nn.dropout import FieldDropout
from isotypic.nn.group_pool import GroupPool
from isotypic.nn.norm import GroupBatchNorm
from isotypic.nn.spatial_pool import GroupAvgPool2d, GroupMaxPool2d

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Dropout, nn.Identity)


class _Swapper:
    """Visits modules in the order in which they are registered, which has to be the order in which they are called."""

    def __init__(self, group: groups.Group) -> None:
        self.group = group
        self.channels = 0  # of the plain network at this point; 0 before the first convolution
        self.fields = 0  # of the new network at this point
        self.pooled = False  # whether the group has been pooled over
        self.rules: list[tuple[type | tuple[type, ...], Callable[..., nn.Module]]] = [
            (nn.Conv2d, self.convolution),
            (nn.BatchNorm2d, self.batch_norm),
            (nn.MaxPool2d, self.max_pool),
            (nn.AvgPool2d, self.average_pool),
            (nn.Dropout2d, lambda module: FieldDropout(module.p, module.inplace)),
            ((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten), self.head),
            (nn.Linear, self.linear),
            (POINTWISE, lambda module: module),
        ]

    def visit(self, module: nn.Module, name: str) -> nn.Module:
        for kinds, rule in self.rules:
            if isinstance(module, kinds):
                return rule(module)
        if next(module.children(), None) is None:
            raise TypeError(f"swap: no equivariant layer is known for {name}: {type(module).__name__}")
        for child_name, child in module.named_children():
            setattr(module, child_name, self.visit(child, f"{name}.{child_name}".lstrip(".")))
        if isinstance(module, nn.Sequential):
            self.fuse(module)
        return module

    @staticmethod
    def fuse(modules: nn.Sequential) -> None:
        """A ReLU behind a normalisation is computed with it; its place is kept, so that the names of what follows stay."""
        for index in range(len(modules) - 1):
            norm = modules[index]
            if isinstance(norm, GroupBatchNorm) and isinstance(modules[index + 1], nn.ReLU):
                norm.activation = "relu"
                modules[index + 1] = nn.Identity()

    def convolution(self, conv: nn.Conv2d) -> nn.Module:
        # C fields of |G| channels in and out cost C^2 |G| k^2 parameters: C = channels / sqrt(|G|) keeps the number.
        lift = self.channels == 0
        inputs = conv.in_channels if lift else self.fields
        self.channels, self.fields = conv.out_channels, max(1, round(conv.out_channels / math.sqrt(self.group.order)))
        if conv.groups != 1:
            raise TypeError(f"swap: grouped convolutions have no counterpart of equal size, got groups={conv.groups}")
        return (LiftConv2d if lift else GroupConv2d)(
            inputs,
            self.fields,
            conv.kernel_size,
            group=self.group,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
            **_place(conv),
        )

    def batch_norm(self, norm: nn.BatchNorm2d) -> nn.Module:
        return GroupBatchNorm(self.fields, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, **_place(norm))

    def max_pool(self, pool: nn.MaxPool2d) -> nn.Module:
        return GroupMaxPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def average_pool(self, pool: nn.AvgPool2d) -> nn.Module:
        return GroupAvgPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def head(self, module: nn.Module) -> nn.Module:
        if self.pooled:
            return module
        self.pooled = True
        return nn.Sequential(GroupPool("max"), module)

    def linear(self, linear: nn.Linear) -> nn.Module:
        if not self.fields or linear.in_features % self.channels:
            return linear
        inputs = linear.in_features // self.channels * self.fields
        self.fields = 0  # only the first linear layer sees fields
        return nn.Linear(inputs, linear.out_features, bias=linear.bias is not None, **_place(linear))


def _place(module: nn.Module) -> dict[str, Any]:
    """Device and dtype of a module; those of torch where it has no parameters."""
    return next(({"device": tensor.device, "dtype": tensor.dtype} for tensor in module.parameters()), {})


def swap(model: nn.Module, group: str | groups.Group) -> nn.Module:
    """A copy of a plain CNN with its layers swapped for equivariant ones, freshly initialised, with about as many parameters.

    The first `nn.Conv2d` becomes a `LiftConv2d`, the others `GroupConv2d` with channels / sqrt(|G|) fields; batch normalisation, spatial
    pooling and dropout become those of fields; before the first global pooling or flattening a `GroupPool` takes the maximum over G.
    Device, dtype and mode are those of the model. The result is invariant under the group when every spatial step is equivariant and the
    head pools over all positions.

    Args:
        model: a network whose modules are registered in the order in which they are called, without grouped convolutions.
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
    return _Swapper(resolve_group("swap", group, 2)).visit(copy.deepcopy(model), "").train(model.training)
