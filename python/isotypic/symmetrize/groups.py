"""The groups that a network can be made symmetric under, as products of factors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from isotypic import groups as finite_groups

TAGS = {
    "permutations": ("node", "edge"),
    "isometries": ("vector", "axial", "point"),
    "finite": ("vector", "axial", "field"),
    "special linear": ("vector", "form"),
}
"""The tags that each kind of factor acts on; on all others, it acts trivially."""


@dataclass(frozen=True)
class Permutations:
    """S_n: the orders of the nodes."""

    name: str = "S_n"
    kind: str = "permutations"


@dataclass(frozen=True)
class Isometries:
    """O(d), SO(d), E(d) or SE(d)."""

    name: str
    d: int
    proper: bool
    affine: bool
    kind: str = "isometries"


@dataclass(frozen=True)
class FiniteGroup:
    """A group of `isotypic.groups`."""

    group: finite_groups.Group
    kind: str = "finite"

    @property
    def name(self) -> str:
        return self.group.name


@dataclass(frozen=True)
class SpecialLinear:
    """SL(2, R), on vectors of the plane and on binary forms."""

    name: str = "SL(2,R)"
    d: int = 2
    kind: str = "special linear"


Factor = Permutations | Isometries | FiniteGroup | SpecialLinear


def dimension(factor: Factor) -> int:
    """Of the space that the factor acts on; 0 for S_n."""
    return 0 if isinstance(factor, Permutations) else factor.group.dim if isinstance(factor, FiniteGroup) else factor.d


def parse(operator: str, group: Any) -> tuple[Factor, ...]:
    """The factors of "S_n x O(3)", of a `groups.Group`, or of a sequence of such.

    Raises ValueError for an unknown name and for two factors that act on the same tags, TypeError for other objects.
    """
    if isinstance(group, str):
        factors = tuple(_named(operator, name) for name in re.split(r"\s+x\s+|\s*×\s*", group.strip()))
    elif isinstance(group, (tuple, list)) and group:
        factors = tuple(factor for part in group for factor in parse(operator, part))
    elif isinstance(group, finite_groups.Group):
        factors = (FiniteGroup(group),)
    else:
        raise TypeError(f"{operator}: group must be a name, a groups.Group or a sequence of these, got {group!r}")
    kinds = ["space" if factor.kind != "permutations" else factor.kind for factor in factors]
    if len(set(kinds)) != len(kinds):
        raise ValueError(f"{operator}: group must be at most one factor S_n and one that acts on space, got {group!r}")
    return factors


def _named(operator: str, name: str) -> Factor:
    if name in ("S_n", "S"):
        return Permutations()
    if re.fullmatch(r"S_\d+", name):
        return Permutations()  # the number of nodes is that of the input
    if match := re.fullmatch(r"(S?)(O|E)\((\d+)\)", name):
        d = int(match[3])
        if d not in (2, 3, 4):
            raise ValueError(f"{operator}: group {name} must have dimension 2, 3 or 4")
        return Isometries(name, d, proper=bool(match[1]), affine=match[2] == "E")
    if re.fullmatch(r"SL\(2(, ?R)?\)", name):
        return SpecialLinear()
    try:
        return FiniteGroup(finite_groups.get(name))
    except ValueError:
        known = ", ".join(finite_groups.names())
        raise ValueError(
            f"{operator}: unknown group {name!r}; known are S_n, O(d), SO(d), E(d), SE(d), SL(2,R), {known}, and products of S_n with one, "
            "as in 'S_n x O(3)'"
        ) from None


def tags_of(operator: str, name: str, rep: Any, factors: tuple[Factor, ...]) -> tuple[str, ...]:
    """The tags in "node vector"; none for "scalar".

    Raises ValueError for unknown tags, for two of one factor, and for one that no factor acts on.
    """
    if not isinstance(rep, str):
        raise TypeError(f"{operator}: {name} must be a string of tags or a nest of them, got {rep!r}")
    known = {tag for factor in factors for tag in TAGS[factor.kind]}
    every = {tag for tags in TAGS.values() for tag in tags}
    tags = tuple(tag for tag in rep.split() if tag != "scalar")
    for tag in tags:
        if tag not in every:
            raise ValueError(f"{operator}: {name} must be made of scalar, {', '.join(sorted(every))}, got {rep!r}")
        if tag not in known:
            product = " x ".join(factor.name for factor in factors)
            raise ValueError(f"{operator}: {name} is {rep!r}, but {product} does not act on {tag}; use scalar")
    for factor in factors:
        if sum(tag in TAGS[factor.kind] for tag in tags) > 1:
            raise ValueError(f"{operator}: {name} must have one tag for {factor.name}, got {rep!r}")
        if "point" in tags and isinstance(factor, Isometries) and not factor.affine:
            tags = tuple("vector" if tag == "point" else tag for tag in tags)
    return tags
