"""Places of a network where a fixed input may enter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Site(NamedTuple):
    """A place where `relax` may add a fixed input: the output of a submodule.

    A model lists its places in `relax_sites`, a mapping (or a property) from names of submodules to `Site`. The layout of the output
    follows from the coordinates: with a grid it is (B, channels, *components, *shape), with positions of tokens
    (B, N, channels, *components).

    Args:
        coordinates: a function of the inputs of the model that gives the coordinates of the place: a tuple of d tensors (n_i,), the
            axes of a grid, or a tensor (B, N, d) or (N, d). "pixels" stands for the positions of the output's own grid about its
            centre, in units of half its longest side. None where the input is a constant (dim_x=0) for tokens.
        channels: number of channels at the place.
        representation: as of `FixedInput`.
        output: which of its outputs, where the submodule returns a tuple.
    """

    coordinates: Callable[..., Any] | str | None
    channels: int | None = None
    representation: str = "scalar"
    output: int | None = None
