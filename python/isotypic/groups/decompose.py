"""Real irreducible representations of any finite group, from its multiplication table.

The commutant of the left regular representation is spanned by right multiplications. Eigenspaces of a random symmetric element of it are
irreducible with probability one (Dixon, "Computing irreducible representations of groups", 1970). One eigenspace is kept for each
character, classified by the norm of the character, and brought to an adapted basis with exact entries where these can be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .group import MULTIPLICITY, Group, Irrep, irrep

Array = NDArray[Any]

_SAME = 1e-8  # two computed values that should be equal; far above rounding errors, far below differences of algebraic numbers
_SIXTEENTHS = np.sqrt(np.array([0, 1, 2, 3, 4, 6, 8, 9, 12, 16]) / 16)  # 0, 1/4, ..., 1/2, sqrt(1/2), sqrt(3)/2, 1
_FIFTHS = np.cos(np.pi * np.array([1, 2]) / 5), np.sin(np.pi * np.array([1, 2]) / 5)
_EXACT = np.concatenate([_SIXTEENTHS, *_FIFTHS])
_SNAPS = np.unique(np.concatenate([_EXACT, np.negative(_EXACT)]))


def decompose(group: Group) -> tuple[Irrep, ...]:
    """All real irreps: the trivial one first, then by dimension, then by kind and character.

    Raises RuntimeError when the representation property does not hold to 1e-12 for any of a few seeds.
    """
    for seed in range(8):
        irreps = _attempt(group, np.random.default_rng(seed))
        if irreps is not None:
            return irreps
    raise RuntimeError(f"groups: the irreps of {group.name} (order {group.order}) could not be computed to 1e-12")


def _attempt(group: Group, random: np.random.Generator) -> tuple[Irrep, ...] | None:
    found: list[Irrep] = []
    for matrices in _irreducible_spaces(group, random):
        norm = float((np.trace(matrices, axis1=1, axis2=2) ** 2).mean())
        kinds = [kind for kind, multiplicity in MULTIPLICITY.items() if abs(norm - multiplicity) < 1e-6]
        if not kinds:
            return None
        adapted = irrep(_snap(_ADAPT[kinds[0]](group, matrices, random)), kinds[0])
        if not _is_representation(group, adapted.matrices):
            return None
        found.append(adapted)
    if sum(i.rows * i.dim for i in found) != group.order:
        return None
    return tuple(sorted(found, key=_sort_key))


def _sort_key(i: Irrep) -> tuple[Any, ...]:
    trivial = bool((i.character > 1 - _SAME).all()) and i.dim == 1
    return (not trivial, i.dim, MULTIPLICITY[i.kind], tuple((-np.round(i.character, 6)).tolist()))


def _irreducible_spaces(group: Group, random: np.random.Generator) -> list[Array]:
    """Matrices (order, dim, dim) of the regular representation on one eigenspace for each character."""
    multiply, inverse, order = group.multiply, group.inverse, group.order
    coefficients = random.standard_normal(order)
    coefficients += coefficients[inverse]
    values, vectors = np.linalg.eigh(coefficients[multiply[inverse]])  # [x, y] = a(x^-1 y) commutes with left multiplication
    breaks = np.flatnonzero(np.diff(values) > _SAME * max(1.0, float(np.abs(values).max()))) + 1

    label = np.zeros(order, dtype=np.int64)
    for number, members in enumerate(group.conjugacy_classes):
        label[list(members)] = number
    class_size = np.bincount(label)

    characters: list[Array] = []
    spaces = []
    for basis in np.split(vectors, breaks, axis=1):
        # Row x of the basis is rho(x) q with q the row of the identity, so <rho(y) q, q> averaged over conjugates of y is the character.
        coefficient = basis @ basis[0]
        character = order * (np.bincount(label, weights=coefficient) / class_size)[label]
        if any(np.abs(character - known).max() < 1e-5 for known in characters):
            continue
        characters.append(character)
        spaces.append(np.stack([basis.T @ basis[multiply[inverse[h]]] for h in range(order)]))
    return spaces


def _is_representation(group: Group, matrices: Array) -> bool:
    """rho(g h) = rho(g) rho(h) for all h and generators g, hence for all g; and orthogonality."""
    identity = np.eye(matrices.shape[1])
    if np.abs(matrices @ matrices.transpose(0, 2, 1) - identity).max() > 1e-12 or np.abs(matrices[0] - identity).max() > 1e-12:
        return False
    return all(np.abs(matrices[group.multiply[g]] - matrices[g] @ matrices).max() <= 1e-12 for g in group.generators)


def _snap(matrices: Array) -> Array:
    """Replaces entries that are within rounding of an exact value by it."""
    position = np.clip(np.searchsorted(_SNAPS, matrices), 1, len(_SNAPS) - 1)
    below, above = _SNAPS[position - 1], _SNAPS[position]
    nearest = np.where(matrices - below < above - matrices, below, above)
    return np.where(np.abs(nearest - matrices) < 1e-9, nearest, matrices)


def _commuting(matrices: Array, random: np.random.Generator) -> Array:
    """A random antisymmetric matrix that commutes with the representation, its square normalised to -1."""
    dim = matrices.shape[1]
    average = (matrices @ random.standard_normal((dim, dim)) @ matrices.transpose(0, 2, 1)).mean(axis=0)
    return _unit(average - average.T)


def _unit(antisymmetric: Array) -> Array:
    scale = float(np.linalg.norm(antisymmetric)) / np.sqrt(len(antisymmetric))
    return np.asarray(antisymmetric / scale)


def _span(units: list[Array]) -> Array:
    """Orthonormal e_1, e_2, ... whose images under all ``units`` (the identity among them) form an orthonormal basis; (dim, rows)."""
    dim = len(units[0])
    chosen = np.zeros((dim, 0))
    basis = np.zeros((dim, 0))
    while basis.shape[1] < dim:
        rest = np.eye(dim) - basis @ basis.T
        vector = rest[:, np.argmax(np.round(np.diag(rest), 9))]
        vector = vector - basis @ (basis.T @ vector)  # once more, for the rounding errors of the first projection
        vector /= np.linalg.norm(vector)
        chosen = np.column_stack([chosen, vector])
        basis = np.column_stack([basis, *[unit @ vector for unit in units]])
    return chosen


def _adapt_real(group: Group, matrices: Array, random: np.random.Generator) -> Array:
    basis = _orbit_basis(group, matrices)
    return matrices if basis is None else basis.T @ matrices @ basis


def _adapt_complex(group: Group, matrices: Array, random: np.random.Generator) -> Array:
    """[[Re, -Im], [Im, Re]], of the two conjugate choices the one whose first trace that is not real has a positive imaginary part."""
    imaginary = _commuting(matrices, random)
    real_basis = _span([np.eye(len(imaginary)), imaginary])
    unitary = real_basis.T @ matrices @ real_basis + 1j * ((imaginary @ real_basis).T @ matrices @ real_basis)
    basis = _orbit_basis(group, unitary)
    if basis is not None:
        unitary = basis.conj().T @ unitary @ basis
    traces = np.trace(unitary, axis1=1, axis2=2).imag
    if traces[np.flatnonzero(np.abs(traces) > _SAME)[0]] < 0:
        unitary = unitary.conj()
    return np.block([[unitary.real, -unitary.imag], [unitary.imag, unitary.real]])


def _adapt_quaternionic(group: Group, matrices: Array, random: np.random.Generator) -> Array:
    """Left multiplication by a matrix of quaternions, in the basis e, I e, J e, K e of units I, J, K = J I that commute with the group."""
    units = [_commuting(matrices, random)]
    other = _commuting(matrices, random)
    units.append(_unit(other - units[0] * np.trace(units[0].T @ other) / len(other)))
    if matrices.shape[1] == 4:
        units = _aligned_units(matrices, units)
    units = [np.eye(matrices.shape[1]), *units, units[1] @ units[0]]
    vectors = _span(units)
    basis = np.concatenate([unit @ vectors for unit in units], axis=1)
    return np.asarray(basis.T @ matrices @ basis)


def _aligned_units(matrices: Array, units: list[Array]) -> list[Array]:
    """Units in the directions of the first two elements that are not parallel, so that a group such as Q8 has integer matrices."""
    frame = np.stack([np.eye(4), units[0], units[1], units[1] @ units[0]])
    vector = np.array([1.0, 0.0, 0.0, 0.0])  # the vector that _span takes first
    imaginary = np.einsum("uij,j,hik,k->hu", frame, vector, matrices, vector)[:, 1:]
    axes: list[Array] = []
    for direction in imaginary:
        rest = direction - sum((axis * (axis @ direction) for axis in axes), np.zeros(3))
        if np.linalg.norm(rest) > _SAME:
            axes.append(rest / np.linalg.norm(rest))
        if len(axes) == 2:
            break
    return [np.tensordot(axis, frame[1:], axes=1) for axis in axes]


_ADAPT = {"real": _adapt_real, "complex": _adapt_complex, "quaternionic": _adapt_quaternionic}


def _orbit_basis(group: Group, unitary: Array) -> Array | None:
    """An orthonormal basis from the orbit of a vector that few elements move off its line; None when no such vector is seen.

    When the irrep is monomial with such a vector, the basis makes its matrices signed (or phased) permutations.
    """
    best: Array | None = None
    fewest = group.order + 1
    for vector in _distinguished_vectors(group, unitary):
        if fewest == unitary.shape[1]:
            break
        orbit = unitary @ vector
        lines = round(group.order / int((np.abs(orbit @ vector.conj()) > 1 - _SAME).sum()))
        if lines < fewest:
            fewest, best = lines, orbit
    if best is None:
        return None
    dim = unitary.shape[1]
    basis = np.zeros((dim, 0), dtype=unitary.dtype)
    for keep_only_orthogonal in (True, False):
        for vector in best:
            if basis.shape[1] == dim:
                break
            rest = vector - basis @ (basis.conj().T @ vector)
            rest -= basis @ (basis.conj().T @ rest)
            length = float(np.linalg.norm(rest))
            if length > (1 - _SAME if keep_only_orthogonal else 1e-3):
                basis = np.column_stack([basis, rest / length])
    return basis if basis.shape[1] == dim else None


def _distinguished_vectors(group: Group, unitary: Array) -> Iterator[Array]:
    """Unit vectors that span an eigenspace of one element, or else a joint one of two that commute."""
    representatives = [members[0] for members in group.conjugacy_classes]
    spaces = {a: [p for p in _eigenprojectors(group, unitary, a) if abs(np.trace(p)) > 0.5] for a in representatives}
    lines = [_range(p) for projectors in spaces.values() for p in projectors if abs(np.trace(p)) < 1.5]
    if lines:
        yield from lines
        return
    for a in representatives:
        for b in np.flatnonzero(group.multiply[a] == group.multiply[:, a]):
            for q in _eigenprojectors(group, unitary, int(b)):
                for p in spaces[a]:
                    product = p @ q
                    if abs(np.trace(product) - 1) < 1e-6:
                        yield _range(product)


def _eigenprojectors(group: Group, unitary: Array, element: int) -> list[Array]:
    """Projectors to the eigenspaces of an element for the eigenvalues in the field (1 and -1, or all roots of unity)."""
    cycle = [0]
    while (following := int(group.multiply[cycle[-1], element])) != 0:
        cycle.append(following)
    length = len(cycle)
    exponents = np.arange(length)
    if np.iscomplexobj(unitary):
        eigenvalues = np.exp(2j * np.pi * exponents / length)
    else:
        eigenvalues = np.array([1.0, -1.0] if length % 2 == 0 else [1.0])
    return [np.tensordot(value.conj() ** exponents, unitary[cycle], axes=1) / length for value in eigenvalues]


def _range(projector: Array) -> Array:
    """The unit vector a projector of rank one projects to."""
    column = projector[:, np.argmax(np.abs(projector).sum(axis=0))]
    return np.asarray(column / np.linalg.norm(column))
