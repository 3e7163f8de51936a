"""What the modules of batch normalisation share: the bookkeeping of `nn.BatchNorm1d` around `ops.batch_norm`, statistics over processes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _NormBase

from isotypic._words import FusedActivation
from isotypic.nn._arguments import number, parameter
from isotypic.ops.norms.batch_norm import ACTIVATIONS, batch_norm, batch_statistics, normalised

Module = TypeVar("Module", bound=nn.Module)


def check_activation(owner: str, activation: FusedActivation | None) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{owner}: activation must be None or 'relu', got {activation!r}")


class _Synchronised(nn.Module):
    """A layer with statistics of a batch, which can be those of the batches of several processes together."""

    synchronised: bool = False
    process_group: Any = None

    def together(self) -> bool:
        """Whether there are other processes to ask."""
        return (
            self.synchronised
            and distributed.is_available()
            and distributed.is_initialized()
            and distributed.get_world_size(self.process_group) > 1
        )

    def over_processes(self, count: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and variance of the values of all processes, from those of each; differentiable, and exact where they are.

        count: of the values of each channel, of a shape that broadcasts to those of mean and var, which count nothing where it is 0.
        """
        from torch.distributed.nn.functional import all_reduce  # late: it is slow to import

        def total(values: Tensor) -> Tensor:
            return all_reduce(values, group=self.process_group or distributed.group.WORLD)

        count, mean, var = (values.double() for values in (count, mean, var))
        count = count.expand_as(mean)
        mean, var = (torch.where(count > 0, values, 0.0) for values in (mean, var))
        n, sums = total(torch.stack([count, count * mean])).unbind()
        divisor = n.clamp(min=1)
        mean_of_all = sums / divisor
        # Of deviations, not of squares: the difference of two large numbers would be the variance.
        squares = total(count * (var + (mean - mean_of_all).square()))
        return n, mean_of_all, squares / divisor


class _ActivatedBatchNorm(_Synchronised, _NormBase):
    """`nn.BatchNorm1d`, its arguments and its state-dict names, with an activation and channels on any axis.

    Not one of the classes that `nn.SyncBatchNorm.convert_sync_batchnorm` replaces, as what it makes has no activation and has its channels
    on axis 1.
    """

    activation: FusedActivation | None

    def __init__(self, num_features: int, eps: float, *settings: Any, activation: FusedActivation | None) -> None:
        check_activation(type(self).__name__, activation)
        number(type(self).__name__, 0, eps=eps)
        super().__init__(num_features, eps, *settings)
        self.activation = activation

    def normalise(self, x: Tensor, axis: int) -> Tensor:
        momentum = self.count_batch()
        training = self.training or self.running_mean is None
        if self.training and self.together():
            return self._normalise_together(x, axis, momentum)
        running = (self.running_mean, self.running_var) if not self.training or self.track_running_stats else (None, None)
        return batch_norm(
            x,
            parameter(self, "weight"),
            parameter(self, "bias"),
            *running,
            training=training,
            momentum=momentum,
            eps=self.eps,
            activation=self.activation,
            axis=axis,
        )

    def _normalise_together(self, x: Tensor, axis: int, momentum: float | Tensor) -> Tensor:
        """In training, by the statistics of all processes."""
        mean, var = batch_statistics(x, axis).unbind()
        count = mean.new_tensor(x.numel() // x.shape[axis])
        count, mean, var = self.over_processes(count, mean, var)
        self.keep(count, mean, var, momentum)
        return normalised(x, torch.stack([mean, var]), self.weight, self.bias, eps=self.eps, activation=self.activation, axis=axis)

    def keep(self, count: Tensor, mean: Tensor, var: Tensor, momentum: float | Tensor) -> None:
        """Moves the running statistics; the variance is divided by count - 1 there."""
        if self.running_mean is None or self.running_var is None:
            return
        with torch.no_grad():
            unbiased = var * (count / (count - 1).clamp(min=1))
            for running, found in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(found.to(running.dtype), (count > 0).to(running.dtype) * momentum)

    def count_batch(self) -> float | Tensor:
        """Counts a batch of training; the share of its statistics in the running ones, all batches alike where momentum is None."""
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                assert self.running_mean is not None
                return 1 / self.num_batches_tracked.to(self.running_mean.dtype)
        return 0.0 if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        settings = super().extra_repr() + ("" if self.activation is None else f", activation={self.activation!r}")
        return settings + (", synchronised" if self.synchronised else "")


def convert_sync_batchnorm(module: Module, process_group: Any = None) -> Module:
    """Batch normalisation with the statistics of the batches of all processes, in every layer of a network that has such statistics.

    `GroupBatchNorm`, `WeightSpaceBatchNorm` and `WeightSpaceBlockNorm` are changed in place, and keep their activation; what is torch's own
    is converted by `nn.SyncBatchNorm.convert_sync_batchnorm`, which leaves these alone. In training each layer then adds up numbers of the
    size of its channels over the processes, twice, and twice more for the gradient; in evaluation, and in one process, nothing changes.
    Processes may have batches of different sizes, also none.

    Args:
        module: a network, before it goes into `DistributedDataParallel`.
        process_group: of `torch.distributed`; None for all processes.

    Returns: the network. Where it is itself a batch normalisation of torch, a new one.
    Raises TypeError for what is no module.

    >>> from isotypic.nn import GroupBatchNorm, convert_sync_batchnorm
    >>> convert_sync_batchnorm(nn.Sequential(GroupBatchNorm(3, activation="relu")))[0].synchronised
    True
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"convert_sync_batchnorm: module must be a torch.nn.Module, got {type(module).__name__}")
    for part in module.modules():
        if isinstance(part, _Synchronised):
            part.synchronised, part.process_group = True, process_group
    return nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group)
