"""The group convolutions, for the contract."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import WRONG_TENSORS, Case, Tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.fields import bank, reference


def rotate(x: Tensor, g: iso.groups.Group, element: int, regular: bool) -> Tensor:
    """(L_g f)[c, s](x) = f[c, g^-1 s](g^-1 x) on a box of equal sides, for a group that permutes and reverses axes."""
    n, size = g.dim, x.shape[-1]
    if regular:
        x = x[:, :, torch.from_numpy(g.multiply[g.inverse[element]].copy())]
    grid = torch.stack(torch.meshgrid(*[torch.arange(size)] * n, indexing="ij"))
    matrix = torch.from_numpy(g.elements[g.inverse[element]].copy())
    source = (torch.einsum("ij,j...->i...", matrix, 2 * grid - (size - 1)) + size - 1) // 2
    return x[(..., *source)]


def shift(x: Tensor, g: iso.groups.Group, element: int) -> Tensor:
    """The action on a regular field without space."""
    return x[:, :, torch.from_numpy(g.multiply[g.inverse[element]].copy())]


WRONG_FIELDS: tuple[tuple[str, Any], ...] = (("weight", lambda w: w[:, :-1]),)
WRONG_GROUP: tuple[tuple[str, Any], ...] = (("group", "p4m"), ("weight", lambda w: w[:, :, :2]))
WRONG_KERNEL: tuple[tuple[str, Any], ...] = (
    ("weight", lambda w: w[..., :0]),
    ("weight", lambda w: w.repeat(*(1,) * (w.dim() - 2), 9, 9)),
)
WRONG_GEOMETRY: tuple[tuple[str, Any], ...] = (
    ("group", "O"),
    ("stride", 0),
    ("stride", (1, 2)),
    ("stride", (1, 1, 1)),
    ("stride", 1.5),
    ("padding", -1),
    ("padding", "full"),
    ("dilation", 0),
    ("dilation", (1, 2)),
    ("groups", 0),
    ("groups", 5),
    ("groups", 1.5),
)


def convolution_case(name: str, group: str, regular: bool, kernel: int, wrong: tuple[tuple[str, Any], ...] = (), **settings: Any) -> Case:
    g = iso.groups.get(group)
    channel_groups = settings.get("groups", 1)
    source = (g.order,) if regular else ()
    operator = iso.ops.group_conv if regular else iso.ops.lift_conv
    field_type = "regular" if regular else "scalar"

    def inputs(override: dict[str, int]) -> Tensors:
        s = sizes | override
        x = torch.randn(s["batch"], s["fields"] * channel_groups, *source, *(s["space"],) * g.dim, dtype=torch.float64)
        weight = torch.randn(2 * channel_groups, s["fields"], *source, *(kernel,) * g.dim, dtype=torch.float64)
        return x, weight, torch.randn(2 * channel_groups, dtype=torch.float64)

    sizes = {"batch": 2, "fields": 1, "space": 5}
    extent = settings.get("dilation", 1) * (kernel - 1) + 1 - 2 * settings.get("padding", 0)
    return Case(
        name,
        operator,
        {"group": group, **settings},
        lambda *tensors: reference.group_conv(*tensors, group=group, field=field_type, **settings),
        inputs,
        sizes,
        at_least={"space": max(extent, 1) if settings.get("stride", 1) == 1 else 1},
        act=lambda element, x: rotate(x, g, element, regular),
        act_output=lambda element, y: rotate(y, g, element, True),
        order=g.order,
        wrong=wrong,
    )


def transpose_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "fields": 2, "space": 3} | override
    x = torch.randn(s["batch"], s["fields"] * 2, 4, s["space"], s["space"], dtype=torch.float64)
    return x, torch.randn(s["fields"] * 2, 1, 4, 3, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)


def transpose_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.shape[1] == 0:  # torch refuses to transpose a convolution without fields; two fields of zeros change nothing
        x, weight = (
            torch.cat([t, t.new_zeros(*size, *t.shape[2:])], axis) for t, size, axis in ((x, (x.shape[0], 2), 1), (weight, (2, 1), 0))
        )
    dense = bank.filter_bank(weight, group="p4")
    y = torch.nn.functional.conv_transpose2d(x.flatten(1, 2), dense, bias.repeat_interleave(4), stride=2, padding=1, groups=2)
    return y.unflatten(1, (2, 4))


def linear_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "fields": 2} | override
    x = torch.randn(s["batch"], s["fields"], 6, dtype=torch.float64)
    return x, torch.randn(3, s["fields"], 6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)


def pool_case(name: str, kernel: int, sizes: dict[str, int], wrong: tuple[tuple[str, Any], ...] = (), **settings: int) -> Case:
    """Of a field with two spatial axes, whose windows commute with p4."""
    two = {option: (value, value) for option, value in settings.items()}

    def inputs(override: dict[str, int]) -> Tensors:
        s = sizes | override
        return (torch.randn(s["batch"], s["fields"], 4, s["space"], s["space"], dtype=torch.float64),)

    return Case(
        name,
        iso.ops.max_pool,
        {"kernel_size": (kernel, kernel), **two},
        lambda x: reference.max_pool(x, (kernel, kernel), **two),
        inputs,
        sizes,
        at_least={"space": kernel},
        act=lambda element, x: rotate(x, P4, element, True),
        act_output=lambda element, y: rotate(y, P4, element, True),
        order=4,
        wrong=wrong,
        tensors=("x",),
        operators=("max_pool", "max_pool_scatter"),
    )


P4, P3M1 = iso.groups.get("p4"), iso.groups.get("p3m1")

CASES = (
    convolution_case("lift p4m", "p4m", False, 3, padding=1, wrong=WRONG_TENSORS + WRONG_GEOMETRY + WRONG_FIELDS + WRONG_KERNEL),
    convolution_case("lift p4 even kernel", "p4", False, 2),
    convolution_case(
        "regular p4", "p4", True, 3, padding=1, wrong=WRONG_TENSORS + WRONG_GEOMETRY + WRONG_FIELDS + WRONG_KERNEL + WRONG_GROUP
    ),
    convolution_case("regular p4m strided groups", "p4m", True, 3, stride=2, padding=1, groups=2),
    convolution_case("regular T", "T", True, 1),
    Case(
        "transpose p4",
        iso.ops.group_conv_transpose,
        {"group": "p4", "stride": 2, "padding": 1, "groups": 2},
        transpose_reference,
        transpose_inputs,
        {"batch": 2, "fields": 2, "space": 3},
        at_least={"space": 1},
        act=lambda element, x: rotate(x, P4, element, True),
        act_output=lambda element, y: rotate(y, P4, element, True),
        order=4,
        wrong=(
            *WRONG_TENSORS,
            *WRONG_GEOMETRY,
            *WRONG_GROUP,
            ("padding", 5),
            ("padding", "same"),
            ("output_padding", 2),
            ("output_padding", -1),
            ("weight", lambda w: w[:-1]),
            ("weight", lambda w: w[..., :0]),
        ),
    ),
    Case(
        "linear p3m1",
        iso.ops.group_linear,
        {"group": "p3m1"},
        lambda x, weight, bias: reference.group_linear(x, weight, bias, group="p3m1"),
        linear_inputs,
        {"batch": 2, "fields": 2},
        act=lambda element, x: shift(x, P3M1, element),
        act_output=lambda element, y: shift(y, P3M1, element),
        order=6,
        wrong=WRONG_TENSORS + WRONG_FIELDS + WRONG_GROUP,
        contiguous=False,  # without space it is a view of a result with one position
    ),
    pool_case(
        "max pool",
        2,
        {"batch": 2, "fields": 1, "space": 6},
        wrong=(
            *WRONG_TENSORS[:5],
            ("x", lambda x: x[..., :1]),
            ("x", lambda x: x[0, 0, 0, 0]),
            ("x", lambda x: x[..., :0]),
            ("kernel_size", 2),
            ("kernel_size", (0, 2)),
            ("kernel_size", (2, 2.0)),
            ("kernel_size", (2, 2, 2, 2)),
            ("kernel_size", (9, 2)),
            ("stride", (2,)),
            ("stride", (0, 1)),
            ("padding", (2, 2)),
            ("padding", (-1, 0)),
        ),
    ),
    pool_case("max pool overlapping", 3, {"batch": 2, "fields": 1, "space": 5}, stride=2, padding=1),
)


def _registered(field_type: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The three registered operators with arguments, of one field type."""
    x, weight, bias = CASES[3].inputs({}) if field_type == "regular" else CASES[0].inputs({})
    if field_type.startswith("linear"):
        x, weight, bias = linear_inputs({})
        settings: tuple[Any, ...] = ("p3m1", "linear", [], [], [], 1)
        size, kernel = [], []
        if field_type == "linear with positions":
            size, x = [2], x.permute(1, 2, 0)[None]
    else:
        stride, groups = ([2, 2], 2) if field_type == "regular" else ([1, 1], 1)
        settings = ("p4m", field_type, stride, [1, 1], [1, 1], groups)
        size, kernel = [5, 5], [3, 3]
    y = torch.ops.isotypic.group_conv.default(x, weight, bias, *settings)
    return (
        ("group_conv", (x, weight, bias, *settings)),
        ("group_conv_transpose", (y, weight, *settings, size)),
        ("group_conv_weight", (x, y, *settings, kernel)),
    )


FIELD_TYPES = ("regular", "scalar", "linear", "linear with positions")


def _registered_pools() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    settings = [1, 3, 2], [1, 2, 1], [0, 1, 1], [1, 5, 4]
    x = torch.randn(2, 1, 5, 4, 3, dtype=torch.float64)
    y, index = torch.ops.isotypic.max_pool.default(x, *settings)
    return (
        ("max pool", "max_pool", (x, *settings)),
        ("max pool", "max_pool_scatter", (y, index, *settings)),
        ("max pool", "max_pool_select", (x, index, *settings)),
    )


REGISTERED = (*((field_type, *entry) for field_type in FIELD_TYPES for entry in _registered(field_type)), *_registered_pools())
