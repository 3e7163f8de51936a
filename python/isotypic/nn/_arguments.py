"""Checks that the modules share, and their messages: of constructor arguments, and of what an input is before `isotypic.ops` sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isotypic import groups
from isotypic._words import PaddingMode
from isotypic.ops._checks import DTYPES, is_integer

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")


def resolve_group(owner: str, group: str | groups.Group, dim: int | None = None) -> groups.Group:
    """The group, checked to act on `dim` spatial axes (None: any); an unknown name is a ValueError that lists the known ones."""
    try:
        resolved = groups.get(group)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{owner}: {error}") from None
    if dim is not None and resolved.dim != dim:
        raise ValueError(f"{owner}: group must act on {dim} spatial axes, but {resolved.name} acts on {resolved.dim}")
    return resolved


def parameter(module: nn.Module, name: str) -> Any:
    """``getattr(module, name)`` of a parameter, None among them: `nn.Module` takes longer to find one than a short call takes."""
    own = module._parameters
    return own[name] if name in own else getattr(module, name)


def positive(owner: str, **counts: int) -> None:
    """Raises unless every count is a positive integer."""
    for name, count in counts.items():
        if not is_integer(count) or count < 1:
            raise ValueError(f"{owner}: {name} must be a positive integer, got {count!r}")


def number(owner: str, least: float, most: float = math.inf, **values: float) -> None:
    """Raises unless every value is a finite number from `least` to `most`."""
    for name, value in values.items():
        valid = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not valid or not least <= value <= most or math.isinf(value):
            expected = f"at least {least} and finite" if math.isinf(most) else f"a number in [{least}, {most}]"
            raise ValueError(f"{owner}: {name} must be {expected}, got {value!r}")


def positive_number(owner: str, **values: float) -> None:
    """Raises unless every value is a positive finite number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"{owner}: {name} must be a positive, finite number, got {value!r}")


def check_tensor(owner: str, name: str, value: Any, floating: bool = False) -> None:
    """Raises unless the value is a tensor, where asked of a floating-point dtype."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{owner}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if floating and not value.is_floating_point():
        raise TypeError(f"{owner}: {name} must be of a floating-point dtype, got {value.dtype}")


def same_dtype(owner: str, name: str, value: Tensor, parameter: Tensor | None, wider: bool = False) -> None:
    """Raises unless the value has the dtype and device of a parameter; autocast sees to the dtype itself.

    wider: a parameter of float32 serves values of 16 bits too.
    """
    if parameter is None:
        return
    if value.device != parameter.device:
        raise ValueError(f"{owner}: {name} must be on the device of the parameters, {parameter.device}, got {value.device}")
    if wider and parameter.dtype == torch.float32 and value.dtype in (torch.bfloat16, torch.float16):
        return
    if value.dtype != parameter.dtype and not torch.is_autocast_enabled(value.device.type):
        raise TypeError(f"{owner}: {name} must have the dtype of the parameters, {parameter.dtype}, got {value.dtype}")


def divisible(owner: str, groups: int, **fields: int) -> None:
    """Raises unless `groups` divides every number of fields."""
    for name, count in fields.items():
        if count % groups:
            raise ValueError(f"{owner}: {name}={count} must be divisible by groups={groups}")


def per_axis(owner: str, name: str, value: int | Sequence[int], dim: int, minimum: int) -> tuple[int, ...]:
    """One integer of at least `minimum` for each of the `dim` spatial axes."""
    entries = tuple(value) if isinstance(value, Iterable) else (value,) * dim
    if len(entries) != dim or not all(map(is_integer, entries)) or any(entry < minimum for entry in entries):
        raise ValueError(f"{owner}: {name} must be an integer or {dim} integers, each at least {minimum}, got {value!r}")
    return tuple(int(entry) for entry in entries)


def check_support(owner: str, group: groups.Group, kernel_size: tuple[int, ...]) -> None:
    """Raises for a kernel without a tap that the group keeps in the box."""
    try:
        groups.support(group, kernel_size)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from None


def check_dtype(owner: str, dtype: torch.dtype | None) -> None:
    """Raises for parameters of a dtype that no kernel takes; None is torch's default."""
    if dtype is not None and dtype not in DTYPES:
        supported = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        raise TypeError(f"{owner}: dtype must be one of {supported}, got {str(dtype).removeprefix('torch.')}")


def check_field(owner: str, x: Tensor, sizes: tuple[int, ...], dim: int | None, group: str = "") -> None:
    """Raises unless x is (B, *sizes, *spatial) with `dim` spatial axes (None: any); sizes are those of C, or of C and |G|."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{owner}: input must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested:  # without sizes; the operator says what it takes
        return
    lead = 1 + len(sizes)
    if tuple(x.shape[1:lead]) != sizes or (dim is not None and x.dim() != lead + dim):
        named = [f"{name}={size}" for name, size in zip(("C", "|G|"), sizes, strict=False)]
        space = ["*spatial"] if dim is None else ["D", "H", "W"][-dim:]
        raise ValueError(
            f"{owner}: input must have shape (B, {', '.join(named + space)}), got {tuple(x.shape)}{_what_it_is(x, sizes, dim, group)}"
        )


def _what_it_is(x: Tensor, sizes: tuple[int, ...], dim: int | None, group: str) -> str:
    """What an input of a wrong shape looks like, and what takes it."""
    if dim is None or not group:
        return ""
    if len(sizes) == 2 and x.dim() == dim + 2:
        return f"; it looks like images (B, C, *spatial): use LiftConv{dim}d, which makes fields of {group} of them"
    if len(sizes) == 1 and x.dim() == dim + 3:
        return f"; it looks like a field with |G|={x.shape[2]}: use GroupConv{dim}d"
    if len(sizes) == 2 and x.dim() == dim + 3 and x.shape[2] != sizes[1]:
        return f"; it looks like a field of another group, the layer is for {group}"
    return ""


def relabelled(error: Exception, layer: str, owner: str) -> Exception:
    """The error of a layer's constructor, in the name of what called it."""
    return type(error)(f"{owner}: {str(error).removeprefix(f'{layer}: ')}")


def check_initialised(owner: str, name: str, layer: nn.Module) -> None:
    """Raises for a lazy layer that has not seen an input."""
    if any(nn.parameter.is_lazy(parameter) for parameter in layer.parameters()):
        raise TypeError(f"{owner}: {name} must have its parameters, got an uninitialised {type(layer).__name__}")


def check_channels(owner: str, conv: Any, group: groups.Group, in_order: int, out_order: int) -> None:
    """Raises where the channels of a convolution are not whole fields of so many entries, in each of its groups."""
    for name, order in (("in_channels", in_order), ("out_channels", out_order)):
        if getattr(conv, name) % (order * conv.groups):
            raise ValueError(
                f"{owner}: conv.{name}={getattr(conv, name)} must be a multiple of |G| * groups = {order} * {conv.groups} to hold regular "
                f"fields of {group.name}; field_per_channel=True makes every channel a field"
            )


def check_wrapped(owner: str, padding_mode: PaddingMode, sides: Sequence[tuple[int, int]], size: Sequence[int]) -> None:
    """Raises where reflection or periodic continuation would need more values than the input has."""
    if padding_mode == "replicate":  # of one value any number of copies
        return
    less = int(padding_mode == "reflect")  # the outermost value is not repeated
    if any(max(side) > max(extent - less, 0) for side, extent in zip(sides, size, strict=True)):
        limit = "smaller than the input" if less else "at most the size of the input"
        raise ValueError(f"{owner}: padding_mode {padding_mode!r} needs a padding {limit} {tuple(size)}, got {tuple(map(max, sides))}")


def check_exchanged(owner: str, group: groups.Group, **values: Sequence[int]) -> None:
    """Raises unless each argument is the same on all axes that the group exchanges."""
    mixed = (group.elements != 0).any(axis=0)
    for name, value in values.items():
        if any(mixed[i, j] and value[i] != value[j] for i in range(group.dim) for j in range(group.dim)):
            raise ValueError(f"{owner}: {name} must be equal on the axes that {group.name} exchanges, got {tuple(value)}")


def check_reflect(owner: str, group: groups.Group, padding_mode: PaddingMode) -> None:
    """Raises for reflection or replication at the sides of a box that the group does not leave invariant."""
    if padding_mode in ("reflect", "replicate") and not group.preserves_axes:
        raise ValueError(
            f'{owner}: padding_mode "{padding_mode}" is not equivariant under {group.name}, which moves the sides of the box; use "zeros"'
        )
