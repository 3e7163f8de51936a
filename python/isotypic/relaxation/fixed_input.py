"""A fixed input: a small network of the coordinates alone, zero at the start."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic.ops._checks import without_autocast


def components(owner: str, representation: str, dim_x: int) -> tuple[int, ...]:
    """The axes of one channel in a representation: () of scalars, (d,) of vectors, (16,) of multivectors, (|G|,) of a regular field."""
    known = {"scalar": (), "vector": (dim_x,), "multivector": (16,)}
    if representation in known:
        return known[representation]
    try:
        return (groups.get(representation).order,)
    except (ValueError, TypeError) as error:
        names = ", ".join(f'"{name}"' for name in known)
        raise ValueError(f"{owner}: representation must be one of {names} or a group, got {representation!r}: {error}") from None


class FixedInput(nn.Module):
    """A function t(x) of the coordinates with values in the representation of the place where `relax` adds it.

    t is an MLP of x and of sin(2^k pi x) / 2^k, cos(2^k pi x) / 2^k, k = 0 ... frequencies - 1, with x scaled so that the domain is
    [-1, 1]^d. Its last layer is zero at the start, so that a relaxed network starts as exactly the strict one. With dim_x=0 it is a
    learnable constant: that breaks a group that turns or reflects the whole input (its pose), and depends on no place.

    Args:
        dim_x: number of coordinates, d.
        channels: number of values of the representation at each place, C.
        representation: "scalar", "vector" (d components), "multivector" (16), or a group, its name or key, for regular fields of it.
        hidden: width of the MLP; layers: number of hidden layers; frequencies: number of octaves.

    Input:  coordinates (..., d)
    Output: (..., C), or (..., C, components)
    Raises ValueError for sizes that fit no network.

    M. Ashman et al., "Approximately Equivariant Neural Processes", 2024.

    >>> FixedInput(dim_x=2, channels=3, representation="p4m")(torch.randn(5, 2)).shape
    torch.Size([5, 3, 8])
    """

    centre: Tensor
    half_width: Tensor

    def __init__(
        self,
        dim_x: int,
        channels: int,
        representation: str | groups.Group = "scalar",
        *,
        hidden: int = 64,
        layers: int = 2,
        frequencies: int = 4,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("dim_x", dim_x, 0),
            ("channels", channels, 1),
            ("hidden", hidden, 1),
            ("layers", layers, 1),
            ("frequencies", frequencies, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"FixedInput: {name} must be an integer of at least {least}, got {value!r}")
        self.dim_x, self.channels, self.frequencies = dim_x, channels, frequencies
        self.representation = representation.key if isinstance(representation, groups.Group) else representation
        self.components = components("FixedInput", self.representation, dim_x)
        outputs = channels * math.prod(self.components)
        self.constant: nn.Parameter | None = None
        self.network: nn.Sequential | None = None
        self.register_buffer("centre", torch.zeros(dim_x))
        self.register_buffer("half_width", torch.ones(dim_x))
        if dim_x == 0:
            self.constant = nn.Parameter(torch.zeros(channels, *self.components))
            return
        sizes = [dim_x * (1 + 2 * frequencies)] + [hidden] * layers
        steps: list[nn.Module] = []
        for inputs, width in itertools.pairwise(sizes):
            steps += [nn.Linear(inputs, width), nn.SiLU()]
        last = nn.Linear(hidden, outputs)
        self.network = nn.Sequential(*steps, last)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.zero_()

    def scale_to(self, lo: Tensor, hi: Tensor) -> None:
        """Scales the coordinates so that the box lo <= x <= hi becomes [-1, 1]^d."""
        if self.dim_x:
            self.centre = ((lo + hi) / 2).to(self.centre)
            self.half_width = ((hi - lo) / 2).to(self.half_width)

    def forward(self, x: Tensor | None = None) -> Tensor:
        if self.constant is not None:
            return self.constant
        if x is None or x.shape[-1] != self.dim_x:
            found = None if x is None else tuple(x.shape)
            raise ValueError(f"FixedInput: coordinates must have shape (..., d={self.dim_x}), got {found}")
        assert self.network is not None
        wide = torch.promote_types(self.centre.dtype, torch.float32)
        # The clamp: far outside the domain, where the result is not used, sines of large numbers would say nothing.
        scaled = ((x.to(wide) - self.centre) / self.half_width).clamp(-8, 8)
        # Smaller the faster they vary, so that what is learned first is smooth.
        features = [scaled]
        for factor in (2.0**octave for octave in range(self.frequencies)):
            angle = factor * math.pi * scaled
            features += [torch.sin(angle) / factor, torch.cos(angle) / factor]
        with without_autocast(x.device.type):  # it costs little, and 16 bits do not tell near places apart
            values = self.network(torch.cat(features, -1).to(self.centre.dtype))
        return values.unflatten(-1, (self.channels, *self.components))

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        text = f"dim_x={self.dim_x}, channels={self.channels}"
        return text if self.representation == "scalar" else f"{text}, representation={self.representation!r}"
