"""Networks that read or edit networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from isotypic._words import FusedActivation, Pool, Symmetry, WeightActivation, WeightNorm
from isotypic.nn._arguments import number, positive, same_dtype
from isotypic.nn.weights._module import as_weight_space
from isotypic.nn.weights.io_position import IOPosition
from isotypic.nn.weights.linear import DWSInvariant, DWSLinear, NPLinear, check_pool, check_rank, check_spec
from isotypic.nn.weights.norm import WeightSpaceBatchNorm, WeightSpaceBlockNorm, WeightSpacePointwise
from isotypic.nn.weights.space import WeightSpace, parameter_mask
from isotypic.nn.weights.spec import WeightSpec

# Not in place, so that forward hooks see what a layer computed.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class DWSNet(nn.Module):
    """A deep weight-space network: equivariant layers with normalisation and activation, and an invariant or an equivariant head.

    Args:
        spec: the networks that it reads, as a `WeightSpec` or as the widths of MLPs.
        channels: channels after each hidden layer.
        out_features: length of the output of the invariant head, for example the number of classes; None for an equivariant head, whose
            output is a weight space with the channels of `spec`: an edit of the networks, or a prediction for each parameter. Channels that
            no parameter fills, in biases and where filters have fewer taps than the largest one, are zero, as `from_modules` makes them.
        norm: "batch" (each channel over all entries), "block" (each channel of each matrix and bias), "layer" (over the channels of an
            entry) or None. With a norm the input is normalised too, by blocks: the matrices of one network often differ in scale.
        activation: "relu", "gelu", "silu" or "tanh".
        residual: add the input of a hidden layer to its output where both have the same number of channels.
        dropout: probability of setting an entry to zero after each activation, in [0, 1].
        pool: "mean", "sum" or "max".
        rank: for a wide input, as in `DWSLinear`. With 0 each layer has about 2 d_0^2 + 4 d_0 d_M + 4 d_M^2 matrices between its channels:
            with 784 inputs and 10 outputs 1.3 million, which at 16 channels take 1.3 GB. Take `rank` or `symmetry="all"` from some tens of
            inputs on.
        symmetry: "hidden" (`DWSLinear`), or "all": layers that permute the neurons of the input and the output too (`NPLinear`), behind an
            `IOPosition` that tells these apart. Their size does not depend on any width.
        device, dtype: of the parameters.

    Input: a `WeightSpace` with the channels of `spec`, or its flat tensor (B, P, C). Output: (B, out_features), or as the input.
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels; TypeError for another dtype.

    A. Navon et al., "Equivariant Architectures for Learning in Deep Weight Spaces", 2023; A. Zhou et al., "Permutation Equivariant Neural
    Functionals", 2023.

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
        spec: WeightSpec | Sequence[int],
        channels: Sequence[int],
        out_features: int | None,
        norm: WeightNorm | None = "batch",
        activation: WeightActivation = "relu",
        residual: bool = False,
        dropout: float = 0.0,
        pool: Pool = "mean",
        rank: int = 0,
        symmetry: Symmetry = "hidden",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = check_spec("DWSNet", spec)
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
        number("DWSNet", 0, 1, dropout=dropout)
        if symmetry not in ("hidden", "all"):
            raise ValueError(f"DWSNet: symmetry must be 'hidden' or 'all', got {symmetry!r}")
        if symmetry == "all" and rank:
            raise ValueError(f"DWSNet: rank must be 0 with symmetry 'all', got {rank!r}")
        check_pool("DWSNet", pool)
        check_rank("DWSNet", rank, spec, pool)
        if out_features is not None:
            positive("DWSNet", out_features=out_features)
        self.spec, self.residual, self.symmetry = spec, residual, symmetry
        self.input_norm = None if norm is None else WeightSpaceBlockNorm(spec, spec.channels, affine=False)
        self.position = IOPosition(spec, spec.channels) if symmetry == "all" else None

        def linear(before: int, after: int) -> DWSLinear | NPLinear:
            if symmetry == "all":
                return NPLinear(spec, before, after, pool=pool)
            return DWSLinear(spec, before, after, pool=pool, rank=rank)

        first = spec.channels if self.position is None else self.position.out_channels
        self.layers = nn.ModuleList(linear(before, after) for before, after in itertools.pairwise([first, *channels]))
        fused = norm in ("batch", "block") and activation == "relu"  # one pass over memory for both
        self.norms = nn.ModuleList(_norm(norm, spec, count, "relu" if fused else None) for count in channels)
        self.activation = nn.Identity() if fused else _ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module
        if out_features is None:
            self.head = linear(channels[-1], spec.channels)
        else:
            self.head = DWSInvariant(spec, channels[-1], out_features, pool=pool, symmetry=symmetry, rank=rank)
        self.padded = (
            out_features is None and spec.channels > 1
        )  # then some channels of entries are no parameters: those of biases at least
        self.to(device=device, dtype=dtype)

    @overload
    def forward(self, ws: Tensor) -> Tensor: ...

    @overload
    def forward(self, ws: WeightSpace) -> Any: ...  # a tensor with out_features, a WeightSpace without

    def forward(self, ws: WeightSpace | Tensor) -> WeightSpace | Tensor:
        space = as_weight_space("DWSNet", ws, self.spec, self.spec.channels)
        same_dtype("DWSNet", "input", space.flat, self.layers[0].weight)  # type: ignore[arg-type]
        features = ws if self.input_norm is None else self.input_norm(ws)
        if self.position is not None:
            features = self.position(features)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            update: Any = norm(layer(features))
            update = self._activate(update) if isinstance(update, Tensor) else update.with_flat(self._activate(update.flat))
            if self.residual and layer.in_channels == layer.out_channels:
                update = features + update if isinstance(features, Tensor) else features.with_flat(features.flat + update.flat)
            features = update
        result = self.head(features)
        if not self.padded:
            return result
        if isinstance(result, Tensor):
            return result.masked_fill(~parameter_mask(self.spec, result.device), 0.0)
        return result.with_flat(result.flat.masked_fill(~parameter_mask(result.spec, result.device), 0.0))

    if TYPE_CHECKING:
        __call__ = forward

    def _activate(self, flat: Tensor) -> Tensor:
        return self.dropout(self.activation(flat))


def _norm(norm: WeightNorm | None, spec: WeightSpec, channels: int, activation: FusedActivation | None) -> nn.Module:
    if norm == "batch":
        return WeightSpaceBatchNorm(channels, activation=activation)
    if norm == "block":
        return WeightSpaceBlockNorm(spec, channels, activation=activation)
    return WeightSpacePointwise(nn.LayerNorm(channels)) if norm == "layer" else nn.Identity()
