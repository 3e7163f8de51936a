"""The named groups, with their irreps in closed form.

Groups that are equal as abstract groups list their elements so that their multiplication tables and Fourier matrices coincide
(p2 = pm, p4 = C4, p4m = D4, Td = O), and groups that contain the inversion -1 are the product of a smaller group with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .group import Irrep, irrep

Matrix = NDArray[np.int64]


@dataclass(frozen=True)
class Description:
    """Elements (order, n, n) and irreps of a group, before it becomes a Group."""

    elements: Matrix
    irreps: tuple[Irrep, ...]


def _powers(matrix: list[list[int]], count: int) -> Matrix:
    return np.stack([np.linalg.matrix_power(np.array(matrix, dtype=np.int64), k) for k in range(count)])


def _product(left: Matrix, right: Matrix) -> Matrix:
    """All a b with b's index the slow one."""
    return np.concatenate([left @ b for b in right])


def _by_dimension(irreps: list[Irrep]) -> tuple[Irrep, ...]:
    return tuple(sorted(irreps, key=lambda i: i.dim))


def _with_inversion(base: Description) -> Description:
    """G x {1, -1}: every irrep comes even and odd."""
    irreps = [irrep(np.concatenate([i.matrices, sign * i.matrices]), i.kind) for i in base.irreps for sign in (1, -1)]
    return Description(np.concatenate([base.elements, -base.elements]), _by_dimension(irreps))


def _about_depth(depth: NDArray[np.int64], planar: Matrix) -> Matrix:
    """3 x 3 matrices that act by ``depth`` (order,) on the first axis and by ``planar`` (order, 2, 2) on the other two."""
    elements = np.zeros((len(planar), 3, 3), dtype=np.int64)
    elements[:, 0, 0] = depth
    elements[:, 1:, 1:] = planar
    return elements


# A quarter turn (row, column) -> (-column, row); on axial coordinates of the hexagonal lattice the sixth of a turn is [[0, -1], [1, 1]],
# whose square is the third of a turn, and exchanging the coordinates is a reflection in a line of p3m1.
_QUARTER_TURN = [[0, -1], [1, 0]]
_THIRD_TURN = [[-1, -1], [1, 0]]
_EXCHANGE = [[0, 1], [1, 0]]
_FLIP_COLUMN = [[1, 0], [0, -1]]
_HALF = 0.5
_HALF_ROOT_3 = float(np.sqrt(3.0) / 2)

_TURNS_3 = np.array(
    [[[1, 0], [0, 1]], [[-_HALF, -_HALF_ROOT_3], [_HALF_ROOT_3, -_HALF]], [[-_HALF, _HALF_ROOT_3], [-_HALF_ROOT_3, -_HALF]]]
)


def _reflection_group(elements: Matrix) -> Description:
    """{1, a}: the trivial irrep and the sign."""
    return Description(elements, (irrep(np.ones(2)), irrep(np.array([1.0, -1.0]))))


def _p1() -> Description:
    return Description(np.eye(2, dtype=np.int64)[None], (irrep(np.ones(1)),))


def _p2() -> Description:
    return _reflection_group(_powers([[-1, 0], [0, -1]], 2))


def _pm() -> Description:
    return _reflection_group(_powers(_FLIP_COLUMN, 2))


def _pmm() -> Description:
    return _with_inversion(_pm())


def _p4() -> Description:
    elements = _powers(_QUARTER_TURN, 4)
    alternating = np.array([1.0, -1.0, 1.0, -1.0])
    return Description(elements, (irrep(np.ones(4)), irrep(alternating), irrep(elements, "complex")))


def _p4m() -> Description:
    elements = _product(_powers(_QUARTER_TURN, 4), _powers(_FLIP_COLUMN, 2))
    determinant = np.repeat([1.0, -1.0], 4)
    alternating = np.tile([1.0, -1.0], 4)
    characters = [np.ones(8), determinant, alternating, determinant * alternating]
    return Description(elements, (*map(irrep, characters), irrep(elements)))


def _p3() -> Description:
    return Description(_powers(_THIRD_TURN, 3), (irrep(np.ones(3)), irrep(_TURNS_3, "complex")))


def _p6() -> Description:
    return _with_inversion(_p3())


def _p3m1() -> Description:
    elements = _product(_powers(_THIRD_TURN, 3), _powers(_EXCHANGE, 2))
    plane = np.concatenate([_TURNS_3, _TURNS_3 @ np.diag([1.0, -1.0])])
    return Description(elements, (irrep(np.ones(6)), irrep(np.repeat([1.0, -1.0], 3)), irrep(plane)))


def _p6m() -> Description:
    return _with_inversion(_p3m1())


def _c4() -> Description:
    planar = _p4()
    return Description(_about_depth(np.ones(4, dtype=np.int64), planar.elements), planar.irreps)


def _d4() -> Description:
    planar = _p4m()
    return Description(_about_depth(np.repeat([1, -1], 4), planar.elements), planar.irreps)


def _d4h() -> Description:
    return _with_inversion(_d4())


_HALF_TURNS = np.stack([np.diag(d) for d in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])]).astype(np.int64)
_CYCLE = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
_EXCHANGE_LAST = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def _t() -> Description:
    """Half turns times the cyclic permutations of the axes, on which C3 acts."""
    elements = _product(_HALF_TURNS, _powers(_CYCLE, 3))
    turns = np.repeat(_TURNS_3, 4, axis=0)
    return Description(elements, (irrep(np.ones(12)), irrep(turns, "complex"), irrep(elements)))


def _octahedral(exchange: list[list[int]]) -> Description:
    """T and T times an exchange of two axes: O when the exchange is a rotation, Td when it is a reflection."""
    t = _t()
    elements = _product(t.elements, _powers(exchange, 2))
    sign = np.repeat([1.0, -1.0], 12)
    turns = t.irreps[1].matrices
    plane = np.concatenate([turns, turns @ np.diag([1.0, -1.0])])
    rotations = np.concatenate([t.elements, -t.elements @ np.array(_EXCHANGE_LAST)])
    reflections = rotations * sign[:, None, None]
    return Description(elements, (irrep(np.ones(24)), irrep(sign), irrep(plane), irrep(rotations), irrep(reflections)))


def _o() -> Description:
    return _octahedral([[-entry for entry in row] for row in _EXCHANGE_LAST])


def _td() -> Description:
    return _octahedral(_EXCHANGE_LAST)


def _th() -> Description:
    return _with_inversion(_t())


def _oh() -> Description:
    return _with_inversion(_o())


NAMED: dict[str, Callable[[], Description]] = {
    # the plane, square lattice, (row, column)
    "p1": _p1, "p2": _p2, "pm": _pm, "pmm": _pmm, "p4": _p4, "p4m": _p4m,
    # the plane, hexagonal lattice in axial coordinates
    "p3": _p3, "p3m1": _p3m1, "p6": _p6, "p6m": _p6m,
    # space, (depth, row, column); C4, D4 and D4h about the depth axis
    "C4": _c4, "D4": _d4, "D4h": _d4h, "T": _t, "Th": _th, "O": _o, "Td": _td, "Oh": _oh,
}  # fmt: skip
