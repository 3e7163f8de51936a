"""How the elements of a group move inputs and outputs: what `clone` and `symmetry_report` take as a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isotypic import groups, testing
from isotypic.nn._arguments import resolve_group

Field = str
"""For finite groups "scalar" or "regular"; for the others tags, as those of `symmetrize.Symmetrize`: "node vector"."""
SHIFTS = "shifts"


class FiniteAction:
    """A finite group on fields, as `isotypic.testing.act`; an output without spatial axes is invariant, or regular with |G| on axis 2."""

    kind = "elements beside the identity"

    def __init__(self, owner: str, group: str | groups.Group, in_field: Field, out_field: Field | None) -> None:
        for name, field in (("in_field", in_field), ("out_field", out_field)):
            if field not in ("scalar", "regular") and not (field is None and name == "out_field"):
                raise ValueError(f"{owner}: {name} must be 'scalar' or 'regular', got {field!r}")
        self.group = resolve_group(owner, group)
        self.name = self.group.name
        self.in_field: Any = in_field
        self.out_field: Any = out_field

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
    kind = "shifts beside the identity"

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


class SampledAction:
    """S_n, O(d), SO(d), E(d), SE(d), or S_n with one of the others, by random elements: uniform permutations and rotations, translations
    from N(0, 1). An element is the seed that it is drawn with.

    Tags say what moves: "node" the axis after the batch, "edge" the two after it, "vector", "axial" (times the determinant) and "point"
    (with translations too) the last one.
    """

    kind = "random elements"

    def __init__(self, owner: str, factors: Sequence[re.Match[str]], in_field: Field | None, out_field: Field | None) -> None:
        self.owner, self.name = owner, " x ".join(factor[0] for factor in factors)
        isometries = [factor for factor in factors if factor["d"]]
        self.permutes = len(isometries) < len(factors)
        self.dim = int(isometries[0]["d"]) if isometries else 0
        self.proper, self.affine = bool(isometries and isometries[0]["proper"]), bool(isometries and isometries[0]["letter"] == "E")
        self.in_tags, self.out_tags = self._tags("in_field", in_field), self._tags("out_field", out_field)
        if not self.in_tags:
            raise ValueError(f"{owner}: in_field must have a tag that {self.name} acts on, got {in_field!r}")

    def _tags(self, name: str, field: Field | None) -> tuple[str, ...]:
        axes = [("node", "edge")] * self.permutes + [("vector", "axial", "point")] * (self.dim > 0)
        known = [tag for tags in axes for tag in tags]
        found = tuple(tag for tag in (field or "").split() if tag != "scalar")
        wrong = [tag for tag in found if tag not in known] or any(sum(tag in tags for tag in found) > 1 for tags in axes)
        if not isinstance(field, str) or not field.split() or wrong:
            expected = "scalar or " + " and ".join(f"one of {', '.join(tags)}" for tags in axes)
            raise ValueError(f"{self.owner}: {name} must be {expected} for {self.name}, got {field!r}")
        return found

    def elements(self, x: Tensor, limit: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        return [(int(seed),) for seed in torch.randint(2**31, (limit,), generator=generator)]

    def input(self, element: Sequence[int], x: Tensor) -> Tensor:
        return self._act("an input", element[0], x, self.in_tags)

    def output(self, element: Sequence[int], y: Tensor) -> Tensor:
        return self._act("an output", element[0], y, self.out_tags)

    def _act(self, what: str, seed: int, x: Tensor, tags: tuple[str, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        nodes = 2 if "edge" in tags else int("node" in tags)
        vectors = int(bool({"vector", "axial", "point"} & set(tags)))
        if x.dim() < 1 + nodes + vectors or (nodes == 2 and x.shape[1] != x.shape[2]) or (vectors and x.shape[-1] != self.dim):
            expected = ", ".join(["B", *["n"] * nodes, "...", *[f"{self.dim}"] * vectors])
            raise ValueError(f"{self.owner}: {what} must have shape ({expected}), got {tuple(x.shape)}")
        if vectors:
            q, r = torch.linalg.qr(torch.randn(self.dim, self.dim, dtype=torch.float64, generator=generator))
            q = q * r.diagonal().sign()  # so that the law is uniform
            if self.proper:
                q = torch.cat([q[:, :-1], q[:, -1:] * torch.linalg.det(q)], 1)
            shift = torch.randn(self.dim, dtype=torch.float64, generator=generator)
            q = q * torch.linalg.det(q) if "axial" in tags else q
            x = x @ q.mT.to(x)
            if "point" in tags and self.affine:
                x = x + shift.to(x)
        if nodes:
            # By the seed alone, whether there were vectors before or not.
            order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed + 1)).to(x.device)
            x = x[:, order] if nodes == 1 else x[:, order][:, :, order]
        return x


Action = FiniteAction | ShiftAction | SampledAction
SAMPLED = re.compile(r"S_n|(?P<proper>S?)(?P<letter>[OE])\((?P<d>[1-9]\d*)\)")


def resolve_action(owner: str, group: str | groups.Group, in_field: Field | None = None, out_field: Field | None = None) -> Action:
    """ "shifts", a finite group by name or by itself, or one that is drawn from, as "S_n x O(3)"."""
    if isinstance(group, str):
        if group == SHIFTS:
            return ShiftAction(owner)
        factors = [SAMPLED.fullmatch(name) for name in re.split(r"\s+x\s+", group.strip())]
        known = [factor for factor in factors if factor is not None]
        if len(known) == len(factors):
            if len({bool(factor["d"]) for factor in known}) < len(known):
                raise ValueError(f"{owner}: group must have at most one factor S_n and one that acts on space, got {group!r}")
            return SampledAction(owner, known, in_field, out_field)
    return FiniteAction(owner, group, in_field or "scalar", out_field)
