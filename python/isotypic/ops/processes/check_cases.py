"""Cases of ``python -m isotypic check``: set convolutions and attention of pairs, by dense sums over all pairs, moved by a shift."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor, relative_error
from isotypic.ops.processes import reference

SHAPE = (6, 7)
HEADS = 2
SHIFT = 0.25  # exact in every dtype


def cases() -> list[CheckCase]:
    return [_set_conv(), _set_conv_decode(), _pair_attention()]


def _grid(like: Tensor, shift: float = 0.0) -> tuple[Tensor, ...]:
    return tuple(torch.arange(n, dtype=like.dtype, device=like.device) / 2 - 1.5 + shift for n in SHAPE)


def _points() -> tuple[Tensor, Tensor]:
    return random_tensor(2, 5, 2).tanh(), torch.tensor([0.3, 0.5], dtype=torch.float64)


def _set_conv() -> CheckCase:
    def kernel(x: Tensor, y: Tensor, lengthscale: Tensor) -> Tensor:
        return ops.set_conv(x, y, _grid(x), lengthscale, density=False)

    def dense(x: Tensor, y: Tensor, lengthscale: Tensor) -> Tensor:
        return reference.set_conv(y, x, lengthscale, _grid(x))

    def asymmetry(x: Tensor, y: Tensor, lengthscale: Tensor) -> float:
        moved = ops.set_conv(x + SHIFT, y, _grid(x, SHIFT), lengthscale, density=False)
        return relative_error(moved, kernel(x, y, lengthscale))

    x, lengthscale = _points()
    return CheckCase("set_conv", (x, random_tensor(2, 5, 3), lengthscale), kernel, dense, asymmetry)


def _set_conv_decode() -> CheckCase:
    def kernel(values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
        return ops.set_conv_decode(values, _grid(x), x, lengthscale)

    def dense(values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
        return reference.set_conv_decode(values, x, lengthscale, _grid(x))

    def asymmetry(values: Tensor, x: Tensor, lengthscale: Tensor) -> float:
        return relative_error(ops.set_conv_decode(values, _grid(x, SHIFT), x + SHIFT, lengthscale), kernel(values, x, lengthscale))

    x, lengthscale = _points()
    return CheckCase("set_conv_decode", (random_tensor(2, 3, *SHAPE), x, lengthscale), kernel, dense, asymmetry)


def _pair_attention() -> CheckCase:
    def kernel(q: Tensor, k: Tensor, v: Tensor, x_q: Tensor, x_k: Tensor, *layers: Tensor) -> Tensor:
        return ops.pair_attention(q, k, v, x_q, x_k, _mlp(layers))

    def dense(q: Tensor, k: Tensor, v: Tensor, x_q: Tensor, x_k: Tensor, *layers: Tensor) -> Tensor:
        return reference.pair_attention(q, k, v, x_q, x_k, _mlp(layers))

    def asymmetry(q: Tensor, k: Tensor, v: Tensor, x_q: Tensor, x_k: Tensor, *layers: Tensor) -> float:
        return relative_error(kernel(q, k, v, x_q + SHIFT, x_k + SHIFT, *layers), kernel(q, k, v, x_q, x_k, *layers))

    layers = random_tensor(8, 2 + HEADS), random_tensor(8), random_tensor(7, 8) / 3, random_tensor(7), random_tensor(HEADS, 7)
    q, (k, v) = random_tensor(2, HEADS, 5, 4), random_tensor(2, 2, HEADS, 6, 4)
    inputs = (q, k, v, random_tensor(2, 5, 2), random_tensor(2, 6, 2), *layers)
    return CheckCase("pair_attention", inputs, kernel, dense, asymmetry)


def _mlp(layers: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """The softmax does not see the last bias, whose gradient is zero: it is no input."""
    w1, b1, w2, b2, w3 = layers
    return [(w1, b1), (w2, b2), (w3, w3.new_ones(HEADS))]
