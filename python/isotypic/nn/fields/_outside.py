"""What lies outside: taps that a group moves out of a kernel's box, and values outside of the hexagon of a field."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic.ops.fields.equivariance import report


def check_taps(owner: str, group: groups.Group, kernel_size: tuple[int, ...], strict: bool) -> None:
    """Warns of a kernel whose outermost rows or columns hold no tap that stays in the box under the group; raises where strict."""
    used = groups.support(group, kernel_size)
    taps = np.argwhere(used)
    least = tuple(int(extent) for extent in taps.max(0) - taps.min(0) + 1)
    if least == tuple(kernel_size):
        return
    message = (
        f"{owner}: kernel_size {tuple(kernel_size)} keeps {len(taps)} of {used.size} taps, those that {group.name} does not move out of "
        f"the box; kernel_size {least} has the same"
    )
    if strict:
        raise ValueError(message)
    warnings.warn(f"{message}; strict=True makes this an error", UserWarning, stacklevel=4)


@lru_cache(maxsize=64)
def _outside(group: str, size: tuple[int, ...]) -> Tensor | None:
    """Where a grid lies outside of the hexagon; None for even sizes, which have no centre and are warned of elsewhere."""
    try:
        return torch.from_numpy(~groups.support(groups.get(group), size))
    except ValueError:
        return None


_KNOWN: set[tuple[Any, ...]] = set()


def _readable(x: Tensor) -> bool:
    """Whether the values of a tensor may be looked at. `plain` says no in a frame that torch compiles by itself, as those that are called
    from one that it has given up are."""
    return type(x) in (Tensor, nn.Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_outside(layer: Any, x: Tensor, dim: int, strict: bool) -> None:
    """Whether the input of a layer with padding is zero outside of the hexagon, which elements of the group move out of the array.

    Warns once for each configuration that has been seen with other values, and with strict raises at every call.
    """
    owner = type(layer).__name__
    if torch.compiler.is_compiling():
        if strict:
            raise ValueError(
                f"{owner}: a graph cannot tell whether the input of a layer with padding is zero outside of the hexagon, as strict=True "
                "asks; use FieldMask and strict=False"
            )
        return
    if not isinstance(x, Tensor) or x.dim() <= dim:
        return
    size = tuple(x.shape[-dim:])
    configuration = owner, layer.group, size, layer.padding
    if (not strict and configuration in _KNOWN) or not _readable(x) or x.is_meta or not x.numel():
        return
    outside = _outside(layer.group, size)
    if outside is None or not bool(outside.any()):
        return
    values = x.detach().ne(0)
    if bool((values & outside.to(x.device)).any()):
        message = (
            "with padding, the layer reads what lies outside of the hexagon of its input, which breaks exact equivariance; "
            f"FieldMask({size}, {layer.group_name!r}) in front of it keeps it"
        )
        report(owner, configuration, message, strict)
    if len(_KNOWN) < 4096 and bool(values.any()):
        _KNOWN.add(configuration)
