"""Augmentation of networks: changes of weights whose effect on the function is known, for a whole batch in one call.

Every function takes a `NeuralField` and packed networks (N, P) and returns new networks; random ones draw from `generator`.

| function | the function that the networks compute |
|---|---|
| `permute_neurons`, `flip_signs`, `orient_neurons`, `wrap_phases`, `rescale_neurons` | stays as it is |
| `transform_coordinates`, `rotate_coordinates`, `random_motion` | is moved |
| `add_noise`, `mask_weights` | is disturbed |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isotypic.data.neural_field import ODD, NeuralField
from isotypic.nn.weights.space import WeightSpace


def _random(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    # Drawn where the generator lives, so that a seed means the same on every device.
    device = generator.device if generator is not None else like.device
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float32).to(like.device, like.dtype)


def permute_neurons(field: NeuralField, networks: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The hidden neurons of each network in an order of its own; the functions stay as they are.

    >>> field = NeuralField([2, 8, 8, 1])
    >>> networks = field.initial(3)
    >>> shuffled, points = permute_neurons(field, networks), torch.rand(5, 2)
    >>> torch.allclose(field.render(networks, points), field.render(shuffled, points), atol=1e-5)
    True
    """
    field.views(networks)
    orders = [_random((len(networks), width), networks, generator).argsort(1) for width in field.spec.hidden]
    return WeightSpace(networks.unsqueeze(-1), field.spec).permute(orders).flat.squeeze(-1)


def scale_neurons(field: NeuralField, networks: Tensor, factors: list[Tensor]) -> Tensor:
    """Multiplies what enters each hidden neuron and divides what leaves it: W_i, b_i by rows times s, W_{i+1} by columns over s.

    The function stays as it is where phi(s z) = s phi(z): for s = +-1 with an odd activation, for s > 0 with ReLU.

    Args:
        factors: one (N, d_i) for each hidden layer, not zero.

    Raises ValueError for factors of other shapes.
    """
    weights, biases = field.views(networks)
    weights, biases = list(weights), list(biases)
    shapes = [(len(networks), width) for width in field.spec.hidden]
    if [tuple(factor.shape) for factor in factors] != shapes:
        raise ValueError(f"scale_neurons: factors must have shapes {shapes}, got {[tuple(factor.shape) for factor in factors]}")
    for layer, factor in enumerate(factors):
        weights[layer] = weights[layer] * factor.unsqueeze(2)
        biases[layer] = biases[layer] * factor
        weights[layer + 1] = weights[layer + 1] / factor.unsqueeze(1)
    return torch.cat([part for pair in zip(weights, biases, strict=True) for part in (pair[0].flatten(1), pair[1])], 1)


def flip_signs(field: NeuralField, networks: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Turns the sign of half of the hidden neurons, drawn for each network; phi is odd, so the functions stay as they are.

    Raises ValueError when the activation is not odd.
    """
    if field.activation not in ODD:
        raise ValueError(f"flip_signs: the activation must be odd ({' or '.join(ODD)}), got {field.activation!r}")
    field.views(networks)
    signs = [1 - 2 * (_random((len(networks), width), networks, generator) < 0.5).to(networks.dtype) for width in field.spec.hidden]
    return scale_neurons(field, networks, signs)


def rescale_neurons(field: NeuralField, networks: Tensor, spread: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Scales each hidden ReLU by exp(u), u uniform within `spread`, and undoes it in the next layer; the functions stay as they are.

    Raises ValueError when the activation is not ReLU.
    """
    if field.activation != "relu":
        raise ValueError(f"rescale_neurons: the activation must be relu, got {field.activation!r}")
    if not 0 <= spread < math.inf:
        raise ValueError(f"rescale_neurons: spread must be at least 0 and finite, got {spread}")
    field.views(networks)
    factors = [(spread * (2 * _random((len(networks), width), networks, generator) - 1)).exp() for width in field.spec.hidden]
    return scale_neurons(field, networks, factors)


def wrap_phases(field: NeuralField, networks: Tensor) -> Tensor:
    """Takes the biases of hidden sines into half a period, |frequency b| <= pi / 2; the functions stay as they are.

    sin(z + k pi) = (-1)^k sin(z): a bias loses k half periods, and for odd k the weights that leave its neuron turn their sign. Biases that
    differ by periods mean the same, which a network that reads weights does not know. Exact up to rounding.

    Raises ValueError when the activation is not the sine.
    """
    if field.activation != "sine":
        raise ValueError(f"wrap_phases: the activation must be sine, got {field.activation!r}")
    field.views(networks)
    networks = networks.clone()
    weights, biases = field.views(networks)
    for layer in range(field.spec.depth - 1):
        turns = (biases[layer] * (field.frequency / math.pi)).round()
        biases[layer].sub_(turns * (math.pi / field.frequency))
        weights[layer + 1].mul_(1 - 2 * turns.remainder(2).unsqueeze(1))
    return networks


def orient_neurons(field: NeuralField, networks: Tensor) -> Tensor:
    """Chooses the sign of each hidden neuron; phi is odd, so the functions stay as they are.

    In the first hidden layer the weight from the first input becomes positive, in the others the sum of the outgoing weights. The choice
    does not depend on the order of neurons. After `wrap_phases` it leaves little of a sine network's freedom but the permutations.

    Raises ValueError when the activation is not odd.
    """
    if field.activation not in ODD:
        raise ValueError(f"orient_neurons: the activation must be odd ({' or '.join(ODD)}), got {field.activation!r}")
    for layer in range(field.spec.depth - 1):
        weights, biases = field.views(networks)
        deciding = weights[0][:, :, 0] if layer == 0 else weights[layer + 1].sum(1)
        factors = [torch.ones_like(bias) for bias in biases[:-1]]
        factors[layer] = 1 - 2 * (deciding < 0).to(networks.dtype)
        networks = scale_neurons(field, networks, factors)
    return networks


def transform_coordinates(field: NeuralField, networks: Tensor, matrix: Tensor, shift: Tensor | None = None) -> Tensor:
    """The networks of f(A x + t): W_1 <- W_1 A, b_1 <- b_1 + W_1 t. Exact.

    Args:
        matrix: A, (d_0, d_0) for all networks or (N, d_0, d_0).
        shift: t, (d_0) or (N, d_0); none by default.

    Raises ValueError for other shapes.
    """
    before, _ = field.views(networks)
    size, count = field.spec.in_features, len(networks)
    if tuple(matrix.shape) not in ((size, size), (count, size, size)):
        raise ValueError(
            f"transform_coordinates: matrix must have shape (d_0={size}, {size}) or (N={count}, {size}, {size}), got {tuple(matrix.shape)}"
        )
    if shift is not None and tuple(shift.shape) not in ((size,), (count, size)):
        raise ValueError(f"transform_coordinates: shift must have shape (d_0={size},) or (N={count}, {size}), got {tuple(shift.shape)}")
    networks = networks.clone()
    weights, biases = field.views(networks)
    weights[0].copy_(before[0] @ matrix.to(networks))
    if shift is not None:
        biases[0].add_((before[0] * shift.to(networks).expand(count, size).unsqueeze(1)).sum(2))
    return networks


def rotate_coordinates(field: NeuralField, networks: Tensor, degrees: Tensor | float) -> Tensor:
    """The networks of plane functions turned about the origin: f(R^-1 x), R the rotation from the first axis to the second.

    With the coordinates of `image_grid`, (row, column), that is counter-clockwise in the picture.

    Args:
        degrees: one angle, or (N).

    Raises ValueError when d_0 is not 2, for another shape, and for angles that are not finite.
    """
    if field.spec.in_features != 2:
        raise ValueError(f"rotate_coordinates: the networks must have d_0=2 inputs, got {field.spec.in_features}")
    field.views(networks)
    angles = torch.as_tensor(degrees, dtype=networks.dtype, device=networks.device) * (math.pi / 180)
    if angles.dim() and angles.shape != networks.shape[:1]:
        raise ValueError(f"rotate_coordinates: degrees must be a number or have shape (N={len(networks)},), got {tuple(angles.shape)}")
    if not angles.isfinite().all():
        raise ValueError("rotate_coordinates: degrees must be finite")
    cosine, sine = angles.cos(), angles.sin()
    return transform_coordinates(field, networks, torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2))


def random_motion(
    field: NeuralField,
    networks: Tensor,
    degrees: float = 15.0,
    shift: float = 0.1,
    zoom: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turns, shifts and zooms the plane function of each network by amounts of its own, uniform within the bounds.

    Args:
        degrees: largest angle. shift: largest translation along each axis. zoom: the largest change of the scale, below 1.

    Raises ValueError for a zoom outside [0, 1), bounds that are negative or not finite, and when d_0 is not 2.
    """
    field.views(networks)
    for name, bound in (("degrees", degrees), ("shift", shift)):
        if not 0 <= bound < math.inf:
            raise ValueError(f"random_motion: {name} must be at least 0 and finite, got {bound}")
    if not 0 <= zoom < 1:
        raise ValueError(f"random_motion: zoom must be in [0, 1), got {zoom}")
    draw = 2 * _random((len(networks), 4), networks, generator) - 1
    turned = rotate_coordinates(field, networks, degrees * draw[:, 0])
    scale = (1 + zoom * draw[:, 1])[:, None, None] * torch.eye(2, dtype=networks.dtype, device=networks.device)
    return transform_coordinates(field, turned, scale, shift * draw[:, 2:])


def add_noise(field: NeuralField, networks: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Adds Gaussian noise to each W_i and each b_i, of `scale` times the root mean square of its entries in each network.

    Raises ValueError for a scale that is negative or not finite.
    """
    field.views(networks)
    if not 0 <= scale < math.inf:
        raise ValueError(f"add_noise: scale must be at least 0 and finite, got {scale}")
    device = generator.device if generator is not None else networks.device
    noise = torch.randn(networks.shape, generator=generator, device=device).to(networks)
    for part in (*field.spec.weight_slices, *field.spec.bias_slices):
        noise[:, part] *= scale * networks[:, part].square().mean(1, keepdim=True).sqrt()
    return networks + noise


def mask_weights(field: NeuralField, networks: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Sets each weight and bias to zero with the probability, without scaling the others up.

    Raises ValueError for a probability outside [0, 1].
    """
    field.views(networks)
    if not 0 <= probability <= 1:
        raise ValueError(f"mask_weights: probability must be in [0, 1], got {probability}")
    return networks * (_random(tuple(networks.shape), networks, generator) >= probability)
