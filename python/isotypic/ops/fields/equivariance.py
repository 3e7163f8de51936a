"""Whether the sizes of a call keep the equivariance exact, and the warning where they do not.

Count positions from the centre of the inputs in halves of a step. On each axis the outputs then lie at first + 2 stride i with

    first = dilation (k - 1) - 2 padding - (size - 1),

and their centre lies at end - left, where ``end`` are zeros added behind the last position alone and left = (size + 2 padding + end -
dilation (k - 1) - 1) mod stride is what the last output leaves over. An element g that permutes and reverses axes takes these positions to
those of the moved input where the centre is 0 on every axis that g reverses. Other elements (of hexagonal groups) have to take the centre
to itself, and the positions to one another: (g - 1) first has to be a multiple of 2 stride.
"""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

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


def _report(operator: str, configuration: tuple[Any, ...], message: str, strict: bool) -> None:
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


def check_equivariance(operator: str, grid: Grid, size: tuple[int, ...], strict: bool) -> bool:
    """Whether the group maps the outputs for an input of this size to one another; warns once, or raises ValueError where ``strict``."""
    reason = _broken(grid, size)
    if reason:
        _report(operator, (grid, size), reason, strict)
    return not reason
