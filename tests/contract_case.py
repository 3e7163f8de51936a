"""One way of calling an operator, as tests/test_contract.py puts it through every guarantee."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

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
