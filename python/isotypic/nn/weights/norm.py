"""What acts on the entries of a weight space one by one, or normalises them, in one call on the flat tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isotypic._words import FusedActivation
from isotypic.nn._arguments import check_tensor, number, positive, same_dtype
from isotypic.nn._batch_norm import _ActivatedBatchNorm, _Synchronised, check_activation
from isotypic.nn.weights._module import _WeightSpaceModule, as_weight_space
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec, as_spec
from isotypic.ops.norms.batch_norm import batch_norm


class WeightSpacePointwise(_WeightSpaceModule):
    """A module that acts on the channels of each entry alone, such as `nn.ReLU`, `nn.LayerNorm(C)`, `nn.Linear(C, ...)` or `nn.Dropout`.

    Args:
        module: applied to the flat tensor (B, P, C); it must treat the leading axes alike.

    Input: a `WeightSpace`, or its flat tensor. Output: the same kind.

    >>> spec = WeightSpec([2, 4, 1])
    >>> WeightSpacePointwise(nn.LayerNorm(8))(WeightSpace(torch.randn(3, spec.numel, 8), spec))
    WeightSpace(3 networks, flat (3, 17, 8), WeightSpec([2, 4, 1]))
    """

    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(module):
            raise TypeError(f"WeightSpacePointwise: module must be a module or a function, got {type(module).__name__}")
        self.module = module

    def check(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor:
        if not isinstance(ws, WeightSpace):
            check_tensor("WeightSpacePointwise", "input", ws)
        return ws

    def compute(self, ws: WeightSpace | Tensor) -> Tensor:
        return self.module(ws) if isinstance(ws, Tensor) else ws.map(self.module).flat


class WeightSpaceBatchNorm(_WeightSpaceModule, _ActivatedBatchNorm):
    """Batch normalisation of each channel over all entries of all networks: `nn.BatchNorm1d` on (B P, C), with its state-dict names.

    Where hidden widths differ, entries outside of a network do not count. A ReLU that follows costs nothing more when it is computed with
    it, and its result is not kept for the gradient (`ops.batch_norm`).

    Args:
        num_channels: C.
        eps, momentum, affine, track_running_stats, device, dtype: as for `nn.BatchNorm1d`.
        activation: None or "relu", of the result.

    Input: a `WeightSpace`, or its flat tensor (B, P, C), of the dtype of the parameters; of 16 bits also where these are float32. Output:
    the same kind.
    Raises ValueError for a wrong number of channels and for an unknown activation; TypeError for another dtype.

    S. Ioffe and C. Szegedy, "Batch Normalization", 2015.

    >>> WeightSpaceBatchNorm(8)(torch.randn(3, 17, 8)).shape
    torch.Size([3, 17, 8])
    """

    def __init__(
        self,
        num_channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        activation: FusedActivation | None = None,
    ) -> None:
        positive("WeightSpaceBatchNorm", num_channels=num_channels)
        super().__init__(num_channels, eps, momentum, affine, track_running_stats, device, dtype, activation=activation)

    @property
    def num_channels(self) -> int:
        """C, which `nn.BatchNorm1d` calls num_features."""
        return self.num_features

    def check(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor:
        if not isinstance(ws, WeightSpace):
            check_tensor("WeightSpaceBatchNorm", "input", ws)
        flat = ws if isinstance(ws, Tensor) else ws.flat
        if flat.dim() != 3 or flat.shape[2] != self.num_features:
            raise ValueError(f"WeightSpaceBatchNorm: input must have shape (B, P, C={self.num_features}), got {tuple(flat.shape)}")
        same_dtype("WeightSpaceBatchNorm", "input", flat, self.weight, wider=True)
        return ws

    def compute(self, ws: WeightSpace | Tensor) -> Tensor:
        flat, mask = (ws, None) if isinstance(ws, Tensor) else _masked(ws)
        if mask is None or not len(flat) or not (self.training or self.running_mean is None):
            return self.normalise(flat, -1)
        return self._normalise_masked(flat, mask.unsqueeze(-1))

    def _normalise_masked(self, flat: Tensor, mask: Tensor) -> Tensor:
        """The same with the statistics of the entries in the mask (B, P, 1); the others are zero."""
        values = _at_least_float32(flat)
        count = mask.sum().to(values.dtype)
        mean = values.sum((0, 1)) / count
        centred = (values - mean).masked_fill(~mask, 0.0)
        var = centred.square().sum((0, 1)) / count
        momentum = self.count_batch()
        if self.training and self.together():
            count, mean, var = (found.to(values.dtype) for found in self.over_processes(count, mean, var))
            centred = (values - mean).masked_fill(~mask, 0.0)
        if self.training:
            self.keep(count, mean, var, momentum)
        normal = centred * (var + self.eps).rsqrt()
        normal = (normal if self.weight is None else torch.addcmul(self.bias, normal, self.weight)).to(flat.dtype)
        return normal.relu() if self.activation == "relu" else normal


class WeightSpaceBlockNorm(_Synchronised, _WeightSpaceModule):
    """Batch normalisation of each channel of each W_i and each b_i: matrices of one network often have very different scales.

    Mean and variance of a block are taken over the batch and its entries; a scale and a shift per block and channel follow. Behaves as
    `nn.BatchNorm1d` on each block, in a few calls for all blocks, but for one thing: a block that has a single value of each channel in a
    batch of training, such as b_M of one network with d_M = 1, has no variance. It is normalised by its running statistics, as in
    evaluation, and leaves them as they are. Where hidden widths differ, entries outside of a network do not count.

    Args:
        spec: the networks, as a `WeightSpec` or as the widths of MLPs.
        num_channels: C.
        eps, momentum, affine, device, dtype: as for `nn.BatchNorm1d`, but that momentum is a number: blocks see different numbers of
            batches, so that there is no common count for the average over all of them.
        activation: None or "relu", of the result.

    Input: a `WeightSpace` with C channels, or its flat tensor (B, P, C), of the dtype of the parameters; of 16 bits also where these are
    float32. Output: the same kind. Values are centred and scaled in float32 (float64 for float64).
    Raises ValueError for networks whose depth, input or output differs, a wrong number of channels, an unknown activation, a momentum
    outside [0, 1] and a negative eps; TypeError for another dtype.

    >>> spec = WeightSpec([2, 4, 1])
    >>> WeightSpaceBlockNorm(spec, 1)(torch.randn(3, 17, 1)).shape
    torch.Size([3, 17, 1])
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        num_channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        activation: FusedActivation | None = None,
    ) -> None:
        super().__init__()
        check_activation("WeightSpaceBlockNorm", activation)
        spec = as_spec("WeightSpaceBlockNorm", spec)
        positive("WeightSpaceBlockNorm", num_channels=num_channels)
        number("WeightSpaceBlockNorm", 0, eps=eps)
        number("WeightSpaceBlockNorm", 0, 1, momentum=momentum)
        self.spec, self.num_channels, self.eps, self.momentum, self.affine = spec, num_channels, eps, momentum, affine
        self.activation = activation
        shape = (2 * spec.depth, num_channels)
        self.weight = nn.Parameter(torch.ones(shape, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype)) if affine else None
        self.register_buffer("running_mean", torch.zeros(shape, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(shape, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))

    def check(self, ws: WeightSpace | Tensor) -> WeightSpace:
        space = as_weight_space("WeightSpaceBlockNorm", ws, self.spec, self.num_channels)
        check_tensor("WeightSpaceBlockNorm", "input", space.flat, floating=True)
        same_dtype("WeightSpaceBlockNorm", "input", space.flat, self.weight, wider=True)
        return space

    def compute(self, ws: WeightSpace) -> Tensor:
        lengths = [part.stop - part.start for pair in zip(ws.spec.weight_slices, ws.spec.bias_slices, strict=True) for part in pair]
        flat, mask = _masked(ws)
        if self.training:
            if not len(flat) and not self.together():
                raise ValueError("WeightSpaceBlockNorm: in training the input must have at least one network, got none")
            self.num_batches_tracked.add_(1)
            if mask is None and self.together():
                mask = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)
            if mask is not None:
                return self._normalise_masked(flat, mask, lengths)
        return self._normalise_blocks(flat, lengths)

    def _normalise_blocks(self, flat: Tensor, lengths: list[int]) -> Tensor:
        """In eval, and in training where every block has all of its entries."""
        none = [None] * len(lengths)
        weights, biases = (none if rows is None else rows.unbind() for rows in (self.weight, self.bias))
        rows = zip(flat.split(lengths, 1), weights, biases, self.running_mean.unbind(), self.running_var.unbind(), strict=True)
        settings: dict[str, Any] = dict(momentum=self.momentum, eps=self.eps, activation=self.activation, axis=-1)
        return torch.cat(
            [
                batch_norm(*row, training=self.training and len(flat) * length > 1, **settings)
                for row, length in zip(rows, lengths, strict=True)
            ],
            1,
        )

    def _normalise_masked(self, flat: Tensor, mask: Tensor, lengths: list[int]) -> Tensor:
        """In training, by the entries in the mask (B, P); the others are zero."""
        values, outside = _at_least_float32(flat), ~mask.unsqueeze(-1)
        count = _gather(mask.sum(0).to(values.dtype).unsqueeze(-1), lengths)  # (2 M, 1)
        mean = _gather(values.sum(0), lengths) / count
        var = _gather((values - _spread(mean, lengths)).masked_fill(outside, 0.0).square().sum(0), lengths) / count
        if self.together():
            count, mean, var = (found.to(values.dtype) for found in self.over_processes(count, mean, var))
        several = count > 1
        running = [(self.running_mean, mean), (self.running_var, var * (count / (count - 1).clamp(min=1)))]
        mean, var = (torch.where(several, new, old.to(new.dtype)) for new, old in ((mean, self.running_mean), (var, self.running_var)))
        with torch.no_grad():
            for old, new in running:
                old.copy_(torch.where(several, old.lerp(new.to(old.dtype), self.momentum), old))
        out = (values - _spread(mean, lengths)) * _spread((var + self.eps).rsqrt(), lengths)
        if self.weight is not None and self.bias is not None:
            out = torch.addcmul(_spread(self.bias, lengths).to(out.dtype), out, _spread(self.weight, lengths).to(out.dtype))
        out = out.to(flat.dtype)
        return out.relu() if self.activation == "relu" else out

    def extra_repr(self) -> str:
        settings = f"{self.spec}, {self.num_channels}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        settings += "" if self.activation is None else f", activation={self.activation!r}"
        return settings + (", synchronised" if self.synchronised else "")


def _masked(ws: WeightSpace) -> tuple[Tensor, Tensor | None]:
    """The flat tensor with zeros outside of the networks, and the mask of what is inside."""
    mask = ws.mask
    return ws.flat if mask is None else ws.flat.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def _at_least_float32(values: Tensor) -> Tensor:
    """Half-precision sums over many entries would lose the statistics."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _gather(entries: Tensor, lengths: list[int]) -> Tensor:
    """(2 M, C): sums over blocks of entries (P, C)."""
    return torch.stack([part.sum(0) for part in entries.split(lengths)])


def _spread(blocks: Tensor, lengths: list[int]) -> Tensor:
    """(P, C) from (2 M, C)."""
    return torch.cat([block.expand(length, -1) for block, length in zip(blocks.unbind(), lengths, strict=True)])
