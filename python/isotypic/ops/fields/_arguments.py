"""The arguments of the group convolutions: normalising, checking, and wording what is wrong with them.

A repeated call finds its normalised arguments in a dictionary (``recall`` of ``ops/_checks.py``); the checks run once per configuration. In
a graph that is being traced, where sizes may be symbolic, only the normalisation runs here, and the fake implementation of the operator
checks the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isotypic import groups as finite_groups
from isotypic.ops._checks import check_flag, check_tensors, per_axis, resolve_group
from isotypic.ops.fields.equivariance import Grid, check_equivariance

NAMES = {"regular": "group_conv", "scalar": "lift_conv", "linear": "group_linear"}


class Settings(NamedTuple):
    """The arguments of the registered operators after the tensors."""

    group: str
    field: str
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Sizes(NamedTuple):
    """A checked call: shapes of x, weight and y with the spatial sizes that belong to them."""

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]


def _sources(group: finite_groups.Group, field: str) -> tuple[int, ...]:
    return () if field == "scalar" else (group.order,)


def _field_text(group: finite_groups.Group, field: str, channels: str) -> str:
    source = "" if field == "scalar" else f", |G|={group.order}"
    space = "" if field == "linear" else ", " + ", ".join(("depth", "height", "width")[-group.dim :])
    return f"(B, {channels}{source}{space})"


def _groups_of_order(order: int, dim: int) -> str:
    """The named groups that a weight with this many group channels could be for."""
    named = [finite_groups.get(name) for name in finite_groups.names()]
    return " or ".join(g.name for g in named if g.order == order and g.dim == dim)


def check_weight(operator: str, group: finite_groups.Group, field: str, weight: Sequence[int], out_text: str, in_text: str) -> None:
    """The number of axes of a weight (first, second, |G|, *k) and its group axis; ``out_text`` and ``in_text`` describe the first two."""
    axes = 0 if field == "linear" else group.dim
    source = "" if field == "scalar" else f", |G|={group.order}"
    expected = f"({out_text}, {in_text}{source}{', k' * axes})"
    got = tuple(weight)
    lead = 2 if field == "scalar" else 3
    if len(got) != lead + axes:
        raise ValueError(f"{operator}: weight must have shape {expected}, got {got}; the call is for {group.name}")
    if field != "scalar" and got[2] != group.order:
        other = _groups_of_order(got[2], group.dim)
        hint = f"the weight is for {other}, " if other else ""
        raise ValueError(f"{operator}: weight must have shape {expected}, got {got}; {hint}the call is for {group.name}")
    if any(size < 1 for size in got[lead:]):
        raise ValueError(f"{operator}: weight must have a kernel of at least one tap, got shape {got}")


@lru_cache(maxsize=256)
def _check_commutes(operator: str, key: str, name: str, value: tuple[int, ...]) -> None:
    group = finite_groups.get(key)
    scale = np.diag(value)
    if not (group.elements @ scale == scale @ group.elements).all():
        raise ValueError(f"{operator}: {name} must be equal on the axes that {group.name} exchanges, got {value}")


@lru_cache(maxsize=256)
def _check_support(operator: str, key: str, kernel: tuple[int, ...]) -> None:
    try:
        finite_groups.support(finite_groups.get(key), kernel)
    except ValueError as error:
        raise ValueError(f"{operator}: weight has a kernel of no use: {error}") from None


def check_sizes(
    operator: str, settings: Settings, x_shape: Sequence[int], weight_shape: Sequence[int], y_shape: Sequence[int] | None = None
) -> Sizes:
    """The checked sizes of a call y = conv(x, weight). With ``y_shape`` also that y is what the convolution gives.

    Sizes may be symbolic: only arithmetic and comparisons happen to them.
    """
    key, field, stride, padding, dilation, channel_groups = settings
    group = resolve_group(operator, key)
    axes = int(len(x_shape) > 3) if field == "linear" else group.dim
    if axes > 3:
        raise ValueError(f"{operator}: group must act on at most 3 axes, got {group.name} on {axes}")
    sources = _sources(group, field)
    lead = 2 + len(sources)
    if len(x_shape) != lead + axes or (sources and x_shape[2] != group.order):
        raise ValueError(
            f"{operator}: x must have shape {_field_text(group, field, 'C')}, got {tuple(x_shape)}; the call is for {group.name}"
        )
    if x_shape[1] % channel_groups:
        raise ValueError(f"{operator}: groups must divide C_in={x_shape[1]}, got {channel_groups}")
    fields = x_shape[1] // channel_groups
    in_text = f"C_in={fields}" if channel_groups == 1 else f"C_in/groups={fields}"
    check_weight(operator, group, field, weight_shape, "C_out", in_text)
    if weight_shape[1] != fields:
        source = "" if field == "scalar" else f", |G|={group.order}"
        space = "" if field == "linear" else ", k" * axes
        raise ValueError(f"{operator}: weight must have shape (C_out, {in_text}{source}{space}), got {tuple(weight_shape)}")
    if weight_shape[0] % channel_groups:
        raise ValueError(f"{operator}: weight must have C_out divisible by groups={channel_groups}, got shape {tuple(weight_shape)}")
    # These three are properties of the layer: where they are symbolic the graph is specialised to their values.
    kernel, stride, dilation = (tuple(int(value) for value in values) for values in (weight_shape[lead:], stride, dilation))
    size = tuple(x_shape[lead:])
    if field == "linear":
        out_size = size
    else:
        _check_commutes(operator, group.key, "stride", stride)
        _check_commutes(operator, group.key, "dilation", dilation)
        _check_support(operator, group.key, kernel)
        extent = [s + 2 * p - d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)]
        if any(e < 1 for e in extent):
            reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
            padded = tuple(s + 2 * p for s, p in zip(size, padding, strict=True))
            raise ValueError(f"{operator}: weight has a kernel of extent {reach}, which is larger than the padded input {padded}")
        out_size = tuple((e - 1) // s + 1 for e, s in zip(extent, stride, strict=True))
    expected = (x_shape[0], weight_shape[0], group.order, *out_size)
    if y_shape is not None and (len(y_shape) != len(expected) or any(a != b for a, b in zip(y_shape, expected, strict=True))):
        raise ValueError(f"{operator}: y must have shape {expected}, got {tuple(y_shape)}")
    return Sizes(tuple(x_shape), tuple(weight_shape), expected, size, out_size, kernel)


def check_bias(operator: str, bias: Tensor | None, out_fields: int) -> None:
    if bias is not None and tuple(bias.shape) != (out_fields,):
        raise ValueError(f"{operator}: bias must have shape (C_out={out_fields},), got {tuple(bias.shape)}")


def _grid(settings: Settings, kernel: tuple[int, ...], end: Sequence[int] = (), transposed: bool = False) -> Grid:
    return Grid(settings.group, kernel, settings.stride, settings.padding, settings.dilation, tuple(end), transposed)


def _normalise(
    operator: str,
    field: str,
    kernel: tuple[int, ...],
    group: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple[Settings, tuple[int, ...]]:
    """Settings, and the zeros to add behind the last position of each axis: padding="same" with an even kernel. () where there are none."""
    axes = len(kernel)
    stride = per_axis(operator, "stride", stride, axes, 1)
    dilation = per_axis(operator, "dilation", dilation, axes, 1)
    (groups,) = per_axis(operator, "groups", groups, 1, 1)
    end: tuple[int, ...] = ()
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'{operator}: padding must be "same", "valid", an integer >= 0 or {axes} of them, got {padding!r}')
        if padding == "valid":
            padding = (0,) * axes
        else:
            if any(s != 1 for s in stride):
                raise ValueError(f'{operator}: padding="same" needs stride 1, got stride {stride}')
            total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            padding = tuple(extent // 2 for extent in total)
            if any(extent % 2 for extent in total):
                end = tuple(extent % 2 for extent in total)
    else:
        padding = per_axis(operator, "padding", padding, axes, 0)
    return Settings(group, field, stride, padding, dilation, groups), end


def _plain_sizes(shape: Sequence[Any]) -> tuple[Any, ...]:
    """A shape of which `torch.jit.trace` would hand out the entries as tensors, which no list of an operator takes; symbols stay."""
    return tuple(int(size) if isinstance(size, Tensor) else size for size in shape)


def _pad_argument(end: tuple[int, ...]) -> list[int]:
    """In the order of ``F.pad``, the last axis first."""
    return [extent for axis in reversed(end) for extent in (0, axis)]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: str | finite_groups.Group,
    field: str,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    strict: bool | None,
) -> tuple[Settings, list[int]]:
    """Check a call of ``group_conv`` or ``lift_conv``. Returns the settings of the operator and what ``F.pad`` must add to x first.

    strict is None where the caller has judged itself whether the sizes keep the equivariance.
    """
    operator = NAMES[field]
    lead = 2 if field == "scalar" else 3
    if torch.compiler.is_compiling():
        key = group if isinstance(group, str) else group.key
        settings, end = _normalise(operator, field, tuple(weight.shape[lead:]), key, stride, padding, dilation, groups)
        if strict:
            check_equivariance(operator, _grid(settings, tuple(weight.shape[lead:]), end), tuple(x.shape[lead:]), strict)
        return settings, _pad_argument(end)
    check_tensors(operator, {"x": x, "weight": weight, "bias": bias})
    resolved = resolve_group(operator, group)
    in_text = f"C_in={x.shape[1]}" if x.dim() > 1 and groups == 1 else "C_in/groups"
    check_weight(operator, resolved, field, weight.shape, "C_out", in_text)
    x_shape, weight_shape = _plain_sizes(x.shape), _plain_sizes(weight.shape)
    settings, end = _normalise(operator, field, weight_shape[lead:], resolved.key, stride, padding, dilation, groups)
    padded = list(x_shape)
    if end and len(padded) == lead + resolved.dim:
        padded[lead:] = [size + more for size, more in zip(padded[lead:], end, strict=True)]
    sizes = check_sizes(operator, settings, padded, weight_shape)
    check_bias(operator, bias, weight_shape[0])
    if strict is not None:
        check_flag(operator, "strict", strict)
        check_equivariance(operator, _grid(settings, sizes.kernel, end), x_shape[lead:], strict)
    return settings, _pad_argument(end)


def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: str | finite_groups.Group,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
    strict: bool,
) -> tuple[Settings, tuple[int, ...]]:
    """Check a call of ``group_conv_transpose``. Returns the settings of the operator and the spatial size of the output."""
    operator = "group_conv_transpose"
    compiling = torch.compiler.is_compiling()
    if compiling:
        key = group if isinstance(group, str) else group.key
    else:
        check_tensors(operator, {"x": x, "weight": weight, "bias": bias})
        resolved = resolve_group(operator, group)
        key = resolved.key
        if x.dim() != 3 + resolved.dim or x.shape[2] != resolved.order:
            expected = _field_text(resolved, "regular", "C_in")
            raise ValueError(f"{operator}: x must have shape {expected}, got {tuple(x.shape)}; the call is for {resolved.name}")
        check_weight(operator, resolved, "regular", weight.shape, f"C_in={x.shape[1]}", "C_out/groups")
        if weight.shape[0] != x.shape[1]:
            raise ValueError(f"{operator}: weight must have C_in={x.shape[1]} as its first size, got shape {tuple(weight.shape)}")
    kernel, size = _plain_sizes(weight.shape[3:]), _plain_sizes(x.shape[3:])
    settings, _ = _normalise(operator, "regular", kernel, key, stride, 0, dilation, groups)
    settings = settings._replace(padding=per_axis(operator, "padding", padding, len(kernel), 0))
    output_padding = per_axis(operator, "output_padding", output_padding, len(kernel), 0)
    if any(o >= s for o, s in zip(output_padding, settings.stride, strict=True)):
        raise ValueError(f"{operator}: output_padding must be smaller than stride {settings.stride}, got {output_padding}")
    out_size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, s, p, d, k, o in zip(size, settings.stride, settings.padding, settings.dilation, kernel, output_padding, strict=True)
    )
    if not compiling:
        if x.shape[1] % settings.groups:
            raise ValueError(f"{operator}: groups must divide C_in={x.shape[1]}, got {groups}")
        check_bias(operator, bias, weight.shape[1] * settings.groups)
        if any(n < 1 for n in out_size):
            raise ValueError(f"{operator}: padding {settings.padding} leaves no output of x of size {size}, its size would be {out_size}")
        check_sizes(operator, settings, (x.shape[0], weight.shape[1] * settings.groups, x.shape[2], *out_size), weight.shape)
        check_flag(operator, "strict", strict)
    if strict or not compiling:
        check_equivariance(operator, _grid(settings, kernel, transposed=True), out_size, strict)
    return settings, out_size


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, group: str | finite_groups.Group) -> Settings:
    """Check a call of ``group_linear``. Returns the settings of the operator."""
    operator = "group_linear"
    if torch.compiler.is_compiling():
        return Settings(group if isinstance(group, str) else group.key, "linear", (), (), (), 1)
    check_tensors(operator, {"x": x, "weight": weight, "bias": bias})
    resolved = resolve_group(operator, group)
    settings = Settings(resolved.key, "linear", (), (), (), 1)
    if x.dim() < 3 or x.shape[2] != resolved.order:
        expected = f"(B, C, |G|={resolved.order}) or (B, C, |G|={resolved.order}, *spatial)"
        raise ValueError(f"{operator}: x must have shape {expected}, got {tuple(x.shape)}; the call is for {resolved.name}")
    check_sizes(operator, settings, x.shape[:3], weight.shape)
    check_bias(operator, bias, weight.shape[0])
    return settings
