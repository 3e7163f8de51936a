"""Features that tell the neurons of the input apart, and those of the output."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isotypic.nn._arguments import positive
from isotypic.nn.weight_linear import _WeightSpaceModule, check_spec
from isotypic.nn.weight_space import WeightSpace
from isotypic.nn.weight_spec import WeightSpec


class IOPosition(_WeightSpaceModule):
    """Channels with the position of the input or output neuron that an entry belongs to, put behind those that are there.

    An entry W_1[r, s] gets features of input neuron s; W_M[r, s] and b_M[r] get features of output neuron r; all others get zeros. With
    them, layers such as `NPLinear` that treat all neurons alike know which input and output is which.

    Args:
        spec: the networks.
        in_channels: channels per entry before.
        num_frequencies: F; there are 2 F more channels. Sinusoidal ones are sin and cos of pi f_k t, with t from -1 to 1 over the neurons
            and f_k from 1 to `max_frequency`, as a geometric series.
        max_frequency: the largest frequency, in half periods over the neurons.
        learned: learn the 2 F features of each neuron, from a normal distribution of variance 1/2, instead.

    Input: a `WeightSpace`, or its flat tensor (B, P, C). Output: the same kind with `out_channels` = C + 2 F.
    Raises ValueError for networks whose depth, input or output differs, and for a wrong number of channels.

    A. Zhou et al., "Permutation Equivariant Neural Functionals", 2023.

    >>> position = IOPosition(WeightSpec([784, 128, 10]), 1, num_frequencies=6)
    >>> position.out_channels
    13
    """

    input_features: Tensor
    output_features: Tensor

    def __init__(
        self,
        spec: WeightSpec,
        in_channels: int,
        num_frequencies: int = 6,
        max_frequency: float = 10.0,
        learned: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_spec("IOPosition", spec)
        positive("IOPosition", in_channels=in_channels, num_frequencies=num_frequencies)
        if not isinstance(max_frequency, (int, float)) or not 1 <= max_frequency < math.inf:
            raise ValueError(f"IOPosition: max_frequency must be at least 1 and finite, got {max_frequency!r}")
        self.spec, self.in_channels, self.out_channels = spec, in_channels, in_channels + 2 * num_frequencies
        self.num_frequencies, self.max_frequency, self.learned = num_frequencies, max_frequency, learned
        for name, width in (("input_features", spec.in_features), ("output_features", spec.out_features)):
            if learned:
                value = torch.randn(width, 2 * num_frequencies, device=device, dtype=dtype) / math.sqrt(2)
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, sinusoids(width, num_frequencies, max_frequency).to(device, dtype), persistent=False)

    def compute(self, ws: WeightSpace) -> Tensor:
        spec = ws.spec
        features = self.input_features.shape[1]
        parts = []
        for layer in range(spec.depth):
            rows, columns = spec.widths[layer + 1], spec.widths[layer]
            weight = self.input_features.new_zeros(rows, columns, features)
            bias = weight[:, 0]
            if layer == 0:
                weight = weight + self.input_features
            if layer == spec.depth - 1:
                weight, bias = weight + self.output_features.unsqueeze(1), bias + self.output_features
            parts += [weight.flatten(0, 1), bias]
        return torch.cat([ws.flat, torch.cat(parts).to(ws.flat.dtype).expand(ws.flat.shape[0], -1, -1)], -1)

    def extra_repr(self) -> str:
        frequencies = f"num_frequencies={self.num_frequencies}, max_frequency={self.max_frequency}"
        return f"{self.spec}, {self.in_channels}, {frequencies}, learned={self.learned}"


def sinusoids(width: int, num_frequencies: int, max_frequency: float) -> Tensor:
    """(width, 2 F) in the default dtype."""
    position = torch.linspace(-1, 1, width, dtype=torch.float64) if width > 1 else torch.zeros(1, dtype=torch.float64)
    exponents = torch.linspace(0, 1, num_frequencies, dtype=torch.float64)
    angles = math.pi * position.unsqueeze(1) * max_frequency**exponents
    return torch.cat([angles.sin(), angles.cos()], 1).to(torch.get_default_dtype())
