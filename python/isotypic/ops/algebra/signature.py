"""A geometric algebra of four generators from its metric: products, equivariant linear maps, inner product. numpy only.

The one place that knows a table. `tools/generate_algebra.py` writes the same as straight-line C++; the references in plain torch and the
layers read it from here. A further signature is one line of `SIGNATURES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SIGNATURES: dict[str, tuple[int, int, int, int]] = {
    "pga": (0, 1, 1, 1),  # G(3,0,1), Euclidean space
    "sta": (1, -1, -1, -1),  # G(1,3), spacetime
}
"""The squares of e0, e1, e2, e3."""

BLADES = tuple(blade for grade in range(5) for blade in combinations(range(4), grade))
"""1 | e0 e1 e2 e3 | e01 e02 e03 e12 e13 e23 | e012 e013 e023 e123 | e0123"""

GRADES = tuple(len(blade) for blade in BLADES)
_INDEX = {blade: i for i, blade in enumerate(BLADES)}

Table = NDArray[np.int8]


def _multiply(a: tuple[int, ...], b: tuple[int, ...], metric: tuple[int, ...]) -> tuple[int, int]:
    """The index and the sign of e_a e_b: neighbours are exchanged until sorted, equal ones become their square."""
    factors, sign = [*a, *b], 1
    for end in range(len(factors) - 1, 0, -1):
        for i in range(end):
            if factors[i] > factors[i + 1]:
                factors[i], factors[i + 1], sign = factors[i + 1], factors[i], -sign
    kept: list[int] = []
    for factor in factors:
        if kept and kept[-1] == factor:
            sign *= metric[kept.pop()]
        else:
            kept.append(factor)
    return _INDEX[tuple(kept)], sign


@dataclass(frozen=True)
class Algebra:
    """The tables of one signature. A product is (16, 16, 16) with z_i = sum_jk table[i, j, k] x_j y_k."""

    name: str
    metric: tuple[int, int, int, int]

    @cached_property
    def geometric(self) -> Table:
        """192 entries for G(3,0,1), 256 for a metric without zeros; all of them 1 or -1."""
        table = np.zeros((16, 16, 16), np.int8)
        for j, a in enumerate(BLADES):
            for k, b in enumerate(BLADES):
                i, sign = _multiply(a, b, self.metric)
                table[i, j, k] += sign
        return table

    @cached_property
    def outer(self) -> Table:
        """The part of the geometric product in which grades add up: 81 entries."""
        grades = np.array(GRADES)
        return self.geometric * (grades[:, None, None] == grades[None, :, None] + grades)

    @cached_property
    def dual_signs(self) -> NDArray[np.int8]:
        """dual(x)_i = signs[i] x_{15-i}, with e_a dual(e_a) = e0123."""
        free = Algebra("", (1, 1, 1, 1)).geometric
        return np.array([free[15, 15 - i, i] for i in range(16)], np.int8)

    @cached_property
    def join(self) -> Table:
        """dual(dual x ^ dual y): 81 entries. It differs in sign from the regressive product at odd total grade."""
        signs, turned = self.dual_signs, self.outer[::-1, ::-1, ::-1]
        return turned * signs[:, None, None] * signs[::-1, None] * signs[::-1]

    @cached_property
    def reversal(self) -> NDArray[np.int8]:
        return np.array([(-1) ** (grade * (grade - 1) // 2) for grade in GRADES], np.int8)

    @cached_property
    def involution(self) -> NDArray[np.int8]:
        return np.array([(-1) ** grade for grade in GRADES], np.int8)

    @cached_property
    def inner(self) -> NDArray[np.int8]:
        """<x, y> = sum_i inner[i] x_i y_i, the scalar part of (reverse x) y."""
        return np.diagonal(self.geometric[0]) * self.reversal

    @property
    def degenerate(self) -> bool:
        return 0 in self.metric

    @cached_property
    def turn(self) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """(16,) source and (16,) sign of the map that mixes grades: the multiplication by e0 from the left where that squares to zero, by
        the pseudoscalar from the right otherwise. Where the sign is zero there is no source."""
        table = self.geometric[:, 1, :] if self.degenerate else self.geometric[:, :, 15]
        return np.abs(table).argmax(1), table.sum(1).astype(np.int8)

    @property
    def maps(self) -> int:
        """Equivariant linear maps: 9 in G(3,0,1); 5 projections and 5 with the pseudoscalar in G(1,3)."""
        return 9 if self.degenerate else 10

    @cached_property
    def linear(self) -> NDArray[np.float64]:
        """(maps, 16, 16): y = map x. Five grade projections, then those that mix grades, one for each grade that they take.

        G(3,0,1): each divided by its Frobenius norm. G(1,3): not, as `lgatr` has it.
        """
        source, sign = self.turn
        grades = np.array(GRADES)
        maps = [np.diag((grades == grade).astype(float)) for grade in range(5)]
        for grade in range(self.maps - 5):
            table = np.zeros((16, 16))
            for i in range(16):
                if sign[i] and grades[source[i]] == grade:
                    table[i, source[i]] = sign[i]
            maps.append(table)
        if self.degenerate:
            maps = [table / np.linalg.norm(table) for table in maps]
        return np.array(maps)

    @property
    def scalars(self) -> tuple[int, ...]:
        """The components through which scalars enter and leave."""
        return (0,) if self.degenerate else (0, 15)


_ALGEBRAS = {name: Algebra(name, metric) for name, metric in SIGNATURES.items()}


def algebra(name: str) -> Algebra:
    return _ALGEBRAS[name]
