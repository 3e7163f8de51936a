"""Neural fields: the MLPs of coordinates (SIRENs and others) that packed weight vectors stand for, evaluated many at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic._words import FieldActivation
from isotypic.nn._arguments import check_tensor
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec, as_spec

ODD = ("sine", "tanh")
ACTIVATIONS = (*ODD, "relu")


class NeuralField:
    """The MLP from coordinates to values that a packed weight vector stands for.

        h_0 = x,   h_i = phi(frequency (W_i h_{i-1} + b_i)) for i < M,   f(x) = W_M h_{M-1} + b_M + offset

    A network is one vector of P numbers, W_1, b_1, ..., W_M, b_M, rows first; N networks are one tensor (N, P). With a last axis of one
    channel that is the `flat` of a `WeightSpace`.

    Args:
        spec: the widths d_0, ..., d_M, or a `WeightSpec` of linear layers.
        activation: phi, "sine", "tanh" or "relu".
        frequency: inside phi; None takes 30 for the sine and 1 otherwise.
        offset: added to the output; 0.5 suits images in [0, 1].

    Raises ValueError for a spec with convolutions, an unknown activation or a frequency that is not positive.

    V. Sitzmann, J. Martel, A. Bergman, D. Lindell and G. Wetzstein, "Implicit Neural
    Representations with Periodic Activation Functions", 2020.

    >>> field = NeuralField([2, 32, 32, 1])
    >>> networks = field.initial(5)
    >>> networks.shape, field.render(networks, image_grid(4, 4)).shape
    (torch.Size([5, 1185]), torch.Size([5, 16, 1]))
    """

    def __init__(
        self, spec: WeightSpec | Sequence[int], activation: FieldActivation = "sine", frequency: float | None = None, offset: float = 0.5
    ) -> None:
        self.spec = as_spec("NeuralField", spec)
        if any(self.spec.filters):
            raise ValueError(f"NeuralField: spec must have linear layers only, got {self.spec}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"NeuralField: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation, self.offset = activation, float(offset)
        self.frequency = (30.0 if activation == "sine" else 1.0) if frequency is None else float(frequency)
        if not math.isfinite(self.offset):
            raise ValueError(f"NeuralField: offset must be finite, got {self.offset}")
        if not 0 < self.frequency < math.inf:
            raise ValueError(f"NeuralField: frequency must be positive, got {self.frequency}")

    def __repr__(self) -> str:
        return f"NeuralField({list(self.spec.widths)}, {self.activation!r}, frequency={self.frequency:g}, offset={self.offset:g})"

    def views(self, networks: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The weights [(N, d_i, d_{i-1})] and the biases [(N, d_i)] of packed networks (N, P), as views.

        Raises ValueError for another shape, TypeError for what is no tensor.
        """
        spec = self.spec
        _check_networks(networks)
        if networks.dim() != 2 or networks.shape[1] != spec.numel:
            raise ValueError(f"NeuralField: networks must have shape (N, P={spec.numel}) for {spec}, got {tuple(networks.shape)}")
        weights = [networks[:, part].unflatten(1, (rows, -1)) for part, rows in zip(spec.weight_slices, spec.widths[1:], strict=True)]
        return weights, [networks[:, part] for part in spec.bias_slices]

    def initial(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Random networks (count, P), float32, each drawn for itself.

        Weights are uniform within 1 / d_0 in the first layer of a sine network, as SIREN prescribes, and within sqrt(6 / d_{i-1})
        / frequency elsewhere; biases within 1 / sqrt(d_{i-1}).
        """
        networks = 2 * torch.rand(count, self.spec.numel, generator=generator) - 1
        for layer, (weight, bias) in enumerate(zip(*self.views(networks), strict=True)):
            inputs = self.spec.widths[layer]
            weight.mul_(1 / inputs if layer == 0 and self.activation == "sine" else math.sqrt(6 / inputs) / self.frequency)
            bias.mul_(1 / math.sqrt(inputs))
        return networks

    def render(self, networks: Tensor, coordinates: Tensor) -> Tensor:
        """The values of every network at the coordinates; can be differentiated in both.

        Args:
            networks: (N, P), floating point.
            coordinates: (Q, d_0) for all networks or (N, Q, d_0), of the dtype of `networks`.

        Returns: (N, Q, d_M).
        Raises ValueError for other shapes; TypeError for what is no tensor, and for another dtype.
        """
        weights, biases = self.views(networks)
        check_tensor("NeuralField", "coordinates", coordinates)
        inputs, count = self.spec.in_features, len(networks)
        points = coordinates.unsqueeze(0) if coordinates.dim() == 2 else coordinates
        if points.dim() != 3 or points.shape[2] != inputs or points.shape[0] not in (1, count):
            raise ValueError(
                f"NeuralField: coordinates must have shape (Q, d_0={inputs}) or (N={count}, Q, d_0={inputs}), "
                f"got {tuple(coordinates.shape)}"
            )
        if points.dtype != networks.dtype:
            raise TypeError(f"NeuralField: coordinates must have the dtype of networks, {networks.dtype}, got {points.dtype}")
        # Hidden states are (N, d, Q), points contiguous: the products then have long rows.
        state = points.mT.expand(count, -1, -1)
        phi = {"sine": torch.sin, "tanh": torch.tanh, "relu": torch.relu}[self.activation]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            state = phi(self.frequency * torch.baddbmm(bias.unsqueeze(2), weight, state))
        return (torch.baddbmm(biases[-1].unsqueeze(2), weights[-1], state) + self.offset).mT


def _check_networks(networks: Any) -> None:
    if isinstance(networks, WeightSpace):
        raise TypeError("NeuralField: networks must be a torch.Tensor (N, P), got a WeightSpace; take its flat.squeeze(-1)")
    check_tensor("NeuralField", "networks", networks)


def image_grid(height: int, width: int) -> Tensor:
    """The coordinates (height * width, 2) of the pixels of an image, (row, column), each from -1 to 1, in the order of `image.flatten()`.

    >>> image_grid(2, 3).tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    axes = [torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
