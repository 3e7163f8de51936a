"""Flops of the registered operators, for ``torch.utils.flop_counter.FlopCounterMode``.

What counts is what torch counts in its own operators: products, two flops for each multiply-add, and no passes over memory (sums,
normalisation, copies). The figure is that of the kernel's formula, zeros skipped, and not that of a dense operator in its place.

Each family has its formulas in ``ops/<family>/flops.py``; a new operator gets one there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import register_flop_formula

Formula = TypeVar("Formula", bound=Callable[..., int])


def flops(*routed: Callable[..., Any], tensors: bool = False) -> Callable[[Formula], Formula]:
    """Registers ``formula(*arguments, out_shape=...)`` for operators, given as what ``_register.define`` returned.

    The formula gets a tensor's shape in the place of each tensor; None stays None. With `tensors` it gets the tensors themselves and
    ``out_val``, for work that depends on their values or dtypes.
    """

    def decorate(formula: Formula) -> Formula:
        for operator in routed:
            register_flop_formula(getattr(torch.ops.isotypic, operator.__name__), get_raw=tensors)(formula)
        return formula

    return decorate


def operators() -> frozenset[str]:
    """The names of all registered operators of the package, as "isotypic::group_conv"."""
    names: list[Any] = torch._C._dispatch_get_all_op_names()
    return frozenset(name.partition(".")[0] for name in names if name.startswith("isotypic::"))
