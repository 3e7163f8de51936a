"""Checks of constructor arguments that the modules share; shapes and dtypes of tensors are checked by `isotypic.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isotypic import groups
from isotypic.ops._arguments import report

PADDING_MODES = ("zeros", "circular", "reflect")


def resolve_group(owner: str, group: str | groups.Group, dim: int | None = None) -> groups.Group:
    """The group, checked to act on `dim` spatial axes (None: any); an unknown name is a ValueError that lists the known ones."""
    resolved = groups.get(group)
    if dim is not None and resolved.dim != dim:
        raise ValueError(f"{owner}: group must act on {dim} spatial axes, but {resolved.name} acts on {resolved.dim}")
    return resolved


def positive(owner: str, **counts: int) -> None:
    """Raises unless every count is a positive integer."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"{owner}: {name} must be a positive integer, got {count!r}")


def check_tensor(owner: str, name: str, value: Any, floating: bool = False) -> None:
    """Raises unless the value is a tensor, where asked of a floating-point dtype."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if floating and not value.is_floating_point():
        raise TypeError(f"{owner}: {name} must be of a floating-point dtype, got {value.dtype}")


def same_dtype(owner: str, name: str, value: Tensor, parameter: Tensor | None) -> None:
    """Raises unless the value has the dtype and device of a parameter; autocast sees to the dtype itself."""
    if parameter is None:
        return
    if value.device != parameter.device:
        raise ValueError(f"{owner}: {name} must be on the device of the parameters, {parameter.device}, got {value.device}")
    if value.dtype != parameter.dtype and not torch.is_autocast_enabled(value.device.type):
        raise TypeError(f"{owner}: {name} must have the dtype of the parameters, {parameter.dtype}, got {value.dtype}")


def divisible(owner: str, groups: int, **fields: int) -> None:
    """Raises unless `groups` divides every number of fields."""
    for name, count in fields.items():
        if count % groups:
            raise ValueError(f"{owner}: {name}={count} must be divisible by groups={groups}")


def per_axis(owner: str, name: str, value: int | Sequence[int], dim: int, minimum: int) -> tuple[int, ...]:
    """One integer of at least `minimum` for each of the `dim` spatial axes."""
    entries = (value,) * dim if isinstance(value, (int, np.integer)) else tuple(value)
    valid = all(isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) for entry in entries)
    if len(entries) != dim or not valid or any(entry < minimum for entry in entries):
        raise ValueError(f"{owner}: {name} must be an integer or {dim} integers, each at least {minimum}, got {value!r}")
    return tuple(int(entry) for entry in entries)


def check_strides(
    owner: str, size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int], strict: bool
) -> None:
    """Warns, or raises when `strict`, unless the strided grid keeps the centre: the stride divides size + 2 padding - window."""
    if torch.compiler.is_compiling():
        return
    reach = tuple(n + 2 * p - w for n, w, p in zip(size, window, padding, strict=True))
    if any(extent % step for extent, step in zip(reach, stride, strict=True)):
        message = (
            f"size {tuple(size)} with stride {tuple(stride)} is equivariant only approximately, because the outputs are not centred on the "
            f"inputs; sizes keep it when the stride divides size + 2 * padding - window, which is {reach}"
        )
        report(owner, (tuple(size), tuple(window), tuple(stride), tuple(padding)), message, strict)


def check_exchanged(owner: str, group: groups.Group, **values: Sequence[int]) -> None:
    """Raises unless each argument is the same on all axes that the group exchanges."""
    mixed = (group.elements != 0).any(axis=0)
    for name, value in values.items():
        if any(mixed[i, j] and value[i] != value[j] for i in range(group.dim) for j in range(group.dim)):
            raise ValueError(f"{owner}: {name} must be equal on the axes that {group.name} exchanges, got {tuple(value)}")


def check_reflect(owner: str, group: groups.Group, padding_mode: str) -> None:
    """Raises for reflection at the sides of a box that the group does not leave invariant."""
    if padding_mode == "reflect" and not preserves_axes(group):
        raise ValueError(
            f'{owner}: padding_mode "reflect" is not equivariant under {group.name}, which moves the sides of the box; use "zeros"'
        )


def preserves_axes(group: groups.Group) -> bool:
    """Whether every element maps coordinate axes to coordinate axes (signed permutations), so that boxes of equal sides are invariant."""
    return bool((np.abs(group.elements).sum(axis=-1) == 1).all())
