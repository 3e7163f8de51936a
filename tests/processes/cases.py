"""The operators of neural processes, for the contract."""

from __future__ import annotations

from itertools import pairwise
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
    with_density = torch.cat([y.new_ones(*y.shape[:-1], 1), y], -1)
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

HEADS, WIDTH, HIDDEN = 2, 3, (5, 6)


def attention(q: Any, k: Any, x_q: Any, mlp: Any, reference_form: bool = False, masked: bool = False, **settings: Any) -> Tensor:
    """Four tensors, because the contract goes through all ways of mapping them: k holds keys and values (2, H, N_k, D), x_q the positions
    of queries and keys (N_q + N_k, 2), mlp all layers in one vector."""
    keys, values = (batched(k[i], q) for i in range(2)) if isinstance(k, Tensor) and k.dim() == 4 else (k, k)
    queries = q.shape[2] if isinstance(q, Tensor) and q.dim() > 2 else 1
    ends = (batched(x_q[:queries], q), batched(x_q[queries:], q)) if isinstance(x_q, Tensor) else (x_q, x_q)
    layers: Any = mlp
    places = {"vector": 2, "distance2": 1, "none": 0}.get(settings["difference"])
    if isinstance(mlp, Tensor) and mlp.dim() == 1 and settings["mode"] in ("mix", "bias") and places is not None:
        layers, at = [], 0
        sizes = (places + (HEADS if settings["mode"] == "mix" else 0), *HIDDEN, HEADS)
        for n, m in pairwise(sizes):
            layers.append((mlp[at : at + m * n].reshape(m, n), mlp[at + m * n : at + m * n + m]))
            at += m * n + m
    mask = None
    if masked:  # the first key of every task is hidden, and all keys of the last query
        mask = torch.ones(q.shape[0], queries, k.shape[2], dtype=torch.bool, device=q.device)
        mask[:, :, :1] = False
        mask[:, -1:] = False
    if reference_form:
        return reference.pair_attention(q, keys, values, *ends, layers, **settings, mask=mask)
    return iso.ops.pair_attention(q, keys, values, *ends, layers, **settings, mask=mask)


def pair_attention(q: Tensor, k: Tensor, x_q: Tensor, mlp: Tensor, **settings: Any) -> Tensor:
    return attention(q, k, x_q, mlp, **settings)


def attention_inputs(mode: str = "mix", difference: str = "vector") -> Any:
    places = {"vector": 2, "distance2": 1, "none": 0}[difference]

    def inputs(override: dict[str, int]) -> Tensors:
        s = {"batch": 2, "queries": 3, "keys": 4} | override
        sizes = (places + (HEADS if mode == "mix" else 0), *HIDDEN, HEADS)
        q, k = torch.randn(s["batch"], HEADS, s["queries"], WIDTH), torch.randn(2, HEADS, s["keys"], WIDTH)
        x, mlp = torch.randn(s["queries"] + s["keys"], 2), 0.5 * torch.randn(sum(m * n + m for n, m in pairwise(sizes)))
        return q.double(), k.double(), x.double(), mlp.double()

    return inputs


WRONG_PAIRS: tuple[tuple[str, Any], ...] = (
    ("q", lambda q: q.tolist()),
    ("q", lambda q: q.long()),
    ("q", lambda q: q[0]),
    ("k", lambda k: k.float()),
    ("k", lambda k: k[..., :1]),
    ("k", lambda k: k[:, :1]),
    ("k", lambda k: k.tolist()),
    ("x_q", lambda x: x.float()),
    ("x_q", lambda x: x[:, 0]),
    ("x_q", None),
    ("mlp", lambda m: m.float()),
    ("mlp", lambda m: m.tolist()),
    ("mlp", None),
    ("mode", "other"),
    ("reduce", "max"),
    ("difference", "distance"),
)


def attention_case(name: str, mode: str, reduce: str, difference: str, masked: bool = False) -> Case:
    settings = {"mode": mode, "reduce": reduce, "difference": difference}
    return Case(
        name,
        pair_attention,
        settings | {"masked": masked},
        lambda *tensors: attention(*tensors, reference_form=True, masked=masked, **settings),
        attention_inputs(mode, difference),
        {"batch": 2, "queries": 3, "keys": 4},
        at_least={"queries": 1, "keys": 1} if masked else {},
        wrong=() if masked else WRONG_PAIRS,
        tensors=("q", "k", "x_q", "mlp"),
        operators=("pair_attention", "pair_attention_gradient"),
        wide=("x_q",),
        contiguous=False,
    )


CASES = (
    attention_case("pair attention", "mix", "softmax", "vector"),
    attention_case("pair attention masked", "mix", "softmax", "vector", masked=True),
    attention_case("pair attention bias", "bias", "softmax", "vector"),
    attention_case("pair attention sum", "mix", "sum", "distance2"),
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
    theta = [torch.randn(2, HEADS, n, WIDTH, dtype=torch.float64) for n in (3, 4, 4)]
    theta += [torch.randn(2, n, 2, dtype=torch.float64) for n in (3, 4)]
    sizes = (2 + HEADS, *HIDDEN, HEADS)
    theta += [torch.randn(*size, dtype=torch.float64) for n, m in pairwise(sizes) for size in ((m, n), (m,))]
    mask = torch.tensor([[[True, False, True, True]], [[True, True, True, True]]])
    settings = ("mix", "softmax", "vector")
    grad = torch.randn(2, HEADS, 3, WIDTH + 1, dtype=torch.float64)
    return (
        ("processes", "pair_attention", (*theta, mask, *settings)),
        ("processes", "pair_attention_gradient", (grad, *theta, mask, None, *settings)),
        ("processes", "set_conv", (y, t, s, list(SHAPE), [0, 0])),
        ("processes powers", "set_conv", (y, t, s, list(SHAPE), [1, 2])),
        ("processes", "set_conv_decode", (grid, t, s, [0, 0])),
        ("processes powers", "set_conv_decode", (grid, t, s, [2, 1])),
        ("processes", "set_conv_moments", (t, s, y, grid, True)),
        ("processes second", "set_conv_moments", (t, s, y, grid, False)),
    )


REGISTERED = _registered()
