"""The operators on multivectors, for the contract."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import Case, Tensors, wrong_tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.algebra import reference

_GENERATOR = torch.Generator().manual_seed(0)
VERSORS = {
    name: [
        torch.eye(16, dtype=torch.float64)[0],
        *iso.testing.random_versor(3, dtype=torch.float64, algebra=name, mirrors=name == "pga", generator=_GENERATOR),
    ]
    for name in ("pga", "sta")
}


def move(name: str, element: int, x: Tensor) -> Tensor:
    return iso.pga.sandwich(VERSORS[name][element], x, name)


def pair(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "channels": 3} | override
    return torch.randn(s["batch"], s["channels"], 16, dtype=torch.float64), torch.randn(s["channels"], 16, dtype=torch.float64)


def triple(override: dict[str, int]) -> Tensors:
    return *pair(override), torch.randn(1, 16, dtype=torch.float64)


def linear_inputs(maps: int) -> Any:
    def inputs(override: dict[str, int]) -> Tensors:
        s = {"batch": 2, "channels": 3, "out": 2} | override
        x = torch.randn(s["batch"], s["channels"], 16, dtype=torch.float64)
        return x, torch.randn(s["out"], s["channels"], maps, dtype=torch.float64)

    return inputs


WRONG_PAIR = (*wrong_tensors("x", "y"), ("y", lambda y: y[..., :8]), ("y", lambda y: y.expand(5, 3, 16)), ("x", lambda x: x.sum()))


def _product(name: str) -> Case:
    return Case(
        f"geometric product {name}",
        iso.ops.geometric_product,
        {"algebra": name},
        lambda x, y: reference.geometric_product(x, y, name),
        pair,
        {"batch": 2, "channels": 3},
        wrong=(*WRONG_PAIR, ("algebra", "cga"), ("algebra", None), ("algebra", 3)),
        tensors=("x", "y"),
        operators=("multivector_product",),
    )


def _linear(name: str, maps: int) -> Case:
    return Case(
        f"multivector linear {name} {maps}",
        iso.ops.multivector_linear,
        {"algebra": name},
        lambda x, weight: reference.multivector_linear(x, weight, None, name),
        linear_inputs(maps),
        {"batch": 2, "channels": 3, "out": 2},
        act=lambda element, x: move(name, element, x),
        act_output=lambda element, y: move(name, element, y),
        order=len(VERSORS[name]),
        wrong=(
            *(wrong for i, wrong in enumerate(wrong_tensors("x", "weight")) if i != 10),
            ("x", lambda x: x[..., 0]),
            ("x", lambda x: x[:, 1:]),
            ("weight", lambda w: w[:, 1:]),
            ("weight", lambda w: w[..., 1:4]),
            ("weight", lambda w: w[None]),
            ("algebra", "cga"),
        ),
        tensors=("x", "weight"),
        operators=("multivector_linear", "multivector_linear_transpose", "multivector_linear_weight"),
    )


CASES = (
    _product("pga"),
    _product("sta"),
    Case(
        "equi join",
        iso.ops.equi_join,
        {},
        reference.equi_join,
        triple,
        {"batch": 2, "channels": 3},
        wrong=(*WRONG_PAIR, ("reference", lambda r: r[..., :8]), ("reference", lambda r: r.float()), ("reference", None)),
        tensors=("x", "y", "reference"),
        operators=("multivector_product",),
    ),
    _linear("pga", 9),
    _linear("sta", 10),
    _linear("sta", 5),
)


def _registered() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    x, y, z = torch.randn(3, 2, 3, 16, dtype=torch.float64).unbind()
    weight, shift = torch.randn(4, 3, 9, dtype=torch.float64), torch.randn(2, 4, 1, dtype=torch.float64)
    out, scale = torch.randn(2, 4, 16, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    shift_back, factors = torch.randn(2, 3, 1, dtype=torch.float64), torch.randn(2, 8, 16, dtype=torch.float64)
    return (
        ("algebra", "multivector_product", (x, y, scale, "pga join")),
        ("algebra", "multivector_product", (z, y, None, "pga geometric /x")),
        ("algebra", "multivector_product", (z, x, None, "sta geometric /y")),
        ("algebra", "multivector_linear", (x, weight, shift, "pga")),
        ("algebra", "multivector_linear_transpose", (out, weight, shift_back, "pga")),
        ("algebra", "multivector_linear_weight", (x, out, 9, "pga")),
        ("algebra", "multivector_linear_scalars", (x, weight, shift, "pga")),
        ("algebra", "multivector_bilinear", (factors, scale[:, 0], "pga")),
        ("algebra", "multivector_bilinear_backward", (factors[:, :4].clone(), factors, scale[:, 0], "pga")),
        ("algebra", "multivector_gate", (x[:, 0], "gelu_tanh")),
        ("algebra", "multivector_norm", (x, None, 0.01, "sta")),
    )


REGISTERED = _registered()
