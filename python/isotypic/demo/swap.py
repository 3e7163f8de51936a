"""From a plain CNN to an equivariant one of the same size, layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from torch import nn

from isotypic import groups
from isotypic import nn as inn

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
            (nn.Dropout2d, lambda module: inn.FieldDropout(module.p, module.inplace)),
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
            if isinstance(norm, inn.GroupBatchNorm) and isinstance(modules[index + 1], nn.ReLU):
                norm.activation = "relu"
                modules[index + 1] = nn.Identity()

    def convolution(self, conv: nn.Conv2d) -> nn.Module:
        # C fields of |G| channels in and out cost C^2 |G| k^2 parameters: C = channels / sqrt(|G|) keeps the number.
        lift = self.channels == 0
        inputs = conv.in_channels if lift else self.fields
        self.channels, self.fields = conv.out_channels, max(1, round(conv.out_channels / math.sqrt(self.group.order)))
        if conv.groups != 1:
            raise TypeError(f"swap: grouped convolutions have no counterpart of equal size, got groups={conv.groups}")
        return (inn.LiftConv2d if lift else inn.GroupConv2d)(
            inputs,
            self.fields,
            conv.kernel_size,
            group=self.group,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            bias=conv.bias is not None,
            padding_mode=conv.padding_mode,
        )

    def batch_norm(self, norm: nn.BatchNorm2d) -> nn.Module:
        return inn.GroupBatchNorm(self.fields, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)

    def max_pool(self, pool: nn.MaxPool2d) -> nn.Module:
        return inn.GroupMaxPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def average_pool(self, pool: nn.AvgPool2d) -> nn.Module:
        return inn.GroupAvgPool2d(pool.kernel_size, pool.stride, pool.padding, group=self.group)

    def head(self, module: nn.Module) -> nn.Module:
        if self.pooled:
            return module
        self.pooled = True
        return nn.Sequential(inn.GroupPool("max"), module)

    def linear(self, linear: nn.Linear) -> nn.Module:
        if not self.fields or linear.in_features % self.channels:
            return linear
        inputs = linear.in_features // self.channels * self.fields
        self.fields = 0  # only the first linear layer sees fields
        return nn.Linear(inputs, linear.out_features, bias=linear.bias is not None)


def swap(model: nn.Module, group: str | groups.Group) -> nn.Module:
    """A copy of a plain CNN with its layers swapped for equivariant ones, freshly initialised, with about as many parameters.

    The first `nn.Conv2d` becomes a `LiftConv2d`, the others `GroupConv2d` with channels / sqrt(|G|) fields; batch normalisation, spatial
    pooling and dropout become those of fields; before the first global pooling or flattening a `GroupPool` takes the maximum over G.
    The result is invariant under the group when every spatial step is equivariant and the head pools over all positions.

    Args:
        model: a network whose modules are registered in the order in which they are called, without grouped convolutions.
        group: a name or a `groups.Group` acting on 2 axes.

    Raises TypeError naming the first module that has no equivariant counterpart.

    T. Cohen and M. Welling, "Group Equivariant Convolutional Networks", 2016.

    >>> import torch
    >>> net = swap(SmallCNN(22), "p4").eval()
    >>> digits = torch.rand(2, 1, 28, 28)
    >>> bool(torch.allclose(net(digits), net(digits.rot90(1, (-2, -1))), atol=1e-5))
    True
    """
    return _Swapper(groups.get(group)).visit(copy.deepcopy(model), "")
