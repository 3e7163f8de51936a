"""Networks that read or edit networks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from isotypic.nn._arguments import positive
from isotypic.nn.weight_linear import DWSInvariant, DWSLinear, as_weight_space, check_spec
from isotypic.nn.weight_norm import WeightSpaceBatchNorm, WeightSpaceBlockNorm, WeightSpacePointwise
from isotypic.nn.weight_space import WeightSpace
from isotypic.nn.weight_spec import WeightSpec

# In place where the derivative needs the result alone: no layer and no norm keeps what it gives.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": functools.partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class DWSNet(nn.Module):
    """A deep weight-space network: equivariant layers with normalisation and activation, and an invariant or an equivariant head.

    Args:
        spec: the networks that it reads.
        channels: channels after each hidden layer.
        out_features: length of the output of the invariant head, for example the number of classes; None for an equivariant head, whose
            output is a weight space with the channels of `spec`: an edit of the networks, or a prediction for each parameter.
        norm: "batch" (each channel over all entries), "block" (each channel of each matrix and bias), "layer" (over the channels of an
            entry) or None. With a norm the input is normalised too, by blocks: the matrices of one network often differ in scale.
        activation: "relu", "gelu", "silu" or "tanh".
        residual: add the input of a hidden layer to its output where both have the same number of channels.
        dropout: probability of setting an entry to zero after each activation.
        pool: "mean", "sum" or "max".
        rank: for a wide input, as in `DWSLinear`.
        device, dtype: of the parameters.

    Input: a `WeightSpace` with the channels of `spec`, or its flat tensor (B, P, C). Output: (B, out_features), or as the input.
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels.

    A. Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", 2023.

    >>> import torch
    >>> spec = WeightSpec([2, 32, 32, 1])
    >>> ws = WeightSpace(torch.randn(4, spec.numel, 1), spec)
    >>> DWSNet(spec, channels=[8, 8], out_features=10)(ws).shape
    torch.Size([4, 10])
    >>> DWSNet(spec, channels=[8, 8], out_features=None)(ws)
    WeightSpace(4 networks, flat (4, 1185, 1), WeightSpec([2, 32, 32, 1]))
    """

    def __init__(
        self,
        spec: WeightSpec,
        channels: Sequence[int],
        out_features: int | None,
        norm: str | None = "batch",
        activation: str = "relu",
        residual: bool = False,
        dropout: float = 0.0,
        pool: str = "mean",
        rank: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_spec("DWSNet", spec)
        if not isinstance(channels, Sequence):
            raise TypeError(f"DWSNet: channels must be a sequence of integers, got {channels!r}")
        for count in channels:
            positive("DWSNet", channels=count)
        if not channels:
            raise ValueError("DWSNet: channels must have at least one entry")
        if norm not in ("batch", "block", "layer", None):
            raise ValueError(f"DWSNet: norm must be 'batch', 'block', 'layer' or None, got {norm!r}")
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise ValueError(f"DWSNet: activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"DWSNet: dropout must be in [0, 1], got {dropout!r}")
        if out_features is not None:
            positive("DWSNet", out_features=out_features)
        self.spec, self.residual = spec, residual
        self.input_norm = None if norm is None else WeightSpaceBlockNorm(spec, spec.channels, affine=False)
        self.layers = nn.ModuleList(
            DWSLinear(spec, before, after, pool=pool, rank=rank) for before, after in itertools.pairwise([spec.channels, *channels])
        )
        fused = norm in ("batch", "block") and activation == "relu"  # one pass over memory for both
        self.norms = nn.ModuleList(_norm(norm, spec, count, "relu" if fused else None) for count in channels)
        self.activation = WeightSpacePointwise(nn.Identity() if fused else _ACTIVATIONS[activation]())
        self.dropout = WeightSpacePointwise(nn.Dropout(dropout))
        self.head: nn.Module
        if out_features is None:
            self.head = DWSLinear(spec, channels[-1], spec.channels, pool=pool, rank=rank)
        else:
            self.head = DWSInvariant(spec, channels[-1], out_features, pool=pool, rank=rank)
        self.to(device=device, dtype=dtype)

    def forward(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor:
        as_weight_space("DWSNet", ws, self.spec, self.spec.channels)
        features = ws if self.input_norm is None else self.input_norm(ws)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            update = self.dropout(self.activation(norm(layer(features))))
            if self.residual and layer.in_channels == layer.out_channels:
                update = features + update if isinstance(features, Tensor) else features.with_flat(features.flat + update.flat)
            features = update
        return self.head(features)


def _norm(norm: str | None, spec: WeightSpec, channels: int, activation: str | None) -> nn.Module:
    if norm == "batch":
        return WeightSpaceBatchNorm(channels, activation=activation)
    if norm == "block":
        return WeightSpaceBlockNorm(spec, channels, activation=activation)
    return WeightSpacePointwise(nn.LayerNorm(channels)) if norm == "layer" else nn.Identity()
