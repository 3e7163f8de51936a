"""What the modules of batch normalisation share: the bookkeeping of `nn.BatchNorm1d` around `ops.batch_norm`."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from isotypic.nn._arguments import number
from isotypic.ops.norms.batch_norm import ACTIVATIONS, batch_norm


def check_activation(owner: str, activation: str | None) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{owner}: activation must be None or 'relu', got {activation!r}")


class _ActivatedBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d`, its arguments and its state-dict names, with an activation and channels on any axis."""

    activation: str | None

    def __init__(self, num_features: int, eps: float, *settings: Any, activation: str | None) -> None:
        check_activation(type(self).__name__, activation)
        number(type(self).__name__, 0, eps=eps)
        super().__init__(num_features, eps, *settings)
        self.activation = activation

    def normalise(self, x: Tensor, axis: int) -> Tensor:
        momentum = self.count_batch()
        training = self.training or self.running_mean is None
        running = (self.running_mean, self.running_var) if not self.training or self.track_running_stats else (None, None)
        return batch_norm(
            x,
            self.weight,
            self.bias,
            *running,
            training=training,
            momentum=momentum,
            eps=self.eps,
            activation=self.activation,
            axis=axis,
        )

    def count_batch(self) -> float | Tensor:
        """Counts a batch of training; the share of its statistics in the running ones, all batches alike where momentum is None."""
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                assert self.running_mean is not None
                return 1 / self.num_batches_tracked.to(self.running_mean.dtype)
        return 0.0 if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.activation is None else f", activation={self.activation!r}")
