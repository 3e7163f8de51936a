"""The operators of neural processes, for the contract."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import Case, Tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.processes import reference

SHAPE = (6, 7)


def grid_of(x: Tensor, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, ...]:
    """From -1 to 1 on every axis; made in the call, so that it is where x is."""
    return tuple(torch.linspace(-1, 1, n, dtype=torch.float64, device=x.device) for n in shape)


def batched(x: Any, first: Any) -> Any:
    """The contract gives a batch to the first tensor alone: the others are those of every sample."""
    return x.expand(first.shape[0], *x.shape) if isinstance(x, Tensor) and isinstance(first, Tensor) and x.layout is torch.strided else x


def grid_beside(x: Any) -> tuple[Tensor, ...]:
    return grid_of(x if isinstance(x, Tensor) else torch.zeros(1))


def set_conv(y: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    return iso.ops.set_conv(batched(x, y), y, grid_beside(x), lengthscale)


def set_conv_decode(grid_values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    return iso.ops.set_conv_decode(grid_values, grid_beside(x), batched(x, grid_values), lengthscale)


def reference_set_conv(y: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    with_density = torch.cat([torch.ones_like(y[..., :1]), y], -1)
    return reference.set_conv(with_density, batched(x, y), lengthscale, grid_of(x))


def reference_set_conv_decode(grid_values: Tensor, x: Tensor, lengthscale: Tensor) -> Tensor:
    return reference.set_conv_decode(grid_values, batched(x, grid_values), lengthscale, grid_of(x))


def _lengthscale() -> Tensor:
    return torch.tensor([0.3, 0.5], dtype=torch.float64)


def set_conv_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "points": 5, "channels": 2} | override
    y = torch.randn(s["batch"], s["points"], s["channels"], dtype=torch.float64)
    return y, 2 * torch.rand(s["points"], 2, dtype=torch.float64) - 1, _lengthscale()


def set_conv_decode_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "points": 5, "channels": 2} | override
    values = torch.randn(s["batch"], s["channels"], *SHAPE, dtype=torch.float64)
    return values, 2 * torch.rand(s["points"], 2, dtype=torch.float64) - 1, _lengthscale()


WRONG_PLACES: tuple[tuple[str, Any], ...] = (
    ("x", lambda x: x.tolist()),
    ("x", lambda x: x.long()),
    ("x", lambda x: x[..., :1]),
    ("x", lambda x: x[0]),
    ("x", lambda x: x.float()),
    ("x", lambda x: x[None]),
    ("lengthscale", "long"),
    ("lengthscale", -1.0),
    ("lengthscale", 0.0),
    ("lengthscale", float("inf")),
    ("lengthscale", lambda s: -s),
    ("lengthscale", lambda s: s.expand(3, 2)),
    ("lengthscale", lambda s: torch.cat([s, s])),
    ("lengthscale", lambda s: s.int()),
    ("lengthscale", (0.1, 0.2, 0.3)),
)

CASES = (
    Case(
        "set conv",
        set_conv,
        {},
        reference_set_conv,
        set_conv_inputs,
        {"batch": 2, "points": 5, "channels": 2},
        wrong=(*WRONG_PLACES, ("y", lambda y: y.tolist()), ("y", lambda y: y[0]), ("y", lambda y: y[:, 1:]), ("y", lambda y: y.long())),
        tensors=("y", "x", "lengthscale"),
        operators=("set_conv", "set_conv_moments"),
        wide=("x", "lengthscale"),
    ),
    Case(
        "set conv decode",
        set_conv_decode,
        {},
        reference_set_conv_decode,
        set_conv_decode_inputs,
        {"batch": 2, "points": 5, "channels": 2},
        wrong=(
            *WRONG_PLACES,
            ("grid_values", lambda v: v.tolist()),
            ("grid_values", lambda v: v[0]),
            ("grid_values", lambda v: v[..., 1:]),
            ("grid_values", lambda v: v.long()),
        ),
        tensors=("grid_values", "x", "lengthscale"),
        operators=("set_conv", "set_conv_decode", "set_conv_moments"),
        wide=("x", "lengthscale"),
    ),
)


def _registered() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    y, x, _ = set_conv_inputs({})
    t, s = 3 * (x + 1).expand(2, 5, 2).contiguous(), torch.tensor([0.9, -1.4], dtype=torch.float64)
    grid = torch.randn(2, 2, *SHAPE, dtype=torch.float64)
    return (
        ("processes", "set_conv", (y, t, s, list(SHAPE), [0, 0])),
        ("processes powers", "set_conv", (y, t, s, list(SHAPE), [1, 2])),
        ("processes", "set_conv_decode", (grid, t, s, [0, 0])),
        ("processes powers", "set_conv_decode", (grid, t, s, [2, 1])),
        ("processes", "set_conv_moments", (t, s, y, grid, True)),
        ("processes second", "set_conv_moments", (t, s, y, grid, False)),
    )


REGISTERED = _registered()
