"""The operators on binary forms, for the contract."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import Case, Tensors, wrong_tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.forms import reference

# Elements of SL(2, R): the identity, and some of condition number 2.
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
    moved = [iso.sl2.to_scaled(reference.form_action(iso.sl2.from_scaled(form), ELEMENTS[element])) for form in forms]
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


CASES = (
    Case(
        "form action",
        iso.ops.form_action,
        {},
        reference.form_action,
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
        lambda f, weight: reference.transvectants(f, weight, degrees=DEGREES, paths=PATHS),
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
        lambda p, q: reference.transvectant(p, q, 2),
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


def _registered_grams() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    """Of the solver. It has no `Case`: those ask for 16-bit types, which it refuses because positivity does not survive their rounding, for
    random inputs, which are not positive and have gradients of zero, and for errors of 100 units, where its own grow with the condition of
    the Gram. What else it guarantees is asked with its own tolerances in forms/test_max_det_gram.py."""
    root = torch.randn(2, 4, 4, dtype=torch.float64)
    p = iso.ops.gram_to_form(root.mT @ root + torch.eye(4, dtype=torch.float64))
    gram = iso.ops.max_det_gram(p).gram
    return (
        ("forms", "max_det", (p, False, False, False)),
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
        ("forms", "spectral_factor", (torch.tensor([[5.0, 2.0], [3.0, -1.0]], dtype=torch.float64), 2e-16)),
        ("forms", "spectral_solve", (torch.tensor([[2.0, 1.0], [3.0, -1.0]], dtype=torch.float64), torch.ones(2, 2).double(), False)),
    )


REGISTERED = _registered_forms()
