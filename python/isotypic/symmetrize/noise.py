"""Counter-based noise: every number is a function of (seed, sample id, number of the draw, node id), whatever else is in the batch.

The function is splitmix64's finaliser, applied once for each key (G. Steele et al., "Fast splittable pseudorandom number generators",
2014).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", int, Tensor)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mix(z: T) -> T:
    """A bijection of 64-bit integers; int64 wraps, and the shifts are made logical by a mask."""
    z = _wrap((z ^ ((z >> 30) & (2**34 - 1))) * _FIRST)
    z = _wrap((z ^ ((z >> 27) & (2**37 - 1))) * _SECOND)
    return z ^ ((z >> 31) & (2**33 - 1))


def _wrap(z: T) -> T:
    return z if isinstance(z, Tensor) else _signed(z % 2**64)


def _fold(key: T, value: T) -> T:
    """A new key for each value: tensors, or Python's integers."""
    return _mix(_mix(_wrap(value * _GOLDEN + 1)) ^ key)


def _uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """In the open interval (0, 1): multiples of 2^-23, or of 2^-52 in float64, plus half of one."""
    digits = 52 if dtype == torch.float64 else 23
    number = (bits >> (64 - digits)) & (2**digits - 1)
    exact = number.to(torch.float64 if digits == 52 else torch.float32)
    return ((exact + 0.5) * 2.0**-digits).to(dtype)


class Noise:
    """The noise of a batch.

    Args:
        seed: any integer.
        sample_ids: (B,) int64. node_ids: (B, n) int64, or None where there are no nodes.
        dtype: of the numbers; the 16-bit types are rounded from float32, and uniform numbers are float32 there: rounded ones would tie, and
            be 1.
    """

    def __init__(self, seed: int, sample_ids: Tensor, node_ids: Tensor | None, dtype: torch.dtype) -> None:
        self.seed, self.sample_ids, self.node_ids, self.dtype = seed, sample_ids, node_ids, dtype
        self._wide = dtype if dtype == torch.float64 else torch.float32

    def nodes(self, first: int, k: int, channels: int) -> Tensor:
        """(B, k, n, channels), uniform on (0, 1), of the draws first ... first + k - 1. It moves with the nodes."""
        return _uniform(self._keys((1,), first, k, channels, nodes=True)[0], self._wide)

    def vectors(self, first: int, k: int, d: int, channels: int) -> Tensor:
        """(B, k, d, channels), standard normal. It turns with the input."""
        return self._normal(2, first, k, d * channels, False).unflatten(-1, (d, channels))

    def node_vectors(self, first: int, k: int, d: int, channels: int) -> Tensor:
        """(B, k, n, d, channels), standard normal. It moves with the nodes and turns with the input."""
        return self._normal(4, first, k, d * channels, True).unflatten(-1, (d, channels))

    def index(self, first: int, k: int, order: int) -> Tensor:
        """(B, k) int64, uniform on 0 ... order - 1. It is multiplied by group elements from the left."""
        return (_uniform(self._keys((6,), first, k, 1, False)[0, ..., 0], torch.float64) * order).long().clamp_(max=order - 1)

    def invariant(self, first: int, k: int, channels: int) -> Tensor:
        """(B, k, channels), uniform on (0, 1). No group acts on it."""
        return _uniform(self._keys((7,), first, k, channels, False)[0], self._wide)

    def element(self) -> Tensor | None:
        """(B, 1, d, d): what the input was moved by; None where it was not."""
        return None

    def moved(self, g: Any) -> MovedNoise:
        """The noise that moves along with an input moved by g, ``Elements`` with one draw for each sample."""
        return MovedNoise(self, g)

    def select(self, rows: Tensor) -> Noise:
        """The noise of these samples."""
        return Noise(self.seed, self.sample_ids[rows], None if self.node_ids is None else self.node_ids[rows], self.dtype)

    def _normal(self, stream: int, first: int, k: int, channels: int, nodes: bool) -> Tensor:
        radius, angle = _uniform(self._keys((stream, stream + 1), first, k, channels, nodes), self._wide)
        return (radius.log().mul_(-2).sqrt_() * angle.mul_(2 * math.pi).cos_()).to(self.dtype)

    def _keys(self, streams: tuple[int, ...], first: int, k: int, channels: int, nodes: bool) -> Tensor:
        """(streams, B, k, channels), or (streams, B, k, n, channels)."""
        device = self.sample_ids.device
        seed = _signed(self.seed % 2**64)
        start = torch.tensor([_fold(seed, stream) for stream in streams], device=device)
        key = _fold(start[:, None], self.sample_ids)
        key = _fold(key[..., None], torch.arange(first, first + k, device=device))
        if nodes:
            if self.node_ids is None:
                raise ValueError("Noise: node_ids must be given for noise of nodes")
            key = _fold(key[..., None], self.node_ids[:, None])
        return _fold(key[..., None], torch.arange(channels, device=device))


class MovedNoise(Noise):
    """The noise after an element of the group for each sample: with it, phi(g x; g eps) = g phi(x; eps) holds to rounding.

    Args:
        noise: of the unmoved input.
        g: ``Elements`` with one draw for each sample.
    """

    def __init__(self, noise: Noise, g: Any) -> None:
        if g.count != 1:
            raise ValueError(f"MovedNoise: g must have one element for each sample, got {g.count}")
        super().__init__(noise.seed, noise.sample_ids, noise.node_ids, noise.dtype)
        self._noise, self._g = noise, g

    def nodes(self, first: int, k: int, channels: int) -> Tensor:
        return self._g.move(self._noise.nodes(first, k, channels), ("node",), False)

    def vectors(self, first: int, k: int, d: int, channels: int) -> Tensor:
        return self._g.move(self._noise.vectors(first, k, d, channels).mT, ("vector",), False).mT

    def node_vectors(self, first: int, k: int, d: int, channels: int) -> Tensor:
        return self._g.move(self._noise.node_vectors(first, k, d, channels).mT, ("node", "vector"), False).mT

    def index(self, first: int, k: int, order: int) -> Tensor:
        index = self._noise.index(first, k, order)
        for part in self._g.parts:
            if hasattr(part, "index"):
                return torch.from_numpy(part.group.multiply.copy()).to(index.device)[part.index, index]
        return index

    def element(self) -> Tensor | None:
        before = self._noise.element()
        matrix = next((part.matrix for part in self._g.parts if hasattr(part, "matrix")), None)
        return before if matrix is None else matrix if before is None else matrix @ before

    def select(self, rows: Tensor) -> Noise:
        raise ValueError("MovedNoise: noise that is moved must be used whole, without a tolerance")

    def invariant(self, first: int, k: int, channels: int) -> Tensor:
        return self._noise.invariant(first, k, channels)
