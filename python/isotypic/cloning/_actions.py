"""How the elements of a group move inputs and outputs: what `clone` and `symmetry_report` take as a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from isotypic import groups, testing
from isotypic.nn._arguments import resolve_group

Field = Literal["scalar", "regular"]
SHIFTS = "shifts"


class FiniteAction:
    """A finite group on fields, as `isotypic.testing.act`; an output without spatial axes is invariant, or regular with |G| on axis 2."""

    def __init__(self, owner: str, group: str | groups.Group, in_field: Field, out_field: Field | None) -> None:
        for name, field in (("in_field", in_field), ("out_field", out_field)):
            if field not in ("scalar", "regular") and not (field is None and name == "out_field"):
                raise ValueError(f"{owner}: {name} must be 'scalar' or 'regular', got {field!r}")
        self.group = resolve_group(owner, group)
        self.name, self.in_field, self.out_field = self.group.name, in_field, out_field

    def elements(self, x: Tensor, limit: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """Elements but for the identity: all of them, or `limit` different ones drawn from them."""
        return [(int(element) + 1,) for element in torch.randperm(self.group.order - 1, generator=generator)[:limit].sort().values]

    def input(self, element: Sequence[int], x: Tensor) -> Tensor:
        return testing.act(self.group, element[0], x, self.in_field)

    def output(self, element: Sequence[int], y: Tensor) -> Tensor:
        regular = y.dim() in (3, 3 + self.group.dim) and y.shape[2] == self.group.order and self.group.order > 1
        return testing.act(self.group, element[0], y, self.out_field or ("regular" if regular else "scalar"))


class ShiftAction:
    """Cyclic shifts of the spatial axes, which are those after the second; outputs of other sizes have to be invariant, (B, C)."""

    name = SHIFTS

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def elements(self, x: Tensor, limit: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        if x.dim() < 3:
            raise ValueError(f"{self.owner}: an input must have spatial axes (B, C, *spatial) for shifts, got {tuple(x.shape)}")
        sizes = x.shape[2:]
        total = sizes.numel()
        chosen = torch.randperm(total - 1, generator=generator)[:limit].sort().values + 1
        found = []
        for flat in chosen.tolist():
            steps = []
            for size in reversed(sizes):
                steps.append(flat % size)
                flat //= size
            found.append(tuple(reversed(steps)))
        return found

    def input(self, element: Sequence[int], x: Tensor) -> Tensor:
        return x.roll(tuple(element), tuple(range(2, 2 + len(element))))

    def output(self, element: Sequence[int], y: Tensor) -> Tensor:
        if y.dim() == 2:
            return y
        if y.dim() < 2 + len(element):
            raise ValueError(f"{self.owner}: an output must have shape (B, C) or (B, C, ..., *spatial) for shifts, got {tuple(y.shape)}")
        return y.roll(tuple(element), tuple(range(y.dim() - len(element), y.dim())))


Action = FiniteAction | ShiftAction


def resolve_action(owner: str, group: str | groups.Group, in_field: Field = "scalar", out_field: Field | None = None) -> Action:
    """ "shifts", or a finite group by name or by itself."""
    return ShiftAction(owner) if isinstance(group, str) and group == SHIFTS else FiniteAction(owner, group, in_field, out_field)
