"""The operators that tests/test_contract.py puts through every guarantee. A new operator is one more entry in CASES and in REGISTERED."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from contract_weights import WEIGHT_CASES, registered
from torch import Tensor

import isotypic as iso
from isotypic.ops import reference, reference_forms, reference_norms

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One way of calling an operator."""

    name: str
    operator: Callable[..., Tensor]
    settings: dict[str, Any]
    reference: Callable[..., Tensor]
    """Takes the same tensors as the operator."""
    inputs: Callable[[dict[str, int]], Tensors]
    """Random float64 tensors; the argument overrides some of ``sizes``."""
    sizes: dict[str, int]
    """The sizes that may be 0, 1, 3, 17 and 33, and their default values."""
    at_least: dict[str, int] = field(default_factory=dict)
    """The smallest value of a size that has a smallest one, because nothing can be smaller than a kernel."""
    act: Callable[[int, Tensor], Tensor] | None = None
    """The action of an element of the group on the first tensor."""
    act_output: Callable[[int, Tensor], Tensor] | None = None
    order: int = 1
    wrong: tuple[tuple[str, Any], ...] = ()
    """Pairs of an argument and a wrong value for it, a value or a function of the right tensor."""
    tensors: tuple[str, ...] = ("x", "weight", "bias")
    """Names of the tensors. The first one has the batch; a bias may be None."""
    operators: tuple[str, ...] = ("group_conv", "group_conv_transpose", "group_conv_weight")
    """The registered operators in a graph of the gradient."""
    wide: tuple[str, ...] = ()
    """The tensors that autocast leaves as they are."""
    contiguous: bool = True
    """Whether the result always is."""

    def call(self, *tensors: Tensor) -> Tensor:
        return self.operator(*tensors, **self.settings)


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


WRONG_TENSORS: tuple[tuple[str, Any], ...] = (
    ("x", lambda x: x.tolist()),
    ("x", lambda x: x.numpy()),
    ("x", lambda x: x.long()),
    ("x", lambda x: x.to(torch.complex64)),
    ("x", lambda x: x.to_sparse()),
    ("x", lambda x: x[0]),
    ("x", lambda x: x[None]),
    ("weight", lambda w: w.float()),
    ("weight", lambda w: w.int()),
    ("weight", lambda w: w.to("meta")),
    ("weight", lambda w: w[0]),
    ("weight", lambda w: w[None]),
    ("bias", lambda b: b.float()),
    ("bias", lambda b: b[:-1]),
    ("bias", lambda b: b[None]),
    ("bias", 1.0),
    ("group", "p5"),
    ("group", 4),
)
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
    bank = reference.filter_bank(weight, group="p4")
    y = torch.nn.functional.conv_transpose2d(x.flatten(1, 2), bank, bias.repeat_interleave(4), stride=2, padding=1, groups=2)
    return y.unflatten(1, (2, 4))


def linear_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "fields": 2} | override
    x = torch.randn(s["batch"], s["fields"], 6, dtype=torch.float64)
    return x, torch.randn(3, s["fields"], 6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)


# Binary forms. Elements of SL(2, R): the identity, and some of condition number 2.
ELEMENTS = [
    torch.eye(2, dtype=torch.float64),
    *iso.sl2.random_sl2((3,), max_condition=2.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
]
DEGREES = (0, 2, 3)
PATHS = tuple(iso.ops.transvectant_paths(DEGREES, 4))
DEGREES_OUT = tuple(dict.fromkeys(DEGREES[s] + DEGREES[t] - 2 * k for s, t, k in PATHS))


def act_on_features(element: int, x: Tensor, degrees: tuple[int, ...]) -> Tensor:
    """The element on forms in scaled coordinates."""
    forms = x.split([degree + 1 for degree in degrees], -1)
    moved = [iso.sl2.to_scaled(reference_forms.form_action(iso.sl2.from_scaled(form), ELEMENTS[element])) for form in forms]
    return torch.cat(moved, -1)


def action_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "degree": 3} | override
    g = torch.randn(2, 2, dtype=torch.float64)
    return torch.randn(s["batch"], s["degree"] + 1, dtype=torch.float64), g / torch.linalg.matrix_norm(g, 2)


def transvectants_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "channels": 2, "out": 2} | override
    f = torch.randn(s["batch"], s["channels"], sum(DEGREES) + len(DEGREES), dtype=torch.float64)
    return f, torch.randn(s["channels"], len(PATHS), s["out"], dtype=torch.float64)


def transvectant_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2} | override
    return torch.randn(s["batch"], 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)


def wrong_tensors(first: str, second: str) -> tuple[tuple[str, Any], ...]:
    return (
        (first, lambda x: x.tolist()),
        (first, lambda x: x.numpy()),
        (first, lambda x: x.long()),
        (first, lambda x: x.to(torch.complex64)),
        (first, lambda x: x.to_sparse()),
        (first, lambda x: x[..., :0]),
        (second, lambda x: x.float()),
        (second, lambda x: x.int()),
        (second, lambda x: x.to("meta")),
        (second, lambda x: x[..., :0]),
        (second, lambda x: x[..., 0, 0] if x.dim() > 1 else x.sum()),
        (second, None),
    )


FORM_CASES = (
    Case(
        "form action",
        iso.ops.form_action,
        {},
        reference_forms.form_action,
        action_inputs,
        {"batch": 2, "degree": 3},
        at_least={"degree": 1},  # a constant does not depend on g
        wrong=(*wrong_tensors("p", "g"), ("g", lambda g: g[:1]), ("g", lambda g: g.expand(3, 2, 2)), ("p", lambda p: p.sum())),
        tensors=("p", "g"),
        operators=("form_action", "form_action_adjoint", "form_action_matrix"),
    ),
    Case(
        "transvectants",
        iso.ops.transvectants,
        {"degrees": DEGREES, "paths": PATHS},
        lambda f, weight: reference_forms.transvectants(f, weight, degrees=DEGREES, paths=PATHS),
        transvectants_inputs,
        {"batch": 2, "channels": 2, "out": 2},
        act=lambda element, x: act_on_features(element, x, DEGREES),
        act_output=lambda element, y: act_on_features(element, y, DEGREES_OUT),
        order=len(ELEMENTS),
        wrong=(
            *(wrong for i, wrong in enumerate(wrong_tensors("f", "weight")) if i != 9),  # no output channels are fine
            ("f", lambda f: f[0]),
            ("f", lambda f: f[..., 1:]),
            ("weight", lambda w: w[:1]),
            ("weight", lambda w: w[:, 1:]),
            ("weight", lambda w: w[None]),
            ("degrees", (0, 2)),
            ("degrees", (0, 2, -3)),
            ("degrees", (0, 2, 3.5)),
            ("degrees", 3),
            ("paths", ((0, 1),)),
            ("paths", ((1, 0, 0),)),
            ("paths", ((0, 3, 0),)),
            ("paths", ((1, 2, 3),)),
            ("paths", ((0, 0, 0), (1, 1, 0), (0, 0, 0))),
        ),
        tensors=("f", "weight"),
        operators=("transvectants", "transvectants_input", "transvectants_weight"),
    ),
    Case(
        "transvectant",
        iso.ops.transvectant,
        {"k": 2},
        lambda p, q: reference_forms.transvectant(p, q, 2),
        transvectant_inputs,
        {"batch": 2},
        wrong=(
            *wrong_tensors("p", "q"),
            ("q", lambda q: q.expand(3, 6)),
            ("k", 4),
            ("k", -1),
            ("k", 1.0),
            ("k", True),
        ),
        tensors=("p", "q"),
        operators=("transvectants_polar", "transvectants_input"),
    ),
)

# Batch normalisation.
RUNNING = {"running_mean": (0.5, -1.0, 0.0), "running_var": (2.0, 0.5, 1.0)}


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None = None, **settings: Any) -> Tensor:
    """With running statistics as numbers, which have no device and no mode."""
    for name in RUNNING:
        if isinstance(settings.get(name), tuple) and isinstance(x, Tensor):
            settings[name] = torch.tensor(settings[name][: x.shape[1]], dtype=torch.float64, device=x.device)
    return iso.ops.batch_norm(x, weight, bias, **settings)


def norm_case(name: str, axis: int, sizes: dict[str, int], wrong: tuple[tuple[str, Any], ...] = (), **settings: Any) -> Case:
    def inputs(override: dict[str, int]) -> Tensors:
        s = {"fields": 3} | sizes | override
        shape = (s["batch"], s["fields"], 4, s["space"]) if axis == 1 else (s["batch"], 6, s["fields"])
        x = torch.randn(shape, dtype=torch.float64) * 2 + 3
        return x, torch.randn(s["fields"], dtype=torch.float64), torch.randn(s["fields"], dtype=torch.float64)

    def expected(*tensors: Tensor) -> Tensor:
        given = {} if settings["training"] else {name[8:]: torch.tensor(RUNNING[name]).to(tensors[0]) for name in RUNNING}
        given = {name: values[: tensors[0].shape[1]] for name, values in given.items()}
        return reference_norms.batch_norm(*tensors, **given, activation="relu", axis=axis)

    return Case(
        name,
        batch_norm,
        {"axis": axis, "activation": "relu", **settings},
        expected,
        inputs,
        sizes,
        at_least={"space": 1},
        act=lambda element, x: x.roll(element, 2 if axis == 1 else 1),
        act_output=lambda element, y: y.roll(element, 2 if axis == 1 else 1),
        order=4,
        wrong=wrong,
        operators=("batch_norm" if settings["training"] else "batch_norm_apply", "batch_norm_backward"),
        wide=("weight", "bias"),
    )


NORM_CASES = (
    norm_case(
        "batch norm",
        1,
        {"batch": 2, "fields": 3, "space": 5},
        training=True,
        wrong=(
            *(entry for entry in WRONG_TENSORS if entry[0] != "group" and entry != WRONG_TENSORS[5] and entry != WRONG_TENSORS[6]),
            ("x", lambda x: x[0, 0, 0]),
            ("x", lambda x: x[:1, :, :1, :1]),
            ("weight", lambda w: w[:-1]),
            ("activation", "gelu"),
            ("axis", 4),
            ("axis", 1.0),
            ("running_mean", torch.zeros(3)),
            ("running_var", torch.zeros(2)),
            ("running_var", torch.zeros(3, dtype=torch.int64)),
            ("running_var", [1.0, 1.0, 1.0]),
        ),
    ),
    norm_case("batch norm channels last", -1, {"batch": 2, "fields": 3}, training=True),
    norm_case(
        "batch norm eval",
        1,
        {"batch": 2, "space": 5},
        training=False,
        **RUNNING,
        wrong=(("running_mean", None), ("running_var", torch.ones(4)), ("running_mean", torch.zeros(3, device="meta"))),
    ),
)


def _registered_norms() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    x, g = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    weight, bias, mean, var = torch.rand(4, 2, dtype=torch.float64) + 0.5
    statistics = torch.stack([mean, var])
    return (
        ("relu", "batch_norm", (x, weight, bias, 1e-5, True)),
        ("plain", "batch_norm", (x, None, None, 1e-5, False)),
        ("relu", "batch_norm_apply", (x, statistics, weight, bias, 1e-5, True)),
        ("batch", "batch_norm_backward", (g, x, statistics, weight, bias, 1e-5, True, True)),
        ("eval", "batch_norm_backward", (g, x, statistics, weight, None, 1e-5, False, False)),
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
    *(Case(**entry) for entry in WEIGHT_CASES),
    *FORM_CASES,
    *NORM_CASES,
)


def _registered(field_type: str) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The three registered operators with arguments, of one field type."""
    x, weight, bias = CASES[3].inputs({}) if field_type == "regular" else CASES[0].inputs({})
    if field_type == "linear":
        x, weight, bias = linear_inputs({})
        settings: tuple[Any, ...] = ("p3m1", "linear", [], [], [], 1)
        size, kernel = [2], []
        x = x.permute(1, 2, 0)[None]
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


def _registered_grams() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    """Of the solver. It has no `Case`: those ask for 16-bit types, which it refuses because positivity does not survive their rounding, for
    random inputs, which are not positive and have gradients of zero, and for errors of 100 units, where its own grow with the condition of
    the Gram. What else it guarantees is asked with its own tolerances in ops/test_max_det_gram.py."""
    root = torch.randn(2, 4, 4, dtype=torch.float64)
    p = iso.ops.gram_to_form(root.mT @ root + torch.eye(4, dtype=torch.float64))
    gram = iso.ops.max_det_gram(p).gram
    return (
        ("forms", "max_det", (p, False)),
        ("forms", "max_det_adjoint", (gram, torch.randn(2, 4, 4, dtype=torch.float64))),
        ("forms", "max_det_solve", (gram, torch.randn(2, 7, dtype=torch.float64))),
    )


def _registered_forms() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    p, g = action_inputs({})
    (f, weight), (h, _) = transvectants_inputs({}), transvectants_inputs({})
    z = torch.randn(2, 2, sum(DEGREES_OUT) + len(DEGREES_OUT), dtype=torch.float64)
    settings = (list(DEGREES), [number for path in PATHS for number in path])
    return (
        ("forms", "form_action", (p, g.expand(2, 2, 2).contiguous())),
        ("forms", "form_action_adjoint", (p, g.expand(2, 2, 2).contiguous())),
        ("forms", "form_action_matrix", (p, g.expand(2, 2, 2).contiguous(), torch.randn_like(p))),
        ("forms", "transvectants", (f, weight, *settings)),
        ("forms", "transvectants_polar", (f, h, weight, *settings)),
        ("forms", "transvectants_input", (f, weight, z, *settings)),
        ("forms", "transvectants_weight", (f, z, *settings)),
        ("forms", "transvectants_weight_polar", (f, h, z, *settings)),
        *_registered_grams(),
    )


REGISTERED = (
    *((field_type, *entry) for field_type in ("regular", "scalar", "linear") for entry in _registered(field_type)),
    *_registered_forms(),
    *_registered_norms(),
    *registered(),
)
