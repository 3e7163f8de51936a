"""Batch normalisation, for the contract."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import WRONG_TENSORS, Case, Tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.norms import reference

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
        return reference.batch_norm(*tensors, **given, activation="relu", axis=axis)

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


CASES = (
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


REGISTERED = _registered_norms()
