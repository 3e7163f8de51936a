"""Whether the sizes of a call keep the equivariance exact, and the warning where they do not.

Count positions from the centre of the inputs in halves of a step. On each axis the outputs then lie at first + 2 stride i with

    first = dilation (k - 1) - 2 padding - (size - 1),

and their centre lies at end - left, where ``end`` are zeros added behind the last position alone and left = (size + 2 padding + end -
dilation (k - 1) - 1) mod stride is what the last output leaves over. An element g that permutes and reverses axes takes these positions to
those of the moved input where the centre is 0 on every axis that g reverses. Other elements (of hexagonal groups) have to take the centre
to itself, and the positions to one another: (g - 1) first has to be a multiple of 2 stride.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from isotypic import groups as finite_groups
from isotypic._warnings import EquivarianceWarning


class Grid(NamedTuple):
    """What decides where the outputs of a convolution or of a pooling over windows lie."""

    group: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    end: tuple[int, ...] = ()
    """Zeros added behind the last position of each axis alone: padding="same" with an even kernel."""
    transposed: bool = False
    """The roles are exchanged: the size is that of the output, and what is left over is its output_padding."""


_WARNED: set[tuple[Any, ...]] = set()


def _caller() -> int:
    """The stack level, seen from the function that calls this one, of the first frame outside the package and torch."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("isotypic", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def report(operator: str, configuration: tuple[Any, ...], message: str, strict: bool) -> None:
    """Warn, once per configuration, or raise."""
    if strict:
        raise ValueError(f"{operator}: {message}")
    if (operator, configuration) not in _WARNED:
        warnings.warn(f"{operator}: {message}; strict=True makes this an error", EquivarianceWarning, stacklevel=_caller())
        if len(_WARNED) >= 4096:
            _WARNED.clear()
        _WARNED.add((operator, configuration))


@lru_cache(maxsize=1024)
def _broken(grid: Grid, size: tuple[int, ...]) -> str:
    """Why the outputs break the equivariance, and what would not; "" where they keep it."""
    group = finite_groups.get(grid.group)
    kernel, stride, padding, dilation = grid.kernel, grid.stride, grid.padding, grid.dilation
    elements, steps = group.elements, np.array(stride)
    end = np.array(grid.end or (0,) * group.dim)
    reach = np.array([2 * p - d * (k - 1) for p, d, k in zip(padding, dilation, kernel, strict=True)])  # size - 1 + reach = -first
    left = (np.array(size) - 1 + reach + end) % steps
    centre = end - left
    if group.preserves_axes:
        # Sizes are permuted with the axes, and what is left over with them; but no output_padding is.
        off = (elements < 0).any(axis=(0, 1)) & (centre != 0)
        period = steps
        if grid.transposed:
            off |= (np.abs(elements) @ left != left).any(axis=0)
    else:
        first = 1 - np.array(size) - reach
        off = (elements @ centre != centre).any() & (centre != 0)
        # With stride 1 every position is an output, and every position may be taken as the centre.
        off |= ((elements @ first - first) % (2 * steps) != 0).any(axis=0) & (steps > 1)
        period = 2 * steps
    if off.any():
        axis = int(np.argmax(off))
        if end.any():
            return f'padding="same" with kernel {kernel} pads unequally, which breaks exact equivariance; odd kernels keep it'
        if grid.transposed and left.any():
            return "output_padding moves the centre of the output, which breaks exact equivariance; output_padding=0 keeps it"
        smaller = size[axis] - int((size[axis] - 1 + reach[axis]) % period[axis])
        larger = smaller + int(period[axis])
        remedy = f"sizes {smaller} and {larger} keep it" if smaller > 0 else f"size {larger} keeps it"
        kind = "output size" if grid.transposed else "size"
        return (
            f"spatial axis {axis} of {kind} {size[axis]} with kernel {kernel[axis]}, stride {stride[axis]}, "
            f"padding {padding[axis]}, dilation {dilation[axis]} has outputs that are not centred on the inputs, which breaks exact "
            f"equivariance; {remedy}"
        )
    if (elements @ np.diag(reach) != np.diag(reach) @ elements).any():
        return (
            f"padding {padding} with kernel {kernel} reaches unequally far on axes that {group.name} exchanges, which breaks exact "
            "equivariance; equal 2 padding - dilation (kernel - 1) on these axes keeps it"
        )
    return ""


def _bad_sizes(*members: Any) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Of the members of a `Grid`: the periods with which sizes keep or break the equivariance, and the sizes modulo these that break it."""
    grid = Grid(*members)
    periods = tuple(2 * step for step in grid.stride)
    reach = 1 + sum(grid.padding) + sum(d * k for d, k in zip(grid.dilation, grid.kernel, strict=True))
    residues = itertools.product(*map(range, periods))
    return periods, tuple(r for r in residues if _broken(grid, tuple(p * reach + n for p, n in zip(periods, r, strict=True))))


# What torch.compiler.assume_constant_result does, without loading the compiler: a traced call is computed, not traced.
_bad_sizes._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _untraced() -> Callable[[Grid, tuple[int, ...]], str]:
    """`_broken` such that a compiler does not look into it, where a graph was broken on the way here."""
    return torch._dynamo.disable(_broken)


def check_equivariance(operator: str, grid: Grid, size: tuple[int, ...], strict: bool) -> bool:
    """Whether the group maps the outputs for an input of this size to one another; warns once, or raises ValueError where ``strict``.

    While a graph is traced there are no warnings. A strict call raises there too, by sizes alone, which may be symbols.
    """
    if torch.compiler.is_compiling():
        if strict:
            periods, bad = _bad_sizes(grid.group, grid.kernel, grid.stride, grid.padding, grid.dilation, grid.end, grid.transposed)
            for residues in bad:
                if all(n % period == r for n, period, r in zip(size, periods, residues, strict=True)):
                    raise ValueError(
                        f"{operator}: spatial size {tuple(size)} breaks exact equivariance, which strict=True makes an error; outside of a "
                        "graph the error says which sizes keep it"
                    )
        return False
    reason = _untraced()(grid, size) if "torch._dynamo" in sys.modules else _broken(grid, size)
    if reason:
        report(operator, (grid, size), reason, strict)
    return not reason
