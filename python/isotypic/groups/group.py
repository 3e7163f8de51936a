"""A finite group of integer matrices, its tables, its irreducible representations and its Fourier matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["real", "complex", "quaternionic"]
MULTIPLICITY: dict[Kind, int] = {"real": 1, "complex": 2, "quaternionic": 4}


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same values, contiguous and protected against writing: groups are shared by everybody who asks for them."""
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def residue_codes(elements: NDArray[np.int64]) -> NDArray[np.int64]:
    """One integer for each matrix, its residue modulo 3 in base 3.

    Reduction modulo 3 is injective on every finite group of integer matrices (Minkowski 1887), so the code identifies an element.
    """
    n = elements.shape[-1]
    digits = np.mod(elements, 3).reshape(*elements.shape[:-2], n * n)
    codes: NDArray[np.int64] = digits @ (3 ** np.arange(n * n, dtype=np.int64))
    return codes


def multiplication_table(elements: NDArray[np.int64]) -> NDArray[np.int64]:
    """``table[a, b]`` is the index of the product of elements a and b; (order, order)."""
    codes = residue_codes(elements)
    by_code = np.argsort(codes)
    residues = np.mod(elements, 3)
    products = residue_codes(np.einsum("aij,bjk->abik", residues, residues))
    return by_code[np.searchsorted(codes[by_code], products)]


def generating_set(table: NDArray[np.int64]) -> list[int]:
    """A small set of indices that generates the group; elements of high order first, so that few are needed."""
    order = len(table)
    orders = element_orders(table)
    generators: list[int] = []
    members = np.zeros(order, dtype=bool)
    members[0] = True
    for candidate in np.argsort(-orders, kind="stable"):
        if members[candidate]:
            continue
        generators.append(int(candidate))
        frontier = [0]
        members[:] = False
        members[0] = True
        while frontier:
            products = np.unique(table[np.ix_(frontier, generators)])
            frontier = [int(p) for p in products if not members[p]]
            members[frontier] = True
        if members.all():
            break
    return generators


def element_orders(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest k >= 1 with a^k = identity for every element a; (order,)."""
    power = np.arange(len(table))
    orders = np.zeros(len(table), dtype=np.int64)
    for k in range(1, len(table) + 1):
        orders[(power == 0) & (orders == 0)] = k
        if orders.all():
            break
        power = table[power, np.arange(len(table))]
    return orders


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real irreducible representation by orthogonal matrices in an adapted basis.

    ``kind`` names the algebra of matrices that commute with the representation. In the complex kind every matrix is
    ``[[Re, -Im], [Im, Re]]`` in blocks of size dim / 2; in the quaternionic kind it is
    ``[[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]`` in blocks of size dim / 4.
    """

    kind: Kind
    matrices: NDArray[np.float64]
    """(order, dim, dim) float64, read-only."""

    @property
    def dim(self) -> int:
        """The dimension over the real numbers."""
        return int(self.matrices.shape[1])

    @property
    def rows(self) -> int:
        """dim / m with m = 1, 2, 4 for the three kinds: the first ``rows`` rows of a matrix determine the others."""
        return self.dim // MULTIPLICITY[self.kind]

    @cached_property
    def character(self) -> NDArray[np.float64]:
        """The trace of every matrix; (order,) float64."""
        return read_only(np.trace(self.matrices, axis1=1, axis2=2))

    def __repr__(self) -> str:
        return f"Irrep(dim={self.dim}, kind={self.kind!r})"


def irrep(matrices: NDArray[Any], kind: Kind = "real") -> Irrep:
    """An irrep from its matrices (order, dim, dim), or from a one-dimensional character (order,)."""
    matrices = np.asarray(matrices, dtype=np.float64)
    if matrices.ndim == 1:
        matrices = matrices[:, None, None]
    return Irrep(kind, read_only(matrices + 0.0))  # + 0.0 turns -0.0 into 0.0


class Group:
    """A finite group G of integer n x n matrices. Get one from :func:`isotypic.groups.get` or :func:`isotypic.groups.generate`.

    Two groups are equal when they have the same elements in the same order.

    Args:
        name: what people call it.
        key: the string that :func:`isotypic.groups.get` rebuilds it from.
        elements: (order, n, n) integers, the identity first.
        irreps: or a function that finds them when they are first asked for.

    >>> from isotypic import groups
    >>> g = groups.get("p4")
    >>> g
    Group('p4', order=4, dim=2, irreps=[1, 1, 2 complex])
    >>> g.multiply[1, g.inverse[1]].item()
    0
    """

    def __init__(
        self,
        name: str,
        key: str,
        elements: NDArray[np.int64],
        irreps: tuple[Irrep, ...] | Callable[[Group], tuple[Irrep, ...]],
    ) -> None:
        self.name = name
        """What people call the group."""
        self.key = key
        """A string from which :func:`isotypic.groups.get` rebuilds the group in any process."""
        self.elements: NDArray[np.int64] = read_only(np.asarray(elements, dtype=np.int64))
        """(order, dim, dim) int64, identity first; they act on the spatial axes in their order."""
        self._irreps = irreps

    @property
    def order(self) -> int:
        """The number of elements |G|."""
        return len(self.elements)

    @property
    def dim(self) -> int:
        """The dimension n of the space the matrices act on."""
        return int(self.elements.shape[1])

    @cached_property
    def preserves_axes(self) -> bool:
        """Whether every element maps coordinate axes to coordinate axes (signed permutations): boxes of equal sides are invariant."""
        return bool((np.abs(self.elements).sum(axis=-1) == 1).all())

    @cached_property
    def multiply(self) -> NDArray[np.int64]:
        """``multiply[a, b]`` is the index of the product a b; (order, order)."""
        return read_only(multiplication_table(self.elements))

    @cached_property
    def inverse(self) -> NDArray[np.int64]:
        """``inverse[a]`` is the index of the inverse of a; (order,)."""
        return read_only(np.argmin(self.multiply, axis=1))

    @cached_property
    def generators(self) -> tuple[int, ...]:
        """Indices of a small generating set; empty for the trivial group."""
        return tuple(generating_set(self.multiply))

    @cached_property
    def irreps(self) -> tuple[Irrep, ...]:
        """The real irreducible representations, the trivial one first, then by dimension."""
        return self._irreps if isinstance(self._irreps, tuple) else self._irreps(self)

    @cached_property
    def fourier(self) -> NDArray[np.float64]:
        """The Fourier matrix F (order, order): rows (irrep, r < rows, k < dim), columns h, entries ``irrep.matrices[h, r, k]``.

        With D = diag(dimension of the row's irrep) / order, F^T D F = 1.
        """
        return read_only(np.concatenate([i.matrices[:, : i.rows].reshape(self.order, -1).T for i in self.irreps]))

    @cached_property
    def fourier_weights(self) -> NDArray[np.float64]:
        """The diagonal of D: the dimension of each Fourier row's irrep, divided by the order; (order,)."""
        return read_only(np.concatenate([np.full(i.rows * i.dim, i.dim / self.order) for i in self.irreps]))

    @cached_property
    def conjugacy_classes(self) -> tuple[tuple[int, ...], ...]:
        """The classes {x a x^-1}, each as sorted indices, in order of their first element; the identity's first."""
        conjugates = self.multiply[self.multiply, self.inverse[:, None]]  # [x, a] = x a x^-1
        first = conjugates.min(axis=0)
        return tuple(tuple(np.flatnonzero(first == a).tolist()) for a in np.unique(first))

    @cached_property
    def character_table(self) -> NDArray[np.float64]:
        """Characters of the real irreps (rows) on the conjugacy classes (columns)."""
        representatives = [c[0] for c in self.conjugacy_classes]
        return read_only(np.stack([i.character[representatives] for i in self.irreps]))

    def index(self, matrix: ArrayLike) -> int:
        """The index of an element given as a matrix (dim, dim).

        Raises ValueError when the matrix is not in the group.
        """
        matrix = np.asarray(matrix)
        if matrix.shape == (self.dim, self.dim):
            found = np.flatnonzero((self.elements == matrix).all(axis=(1, 2)))
            if len(found):
                return int(found[0])
        raise ValueError(f"Group.index: {matrix.tolist()} is no element of {self.name}")

    def subgroup_indices(self, subgroup: Group) -> NDArray[np.int64]:
        """The index in this group of every element of ``subgroup``, in the subgroup's order; (subgroup.order,).

        Raises ValueError when ``subgroup`` acts on another dimension or has an element outside this group.
        """
        if subgroup.dim != self.dim:
            raise ValueError(f"subgroup of {self.name}: must act on dimension {self.dim}, got {subgroup.name} on dimension {subgroup.dim}")
        position = {matrix.tobytes(): index for index, matrix in enumerate(self.elements)}
        indices = [position.get(matrix.tobytes(), -1) for matrix in subgroup.elements]
        if -1 in indices:
            missing = subgroup.elements[indices.index(-1)].tolist()
            raise ValueError(f"subgroup of {self.name}: {subgroup.name} is not a subgroup, its element {missing} is not in {self.name}")
        return np.array(indices, dtype=np.int64)

    def is_subgroup(self, subgroup: Group) -> bool:
        """Whether every element of ``subgroup`` is an element of this group."""
        try:
            self.subgroup_indices(subgroup)
        except ValueError:
            return False
        return True

    def left_cosets(self, subgroup: Group | Sequence[int]) -> NDArray[np.int64]:
        """The cosets a H, one a row: (order / |H|, |H|) indices, row = a H in H's order, a the smallest index of its coset.

        ``subgroup`` is a group, or the indices of a subgroup's elements.
        """
        return self._cosets(self.multiply, subgroup)

    def right_cosets(self, subgroup: Group | Sequence[int]) -> NDArray[np.int64]:
        """The cosets H a, one a row: (order / |H|, |H|) indices, row = H a in H's order, a the smallest index of its coset."""
        return self._cosets(self.multiply.T, subgroup)

    def _cosets(self, product: NDArray[np.int64], subgroup: Group | Sequence[int]) -> NDArray[np.int64]:
        h = self.subgroup_indices(subgroup) if isinstance(subgroup, Group) else np.asarray(subgroup, dtype=np.int64)
        if len(h) == 0 or not np.isin(self.multiply[np.ix_(h, h)], h).all():
            raise ValueError(f"cosets of {self.name}: the indices {h.tolist()} are not closed under multiplication")
        cosets = product[:, h]
        return np.asarray(cosets[cosets.min(axis=1) == np.arange(self.order)])

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Group) and np.array_equal(self.elements, other.elements))

    def __hash__(self) -> int:
        return hash((self.elements.shape, self.elements.tobytes()))

    def __len__(self) -> int:
        return self.order

    def __repr__(self) -> str:
        irreps = ", ".join(str(i.dim) if i.kind == "real" else f"{i.dim} {i.kind}" for i in self.irreps)
        return f"Group({self.name!r}, order={self.order}, dim={self.dim}, irreps=[{irreps}])"
