"""Flops of group convolutions: one product of channels for each irrep, tap in the support and position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from isotypic import groups as finite_groups
from isotypic._flops import flops
from isotypic.ops.fields import max_pool
from isotypic.ops.fields._arguments import NAMES, Settings, check_sizes
from isotypic.ops.fields.group_conv import convolve, convolve_transpose, convolve_weight

Shape = Sequence[int]


@lru_cache(maxsize=256)
def multiply_adds(key: str, field: str, kernel: tuple[int, ...]) -> int:
    """For a pair of fields at one position. A block of complex type and dimension 2 takes three real products."""
    group = finite_groups.get(key)
    taps = int(finite_groups.support(group, kernel).sum()) if field != "linear" else 1
    if field == "scalar":
        return taps * group.order
    return taps * sum(3 if (i.dim, i.rows) == (2, 1) else i.rows * i.dim**2 for i in group.irreps)


def _of(x: Shape, weight: Shape, settings: Sequence[Any]) -> int:
    checked = check_sizes(NAMES[settings[1]], Settings(*settings), x, weight)
    axes = 0 if settings[1] == "linear" else len(checked.kernel)
    taps = tuple(checked.kernel) if axes else ()
    positions = x[0] * prod(checked.out_size)
    return 2 * positions * weight[0] * weight[1] * multiply_adds(settings[0], settings[1], taps)


@flops(convolve)
def _group_conv(x: Shape, weight: Shape, bias: Shape | None, *settings: Any, out_shape: Shape) -> int:
    return _of(x, weight, settings)


@flops(convolve_transpose)
def _group_conv_transpose(y: Shape, weight: Shape, *settings: Any, out_shape: Shape) -> int:
    return _of(out_shape, weight, settings[:6])


@flops(convolve_weight)
def _group_conv_weight(x: Shape, y: Shape, *settings: Any, out_shape: Shape) -> int:
    return _of(x, out_shape, settings[:6])


@flops(max_pool.pooled, max_pool.scattered, max_pool.selected)
def _max_pool(*arguments: Any, out_shape: Any) -> int:
    """None, as for torch's own."""
    return 0
