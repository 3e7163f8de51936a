"""Features that tell the neurons of the input apart, and those of the output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isotypic._constants import Constants
from isotypic._words import Scheme
from isotypic.nn._arguments import number, positive
from isotypic.nn.weights._module import _WeightSpaceModule
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec, as_spec


class IOPosition(_WeightSpaceModule, Constants):
    """Channels with the position of the input or output neuron that an entry belongs to, put behind those that are there.

    An entry W_1[r, s] gets features of input neuron s; W_M[r, s] and b_M[r] get features of output neuron r; all others get zeros. With
    them, layers such as `NPLinear` that treat all neurons alike know which input and output is which.

    Args:
        spec: the networks, as a `WeightSpec` or as the widths of MLPs.
        in_channels: channels per entry before.
        num_frequencies: F; there are 2 F more channels. Sinusoidal ones are sin and cos of pi f_k t, with t from -1 to 1 over the neurons
            and f_k from 1 to `max_frequency`, as a geometric series.
        max_frequency: the largest frequency, in half periods over the neurons.
        learned: learn the 2 F features of each neuron, from a normal distribution of variance 1/2, instead.
        scheme: "geometric" as above, or "nfn" for what the `IOSinusoidalEncoding` of nfn computes: f_k in equal steps from 1 to
            `max_frequency` / 2, t itself as one more channel behind the sinusoids, and in all entries of layer i the same features of the
            position of i, from -1 to 1 over the layers, are added. A single neuron or layer has t = -1 there, and t = 0 otherwise.
        device, dtype: of the features, learned or not.

    Input: a `WeightSpace`, or its flat tensor (B, P, C). Output: the same kind with `out_channels` = C + 2 F, or C + 2 F + 1 for "nfn".
    Raises ValueError for networks whose depth, input or output differs, for a wrong number of channels and for an unknown scheme.

    A. Zhou et al., "Permutation Equivariant Neural Functionals", 2023.

    >>> position = IOPosition(WeightSpec([784, 128, 10]), 1, num_frequencies=6)
    >>> position.out_channels
    13
    """

    input_features: Tensor
    output_features: Tensor
    layer_features: Tensor | None

    def __init__(
        self,
        spec: WeightSpec | Sequence[int],
        in_channels: int,
        num_frequencies: int = 6,
        max_frequency: float = 10.0,
        learned: bool = False,
        scheme: Scheme = "geometric",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = as_spec("IOPosition", spec)
        positive("IOPosition", in_channels=in_channels, num_frequencies=num_frequencies)
        number("IOPosition", 1, max_frequency=max_frequency)
        if scheme not in ("geometric", "nfn"):
            raise ValueError(f"IOPosition: scheme must be 'geometric' or 'nfn', got {scheme!r}")
        if learned and scheme == "nfn":
            raise ValueError("IOPosition: scheme must be 'geometric' with learned=True, got 'nfn'")
        self.spec, self.in_channels, self.num_frequencies, self.max_frequency = spec, in_channels, num_frequencies, max_frequency
        self.learned, self.scheme = learned, scheme
        features = 2 * num_frequencies + int(scheme == "nfn")
        self.out_channels = in_channels + features
        for name, width in (("input_features", spec.in_features), ("output_features", spec.out_features)):
            if learned:
                self.register_parameter(name, nn.Parameter(torch.randn(width, features, device=device, dtype=dtype) / math.sqrt(2)))
            else:
                self.add_constant(name, sinusoids(width, num_frequencies, max_frequency, scheme), device, dtype)
        if scheme == "nfn":
            self.add_constant("layer_features", sinusoids(spec.depth, num_frequencies, max_frequency, scheme), device, dtype)
        else:
            self.layer_features = None

    def compute(self, ws: WeightSpace) -> Tensor:
        spec = ws.spec
        features = self.input_features.shape[1]
        parts = []
        for layer in range(spec.depth):
            rows, columns = spec.widths[layer + 1], spec.widths[layer]
            weight = self.input_features.new_zeros(rows, columns, features)
            if self.layer_features is not None:
                weight = weight + self.layer_features[layer]
            bias = weight[:, 0]
            if layer == 0:
                weight = weight + self.input_features
            if layer == spec.depth - 1:
                weight, bias = weight + self.output_features.unsqueeze(1), bias + self.output_features
            parts += [weight.flatten(0, 1), bias]
        return torch.cat([ws.flat, torch.cat(parts).to(ws.flat.dtype).expand(ws.flat.shape[0], -1, -1)], -1)

    def extra_repr(self) -> str:
        frequencies = f"num_frequencies={self.num_frequencies}, max_frequency={self.max_frequency}"
        scheme = "" if self.scheme == "geometric" else f", scheme={self.scheme!r}"
        return f"{self.spec}, {self.in_channels}, {frequencies}, learned={self.learned}{scheme}"


def sinusoids(width: int, num_frequencies: int, max_frequency: float, scheme: Scheme = "geometric") -> NDArray[np.float64]:
    """(width, 2 F), or (width, 2 F + 1) for the scheme of nfn."""
    position = np.linspace(-1, 1, width)[:, None]
    if scheme == "nfn":
        frequencies = np.linspace(1, max_frequency / 2, num_frequencies)
    else:
        position = position if width > 1 else np.zeros_like(position)
        frequencies = max_frequency ** np.linspace(0, 1, num_frequencies)
    angles = math.pi * position * frequencies
    features = [np.sin(angles), np.cos(angles), *([position] if scheme == "nfn" else [])]
    return np.concatenate(features, 1)
