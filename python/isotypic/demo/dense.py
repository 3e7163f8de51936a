"""The same network computed the dense way: every filter moved by every group element, then one plain convolution.

This is what the swapped networks are timed against. The bank has |G| times the entries of the weight, and the convolution costs |G|^2
multiply-adds for each position, tap and pair of fields.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic import nn as inn
from isotypic.ops.fields.bank import filter_bank


class DenseConv2d(nn.Module):
    """A group convolution through its filter bank, which is expanded in every call (`expanded=False`) or is itself the parameter."""

    entries: Tensor

    def __init__(self, conv: inn.LiftConv2d | inn.GroupConv2d, expanded: bool) -> None:
        super().__init__()
        self.lift, self.order, self.expanded = isinstance(conv, inn.LiftConv2d), conv.order, expanded
        self.conv = conv.to_conv()
        self.shape = self.conv.weight.shape
        if not expanded:
            # Which entry of the weight of one output field stands at each place of its |G| filters; every tap of a square box is used.
            field = conv.weight[:1]
            entries = filter_bank(torch.arange(field.numel()).reshape(field.shape), group=conv.group, field=conv.field)
            self.register_buffer("entries", entries.flatten(), persistent=False)
            self.weight = nn.Parameter(conv.weight.detach().clone())
            del self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        filters = self.conv.weight if self.expanded else self.weight.flatten(1).index_select(1, self.entries).reshape(self.shape)
        return self.conv._conv_forward(x if self.lift else x.flatten(1, 2), filters, self.conv.bias).unflatten(1, (-1, self.order))


class TorchBatchNorm(nn.Module):
    """Batch normalisation of fields by torch, with its ReLU in place.

    Not a subclass of torch's, which `SyncBatchNorm.convert_sync_batchnorm` would replace together with the ReLU.
    """

    def __init__(self, norm: inn.GroupBatchNorm) -> None:
        super().__init__()
        self.norm = copy.deepcopy(norm)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        batch = norm.training or norm.running_mean is None
        momentum = norm.momentum
        if batch and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        y = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, batch, momentum or 0.0, norm.eps)
        return y if norm.activation is None else y.relu_()


def dense(model: nn.Module, *, expanded: bool) -> nn.Module:
    """A copy of a swapped network with its group convolutions computed densely, and everything else by torch: the same function and the
    same gradients.

    Args:
        model: a network with `LiftConv2d` and `GroupConv2d` layers of a group that maps axes to axes.
        expanded: take the banks as the parameters, so that a step does not pay for expanding the weights.
    """
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, inn.LiftConv2d | inn.GroupConv2d):
            model.set_submodule(name, DenseConv2d(module, expanded))
        if isinstance(module, inn.GroupBatchNorm):
            model.set_submodule(name, TorchBatchNorm(module))
    return model
