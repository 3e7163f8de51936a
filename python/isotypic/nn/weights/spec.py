"""The shapes of the parameters of a chain of linear or convolutional layers, and where each lies among all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

from isotypic.ops._checks import is_integer


class WeightSpec:
    """The shape of the weight space of an MLP or CNN: widths d_0, ..., d_M of its M layers.

    The parameters of a network are one list of *entries*, in the order W_1, b_1, ..., W_M, b_M, rows first, where W_i is (d_i, d_{i-1}) and
    b_i is (d_i). An entry has channels: one for an MLP; the taps of a convolution fold into them, tap t of a filter in channel t, and what
    has fewer taps than the largest filter is padded with zero channels, as the biases are.

    Args:
        widths: d_0, d_1, ..., d_M, all positive, M >= 1. The neurons of the M - 1 hidden layers can be permuted; those of the input and the
            output cannot.
        filters: for each layer the spatial shape of its filters, () for a linear layer. By default all are linear.
        flattened: index of a linear layer that follows a convolution through `nn.Flatten`; its filter is (number of positions,).
        keys: for each layer the names of its weight and its bias in a state dict (None for a bias that is not there), by default those of
            an `nn.Sequential` in which layers and activations alternate.

    Attributes: `depth` M; `hidden` d_1, ..., d_{M-1}; `in_features` d_0; `out_features` d_M; `numel` P, the number of entries,
    sum of d_i (d_{i-1} + 1); `taps`, for each layer the number of channels that its weights fill; `channels`, the largest of them;
    `weight_slices` and `bias_slices`, where W_i and b_i lie among the entries.

    Two specs are equal when widths, filters and `flattened` are; names do not count.
    Raises ValueError for widths below 1, fewer than two widths, and lists of the wrong length.

    >>> spec = WeightSpec([2, 32, 32, 1])
    >>> spec.depth, spec.numel, spec.channels
    (3, 1185, 1)
    """

    def __init__(
        self,
        widths: Sequence[int],
        filters: Sequence[Sequence[int]] | None = None,
        flattened: int | None = None,
        keys: Sequence[tuple[str, str | None]] | None = None,
    ) -> None:
        if not _integers(widths) or len(widths) < 2:
            raise ValueError(f"WeightSpec: widths must be two or more integers >= 1, got {widths!r}")
        self.widths = tuple(int(width) for width in widths)
        if filters is not None and (not _is_list(filters) or len(filters) != self.depth or not all(map(_integers, filters))):
            raise ValueError(f"WeightSpec: filters must be M={self.depth} shapes of integers >= 1, got {filters!r}")
        self.filters = tuple(tuple(int(size) for size in shape) for shape in filters) if filters is not None else ((),) * self.depth
        self.flattened = flattened
        if flattened is not None and not (_integers([flattened]) and 0 < flattened < self.depth and len(self.filters[flattened]) == 1):
            raise ValueError(
                f"WeightSpec: flattened must be a layer 1 <= i < M={self.depth} with a filter of shape (positions,), got {flattened} "
                f"with filters {self.filters}"
            )
        if keys is None:
            keys = [(f"{2 * i}.weight", f"{2 * i}.bias") for i in range(self.depth)]
        names = [name for pair in keys if _is_list(pair) for name in pair if name is not None] if _is_list(keys) else []
        pairs = _is_list(keys) and all(_is_list(pair) and len(pair) == 2 and pair[0] is not None for pair in keys)
        if not pairs or len(keys) != self.depth or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"WeightSpec: keys must be M={self.depth} pairs of names, all different, got {keys!r}")
        self.keys = tuple((weight, bias) for weight, bias in keys)
        self.taps = tuple(prod(shape) for shape in self.filters)
        start, weights, biases = 0, [], []
        for columns, rows in itertools.pairwise(self.widths):
            weights.append(slice(start, start + rows * columns))
            biases.append(slice(start + rows * columns, start + rows * (columns + 1)))
            start += rows * (columns + 1)
        self.weight_slices, self.bias_slices, self.numel = tuple(weights), tuple(biases), start

    @property
    def depth(self) -> int:
        """M, the number of layers."""
        return len(self.widths) - 1

    @property
    def hidden(self) -> tuple[int, ...]:
        """d_1, ..., d_{M-1}."""
        return self.widths[1:-1]

    @property
    def in_features(self) -> int:
        """d_0."""
        return self.widths[0]

    @property
    def out_features(self) -> int:
        """d_M."""
        return self.widths[-1]

    @property
    def channels(self) -> int:
        """The number of channels of the parameters themselves: 1 for an MLP, the taps of the largest filter for a CNN."""
        return max(self.taps)

    def weight_shape(self, layer: int) -> tuple[int, ...]:
        """The shape of the weight of a layer in a state dict."""
        rows, columns, shape = self.widths[layer + 1], self.widths[layer], self.filters[layer]
        return (rows, columns * self.taps[layer]) if layer == self.flattened else (rows, columns, *shape)

    def with_widths(self, widths: Sequence[int]) -> WeightSpec:
        """The same with other widths."""
        return WeightSpec(widths, self.filters, self.flattened, self.keys)

    def matches(self, other: WeightSpec) -> bool:
        """Whether a layer for this spec serves the other: all but the hidden widths and the names agree."""
        return (self.depth, self.in_features, self.out_features, self.filters, self.flattened) == (
            other.depth,
            other.in_features,
            other.out_features,
            other.filters,
            other.flattened,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightSpec):
            return NotImplemented
        return (self.widths, self.filters, self.flattened) == (other.widths, other.filters, other.flattened)

    def __hash__(self) -> int:
        return hash((self.widths, self.filters, self.flattened))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.widths, self.filters, self.flattened, self.keys)

    def __repr__(self) -> str:
        filters = f", filters={list(self.filters)}" if any(self.filters) else ""
        flattened = f", flattened={self.flattened}" if self.flattened is not None else ""
        return f"WeightSpec({list(self.widths)}{filters}{flattened})"


def as_spec(owner: str, spec: Any) -> WeightSpec:
    """The spec of a layer or a batch, from a `WeightSpec` or the widths of an MLP."""
    if isinstance(spec, WeightSpec):
        return spec
    if not _is_list(spec):
        raise TypeError(f"{owner}: spec must be a WeightSpec or a list of widths, got {type(spec).__name__}")
    try:
        return WeightSpec(spec)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))


def _integers(values: Any) -> bool:
    """Whether these are integers of at least 1."""
    return _is_list(values) and all(is_integer(v) and v >= 1 for v in values)
