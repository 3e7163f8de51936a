"""The weight-space operators, for the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from contract_case import Case
from torch import Tensor

import isotypic as iso
from isotypic.ops import weight_layout
from isotypic.ops.weights import reference as reference_weights

WIDTHS = [2, 3, 4, 1]
ELEMENTS = 4


def weight_pool(x: Tensor, basis: Tensor | None = None, **settings: Any) -> Tensor:
    """With the basis by position, as the contract passes tensors."""
    return iso.ops.weight_pool(x, basis=basis, **settings)


def weight_affine(x: Tensor, mix: Tensor, terms: Tensor | None = None, **settings: Any) -> Tensor:
    """With the terms of one network for all, so that only x has the batch."""
    if isinstance(terms, Tensor) and isinstance(x, Tensor) and terms.dim() == 2:
        terms = terms.expand(x.shape[0], *terms.shape)
    return iso.ops.weight_affine(x, mix, terms, **settings)


def permute_entries(element: int, x: Tensor, widths: list[int], symmetry: str) -> Tensor:
    """Neurons of permuted labels in another order: W_i[r, s] -> W_i[p_i^-1 r, p_{i-1}^-1 s], b_i[r] -> b_i[p_i^-1 r]."""
    orders = neuron_orders(element, widths, symmetry)
    parts, entry = [], 0
    for i in range(1, len(widths)):
        rows, columns = widths[i], widths[i - 1]
        block = x[:, entry : entry + rows * columns].unflatten(1, (rows, columns))
        bias = x[:, entry + rows * columns : entry + rows * (columns + 1)]
        parts += [block[:, orders[i]][:, :, orders[i - 1]].flatten(1, 2), bias[:, orders[i]]]
        entry += rows * (columns + 1)
    return torch.cat(parts, 1)


def neuron_orders(element: int, widths: list[int], symmetry: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(element)
    last = len(widths) - 1
    moved = [element > 0 and (symmetry == "all" or 0 < i < last) for i in range(last + 1)]
    # A roll beside the random order, so that no element but the first is the identity.
    return [
        torch.randperm(d, generator=generator).roll(element) if move else torch.arange(d) for d, move in zip(widths, moved, strict=True)
    ]


def permute_rows(element: int, pooled: Tensor, widths: list[int], rank: int) -> Tensor:
    """The same on what is pooled."""
    orders = neuron_orders(element, widths, "hidden")
    layout = weight_layout(widths, "hidden", rank)
    parts = []
    for n in layout.nodes:
        rows = pooled[:, n.offset : n.offset + n.width * n.slots].unflatten(1, (n.width, n.slots))
        parts.append(rows[:, orders[n.label]].flatten(1, 2))
    return torch.cat([*parts, pooled[:, layout.global_offset :]], 1)


def linear_inputs(widths: list[int], symmetry: str) -> Callable[[dict[str, int]], tuple[Tensor, ...]]:
    layout = weight_layout(widths, symmetry)

    def inputs(override: dict[str, int]) -> tuple[Tensor, ...]:
        s = {"batch": 2, "fields": 2} | override
        x = torch.randn(s["batch"], layout.entries, s["fields"], dtype=torch.float64)
        return x, torch.randn(layout.linear, s["fields"], 2, dtype=torch.float64), torch.randn(layout.affine, 2, dtype=torch.float64)

    return inputs


def affine_inputs(override: dict[str, int]) -> tuple[Tensor, ...]:
    s = {"batch": 2, "fields": 2, "out": 3} | override
    layout = weight_layout(WIDTHS)
    x = torch.randn(s["batch"], layout.entries, s["fields"], dtype=torch.float64)
    mix = torch.randn(layout.mixed, s["fields"], s["out"], dtype=torch.float64)
    return x, mix, torch.randn(layout.rows, s["out"], dtype=torch.float64)


def pool_inputs(override: dict[str, int]) -> tuple[Tensor, ...]:
    s = {"batch": 2, "fields": 2, "rank": 2} | override
    x = torch.randn(s["batch"], weight_layout(WIDTHS).entries, s["fields"], dtype=torch.float64)
    return x, torch.randn(s["rank"], WIDTHS[0], dtype=torch.float64)


def wrong(first: str, *others: str) -> tuple[tuple[str, Any], ...]:
    """What no operator takes."""
    common: list[tuple[str, Any]] = [
        (first, lambda x: x.tolist()),
        (first, lambda x: x.numpy()),
        (first, lambda x: x.long()),
        (first, lambda x: x.to(torch.complex64)),
        (first, lambda x: x.to_sparse()),
        (first, lambda x: x[0]),
        (first, lambda x: x[None]),
        (first, lambda x: x[:, :-1]),
        ("widths", [2]),
        ("widths", [2, 0, 4, 1]),
        ("widths", [2, 3.5, 4, 1]),
        ("widths", 3),
        ("symmetry", "none"),
        ("sizes", [[2, 3, 4, 1]]),
        ("sizes", torch.tensor([[2.0, 3.0, 4.0, 1.0]] * 2)),
        ("sizes", torch.tensor([[2, 3, 4, 1]])),
        ("sizes", torch.tensor([[2, 3, 4]] * 2)),
        ("sizes", torch.tensor([[2, 3, 4, 1]] * 2, device="meta")),
        ("sizes", torch.tensor([[2, 3, 4, 1], [2, 3, 5, 1]])),
        ("sizes", torch.tensor([[2, 3, 4, 1], [2, 0, 4, 1]])),
        ("sizes", torch.tensor([[2, 3, 4, 1], [1, 3, 4, 1]])),
    ]
    for name in others:
        common += [
            (name, lambda t: t.float()),
            (name, lambda t: t.int()),
            (name, lambda t: t.to("meta")),
            (name, lambda t: t[None]),
            (name, lambda t: t[..., :-1]),
            (name, 1.0),
        ]
    return tuple(common)


def linear_case(name: str, widths: list[int], symmetry: str, pool: str, wrong: tuple[tuple[str, Any], ...] = ()) -> dict[str, Any]:
    layout = weight_layout(widths, symmetry)
    return {
        "name": name,
        "operator": iso.ops.weight_linear,
        "settings": {"widths": widths, "symmetry": symmetry, "pool": pool},
        "reference": lambda x, weight, bias: reference_weights.weight_linear(x, weight, bias, None, layout, pool),
        "inputs": linear_inputs(widths, symmetry),
        "sizes": {"batch": 2, "fields": 2},
        "act": lambda element, x: permute_entries(element, x, widths, symmetry),
        "act_output": lambda element, y: permute_entries(element, y, widths, symmetry),
        "order": ELEMENTS,
        "wrong": wrong,
        "operators": ("weight_linear", "weight_linear_transpose", "weight_linear_gradient"),
    }


# The fields of contract_cases.Case.
_CASES: tuple[dict[str, Any], ...] = (
    linear_case(
        "weight linear",
        WIDTHS,
        "hidden",
        "mean",
        wrong=(
            *(entry for entry in wrong("x", "weight", "bias") if entry[0] != "weight"),
            ("weight", lambda w: w.float()),
            ("weight", lambda w: w.to("meta")),
            ("weight", lambda w: w[:-1]),
            ("weight", lambda w: w[:, :-1]),
            ("weight", None),
            ("widths", [1] * 40),
            ("pool", "median"),
            ("project", torch.zeros(2, 3, dtype=torch.float64)),
            ("project", torch.zeros(2, 2, dtype=torch.float64)),
            ("expand", torch.zeros(2, 2, dtype=torch.float64)),
        ),
    ),
    linear_case("weight linear all", [3, 4, 2], "all", "sum"),
    {
        "name": "weight affine",
        "operator": weight_affine,
        "settings": {"widths": WIDTHS},
        "reference": lambda x, mix, terms: reference_weights.weight_affine(
            x, mix, terms.expand(len(x), *terms.shape), None, None, weight_layout(WIDTHS)
        ),
        "inputs": affine_inputs,
        "sizes": {"batch": 2, "fields": 2, "out": 3},
        "wrong": (
            *(entry for entry in wrong("x", "terms")),
            ("mix", lambda m: m.float()),
            ("mix", lambda m: m[:, 1:]),
            ("mix", lambda m: m[0]),
            ("mix", None),
            ("basis", torch.zeros(2, 3, dtype=torch.float64)),
        ),
        "tensors": ("x", "mix", "terms"),
        "operators": ("weight_affine", "weight_pool", "weight_mix_gradient"),
    },
    {
        "name": "weight pool",
        "operator": weight_pool,
        "settings": {"widths": WIDTHS},
        "reference": lambda x, basis: reference_weights.weight_pool(x, basis, None, weight_layout(WIDTHS, "hidden", len(basis)), "mean"),
        "inputs": pool_inputs,
        "sizes": {"batch": 2, "fields": 2, "rank": 2},
        "at_least": {"rank": 1},
        "act": lambda element, x: permute_entries(element, x, WIDTHS, "hidden"),
        "act_output": lambda element, y: permute_rows(element, y, WIDTHS, 2),
        "order": ELEMENTS,
        "wrong": (*wrong("x", "basis"), ("pool", "median"), ("symmetry", "all")),
        "tensors": ("x", "basis"),
        "operators": ("weight_pool", "weight_affine", "weight_basis_gradient"),
    },
)


CASES = tuple(Case(**entry) for entry in _CASES)


def _registered() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    """The registered operators with arguments; one network of two is smaller than the others."""
    x, weight, bias = linear_inputs(WIDTHS, "hidden")({})
    layout, low_rank = weight_layout(WIDTHS), weight_layout(WIDTHS, "hidden", 2)
    sizes = torch.tensor([WIDTHS, [2, 3, 2, 1]])
    y, basis = torch.randn(2, layout.entries, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    pooled = torch.randn(2, layout.rows, 2, dtype=torch.float64)
    low_rank_pooled = torch.randn(2, low_rank.rows, 2, dtype=torch.float64)
    mix = torch.randn(low_rank.mixed, 2, 2, dtype=torch.float64)
    low_rank_weight = torch.randn(low_rank.linear, 2, 2, dtype=torch.float64)
    low_rank_bias, expand = torch.randn(low_rank.affine, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    plain, with_basis = (WIDTHS, "hidden", 0, True), (WIDTHS, "hidden", 2, True)
    return (
        ("weights", "weight_linear", (x, weight, bias, None, None, None, *plain)),
        ("ragged", "weight_linear", (x, weight, bias, None, None, sizes, *plain)),
        ("low rank", "weight_linear", (x, low_rank_weight, low_rank_bias, basis, expand, sizes, *with_basis)),
        ("weights", "weight_linear_transpose", (x, weight, None, *plain)),
        ("ragged", "weight_linear_gradient", (x, y, sizes, *plain)),
        ("ragged", "weight_pool", (x, basis, sizes, *with_basis)),
        ("ragged", "weight_affine", (x, mix, low_rank_pooled, basis, sizes, *with_basis)),
        ("ragged", "weight_mix_gradient", (x, y, sizes, *plain[:3])),
        ("ragged", "weight_basis_gradient", (x, low_rank_pooled, sizes, *with_basis)),
        ("ragged", "weight_select", (y[..., :2].contiguous(), x.detach(), sizes, *plain[:3])),
        ("ragged", "weight_scatter", (pooled, x.detach(), sizes, *plain[:3])),
    )


REGISTERED = _registered()
