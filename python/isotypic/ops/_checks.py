"""Checks that all operators share, and their words: what kind of tensor, integer, flag or group an argument has to be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from isotypic import groups as finite_groups

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def resolve_group(operator: str, group: Any) -> finite_groups.Group:
    """The group of a name, key or group, with errors that name the operator."""
    try:
        return finite_groups.get(group)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{operator}: {error}") from None


_LARGEST = 2**31 - 1  # of a setting on one axis; sizes of that order are beyond every tensor


def per_axis(operator: str, name: str, value: Any, axes: int, minimum: int) -> tuple[int, ...]:
    """An integer or a sequence of one integer per axis, as a tuple."""
    entries = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,) * axes
    valid = len(entries) == axes and all(isinstance(e, (int, torch.SymInt, np.integer)) and not isinstance(e, bool) for e in entries)
    if not valid or any(entry < minimum for entry in entries):
        several = f" or {axes} of them" if axes > 1 else ""
        raise ValueError(f"{operator}: {name} must be an integer >= {minimum}{several}, got {value!r}")
    if any(entry > _LARGEST for entry in entries):
        raise ValueError(f"{operator}: {name} must be at most {_LARGEST}, got {value!r}")
    return tuple(int(e) if isinstance(e, np.integer) else e for e in entries)


def is_integer(value: Any) -> bool:
    """An integer of Python or numpy, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_integers(operator: str, **settings: Any) -> None:
    """That none is a bool or a float: a dictionary takes these for the integer they equal, and a repeated call would not differ."""
    for name, value in settings.items():
        entries = value if isinstance(value, (tuple, list)) else (value,)
        if any(isinstance(entry, (bool, float)) for entry in entries):
            raise ValueError(f"{operator}: {name} must be an integer, or one integer for each axis, got {value!r}")


def check_flag(operator: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{operator}: {name} must be True or False, got {value!r}")


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on for a type of device; some types (meta) have none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """As torch.autocast(device, enabled=False), which refuses the types of device that have none."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def all_finite(x: Tensor) -> bool:
    """Whether all numbers of a floating-point tensor are finite: their sum is not where one is not, or where it overflows."""
    x = x.detach()
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def check_tensors(operator: str, tensors: dict[str, Any]) -> None:
    """That all are tensors of one supported dtype on one device; the first one is x and the last one may be None (a bias).

    Under autocast floating dtypes may differ, because autocast makes them equal; float64 it leaves alone.
    """
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor is None and name == "bias":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operator}: {name} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.is_nested:
            raise TypeError(f"{operator}: {name} must be a dense (strided) tensor, got a nested one")
        if tensor.dtype not in DTYPES:
            supported = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise TypeError(f"{operator}: {name} must have a dtype of {supported}, got {str(tensor.dtype).removeprefix('torch.')}")
        if tensor.layout is not torch.strided:
            raise TypeError(f"{operator}: {name} must be a dense (strided) tensor, got layout {tensor.layout}")
        if tensor.device != first.device:
            raise ValueError(f"{operator}: {name} must be on the device of {first_name}, {first.device}, got {tensor.device}")
        if tensor.dtype != first.dtype and not (autocast_enabled(first.device.type) and torch.float64 not in (tensor.dtype, first.dtype)):
            raise TypeError(f"{operator}: {name} must have the dtype of {first_name}, {first.dtype}, got {tensor.dtype}")


T = TypeVar("T")
_RECALLED: dict[tuple[Any, ...], Any] = {}
_RECALLED_LIMIT = 4096


def recall(prepare: Callable[..., T], x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> T:
    """``prepare(x, weight, bias, *rest)``, computed once for all tensors of the same shapes and all x of the same dtype and device.

    While a graph is traced every call is checked. Otherwise it remains to be checked that the dtypes and devices of a repeated call agree:
    by the kernel, or by :func:`check_tensors`.
    """
    if torch.compiler.is_compiling():
        return prepare(x, weight, bias, *rest)
    try:
        call = (prepare, x.shape, weight.shape, None if bias is None else bias.shape, x.dtype, x.device, rest)
        found: T | None = _RECALLED.get(call)
        if found is not None:
            return found
    # No tensor, an unhashable list, a symbolic size, a nested tensor: the checks know what to say.
    except (AttributeError, TypeError, RuntimeError):
        return prepare(x, weight, bias, *rest)
    prepared = prepare(x, weight, bias, *rest)
    if len(_RECALLED) >= _RECALLED_LIMIT:
        _RECALLED.clear()
    _RECALLED[call] = prepared
    return prepared
