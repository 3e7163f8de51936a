"""The quadratic layer of networks on binary forms: transvectants of all pairs, mixed over channels and paths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isotypic import ops
from isotypic.nn._arguments import check_tensor, parameter, positive
from isotypic.ops._checks import is_integer


def _degrees(name: str, value: Any) -> list[int]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"Transvectants: {name} must be a sequence of integers, got {value!r}")
    degrees = list(value)
    if not degrees or not all(is_integer(degree) and degree >= 0 for degree in degrees):
        raise ValueError(f"Transvectants: {name} must hold integers of at least 0, got {degrees!r}")
    return [int(degree) for degree in degrees]


class Transvectants(nn.Module):
    """Channel-wise transvectants of all pairs of forms, mixed over channels and paths for each degree; equivariant under SL(2, R).

    y_D[o] = sum_{c, paths to D} weight[c, path, o] (f_s[c], f_t[c])_k  (+ sum_c weight[c, s, o] f_s[c]  where m_s = D, with `skip`)

    A feature is a list of forms in scaled coordinates (`isotypic.sl2.to_scaled`), one after the other. The transvectants that vanish,
    (f, f)_k for odd k, take no weights.

    Args:
        degrees_in: degrees of the forms of the input, in their order.
        max_degree: results of a higher degree are left out.
        channels: C, of the input.
        out_channels: O, by default C.
        degrees_out: keep only these degrees, a subset of those that are reached.
        skip: the forms of the input take part in the mix themselves, which is a skip connection by concatenation.
        device, dtype: of the parameter.

    Input:  (B, C, sum of (m + 1) over degrees_in)
    Output: (B, O, sum of (D + 1) over the attribute degrees_out), in increasing order of D
    Raises ValueError for arguments that fit no layer, and for inputs of another shape; TypeError for degrees that are no sequence.

    H. Lawrence, M. T. Harris, "Learning Polynomial Problems with SL(2, R) Equivariance", 2024.

    >>> layer = Transvectants([4], max_degree=6, channels=3)
    >>> layer.degrees_out, layer(torch.zeros(2, 3, 5)).shape
    ((0, 4), torch.Size([2, 3, 6]))
    """

    def __init__(
        self,
        degrees_in: Sequence[int],
        max_degree: int,
        channels: int,
        out_channels: int | None = None,
        degrees_out: Sequence[int] | None = None,
        skip: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        positive("Transvectants", channels=channels, out_channels=out_channels)
        degrees_in = _degrees("degrees_in", degrees_in)
        if degrees_out is not None:
            degrees_out = _degrees("degrees_out", degrees_out)
        (max_degree,) = _degrees("max_degree", [max_degree])
        self.degrees_in, self.max_degree, self.skip = tuple(degrees_in), max_degree, skip
        self.channels, self.out_channels = int(channels), int(out_channels)
        slots = list(self.degrees_in)
        paths = ops.transvectant_paths(slots, max_degree)
        if skip:
            # With one form more, the constant 1 of degree 0, the forms themselves are transvectants too: (f_s, 1)_0 = f_s.
            paths += [(s, len(slots), 0) for s, degree in enumerate(slots) if degree <= max_degree]
            slots.append(0)
        self._slots = tuple(slots)
        reached = {path: slots[path[0]] + slots[path[1]] - 2 * path[2] for path in paths}
        wanted = sorted(set(reached.values()))
        if degrees_out is not None:
            if not set(degrees_out) <= set(wanted):
                raise ValueError(f"Transvectants: degrees_out must be among those reached, {wanted}, got {list(degrees_out)}")
            wanted = sorted(set(degrees_out))
        self.degrees_out = tuple(wanted)
        self.paths = tuple(sorted((path for path in paths if reached[path] in wanted), key=lambda path: (reached[path], path)))
        self.weight = nn.Parameter(torch.empty((self.channels, len(self.paths), self.out_channels), device=device, dtype=dtype))
        self._fan_in = [self.channels * sum(reached[other] == reached[path] for other in self.paths) for path in self.paths]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform, of variance 1 / (channels * paths to the degree): Clebsch-Gordan matrices keep the variance of independent forms."""
        with torch.no_grad():
            for path, fan_in in enumerate(self._fan_in):
                bound = math.sqrt(3 / fan_in)
                self.weight[:, path].uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor("Transvectants", "x", x)
        size = sum(self.degrees_in) + len(self.degrees_in)
        if x.dim() != 3 or x.shape[1] != self.channels or x.shape[2] != size:
            raise ValueError(
                f"Transvectants: x must have shape (B, C={self.channels}, F={size}) for forms of degrees {list(self.degrees_in)}, "
                f"got {tuple(x.shape)}"
            )
        if self.skip:
            x = torch.cat([x, x.new_ones(x.shape[0], x.shape[1], 1)], dim=-1)
        return ops.transvectants(x, parameter(self, "weight"), degrees=self._slots, paths=self.paths)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        degrees = f"{list(self.degrees_in)} -> {list(self.degrees_out)}"
        return f"{degrees}, channels={self.channels}, out_channels={self.out_channels}, max_degree={self.max_degree}, skip={self.skip}"
