"""Finding a group: by name, by key, or by generators."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._fourier_programs import PROGRAMS
from .decompose import decompose
from .generated import check_generators, closure, from_key, to_key
from .group import Group, Irrep, element_orders, generating_set, multiplication_table
from .named import NAMED


def names() -> tuple[str, ...]:
    """The names :func:`get` knows."""
    return tuple(NAMED)


def get(group: str | Group) -> Group:
    """The group of a name or key; a group is returned as it is.

    Names: p1 p2 pm pmm p4 p4m on the square lattice (row, column); p3 p3m1 p6 p6m on the hexagonal lattice in axial coordinates;
    C4 D4 D4h (about the depth axis) T Th Td O Oh (of the cube) on (depth, row, column). Groups are cached, their arrays read-only.

    Raises ValueError for an unknown name, TypeError for anything but a string or a group.

    >>> get("p4m").order
    8
    """
    if isinstance(group, Group):
        return group
    if not isinstance(group, str):
        raise TypeError(f"group must be a name, a key or a Group, got {type(group).__name__}")
    return _get(group)


_SCHOENFLIES = {"c1": "p1", "c2": "p2", "cs": "pm", "c2v": "pmm", "c4v": "p4m", "c3": "p3", "c3v": "p3m1", "c6": "p6", "c6v": "p6m"}
"""Other names of the groups of the plane, by their rotations and mirrors."""


def _meant(key: str) -> str:
    """The group that a misspelt name may stand for."""
    small = {name.lower(): name for name in NAMED}
    word = key.lower().strip()
    near = small.get(word) or _SCHOENFLIES.get(word) or next(iter(small[n] for n in get_close_matches(word, small, 1, 0.6)), None)
    return f", did you mean {near!r}?" if near and word else ""


@lru_cache(maxsize=512)
def _get(key: str) -> Group:
    if key in NAMED:
        description = NAMED[key]()
        return Group(key, key, description.elements, description.irreps)
    parsed = from_key(key)
    if parsed is None:
        raise ValueError(
            f"unknown group {key!r}{_meant(key)}; known groups: {', '.join(NAMED)}; others are made by groups.generate([matrix, ...])"
        )
    name, generators = parsed
    return generate(generators, name)


def _reduce(group: Group) -> tuple[Callable[[str], Group], tuple[str]]:
    return get, (group.key,)


copyreg.pickle(Group, _reduce)  # groups travel as keys: the other side finds its own cached copy


def generate(generators: Iterable[ArrayLike], name: str | None = None) -> Group:
    """The finite group of all products of integer matrices.

    The order of the elements depends on the group alone, not on the generators: generating a group twice gives equal groups, and one
    whose elements are those of a named group gives the named group. A group that is abstractly equal to a named one lists its elements
    as that one does, and shares its irreps and its fast transform.

    Arguments:
        generators: matrices (n, n) with integer entries and determinant 1 or -1, n at most 6.
        name: what to call the group; by default ``G`` and the order.

    Raises ValueError when a generator is not such a matrix, when the matrices generate an infinite group or one of more than 1152
    elements, or when ``name`` is that of another group.

    >>> generate([[[0, -1], [1, 0]]])
    Group('p4', order=4, dim=2, irreps=[1, 1, 2 complex])
    >>> generate([[[-1, 0], [0, 1]]], name="mirror rows")
    Group('mirror rows', order=2, dim=2, irreps=[1, 1])
    """
    elements = closure(check_generators(generators))
    if name is not None and (not name or set(name) & set("[];,")):
        raise ValueError(f"groups.generate: name must be a text without brackets, commas and semicolons, got {name!r}")
    group = _named_with(elements)
    if group is not None and name in (None, group.name):
        return group
    if name in NAMED:
        raise ValueError(f"groups.generate: name {name!r} is that of another group; known groups: {', '.join(NAMED)}")

    irreps = None
    if group is not None:
        elements, irreps = group.elements, group.irreps
    else:
        for model in _representatives():
            images = _isomorphism(model.multiply, multiplication_table(elements)) if model.order == len(elements) else None
            if images is not None:
                elements, irreps = elements[images], model.irreps
                break
    table = multiplication_table(elements)
    generating = [elements[i] for i in generating_set(table) or [0]]
    name = f"G{len(elements)}" if name is None else name
    return _cached(to_key(name, generating), name, elements.tobytes(), elements.shape, irreps)


@lru_cache(maxsize=512)
def _cached(key: str, name: str, elements: bytes, shape: tuple[int, ...], irreps: tuple[Irrep, ...] | None) -> Group:
    return Group(name, key, np.frombuffer(elements, dtype=np.int64).reshape(shape), decompose if irreps is None else irreps)


def _named_with(elements: NDArray[np.int64]) -> Group | None:
    """The named group with these elements in any order."""
    wanted = {element.tobytes() for element in elements}
    for name in NAMED:
        group = get(name)
        if group.elements.shape == elements.shape and {element.tobytes() for element in group.elements} == wanted:
            return group
    return None


@cache
def _representatives() -> tuple[Group, ...]:
    """One named group for each multiplication table."""
    tables: dict[bytes, Group] = {}
    for name in NAMED:
        tables.setdefault(get(name).multiply.tobytes(), get(name))
    return tuple(tables.values())


def _isomorphism(model: NDArray[np.int64], table: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The first bijection f (order,) with table[f[a], f[b]] = f[model[a, b]], in lexicographic order of the generators' images; or None."""
    orders, wanted = element_orders(table), element_orders(model)
    if not np.array_equal(np.sort(orders), np.sort(wanted)):
        return None
    generators = generating_set(model)

    def extend(images: list[int]) -> NDArray[np.int64] | None:
        partial = _homomorphism(model, table, generators[: len(images)], images)
        if partial is None or len(images) == len(generators):
            return partial
        for candidate in np.flatnonzero(orders == wanted[generators[len(images)]]):
            complete = extend([*images, int(candidate)])
            if complete is not None:
                return complete
        return None

    return extend([])


def _homomorphism(model: NDArray[np.int64], table: NDArray[np.int64], generators: list[int], images: list[int]) -> NDArray[np.int64] | None:
    """The injective homomorphism from the subgroup of the generators that sends them to the images, -1 elsewhere; None if there is none."""
    image = np.full(len(model), -1, dtype=np.int64)
    image[0] = 0
    frontier = [0]
    for element in frontier:
        for generator, target in zip(generators, images, strict=True):
            product, value = model[element, generator], table[image[element], target]
            if image[product] == -1:
                image[product] = value
                frontier.append(int(product))
            elif image[product] != value:
                return None
    return image if len(set(image[frontier].tolist())) == len(frontier) else None


@lru_cache(maxsize=512)
def fourier_program(group: Group) -> str:
    """The name of the straight-line transform in ``csrc/ops/group_conv_fourier.hpp`` that computes ``group.fourier``; "" if there is none.

    >>> fourier_program(get("D4"))
    'p4m'
    """
    for program in PROGRAMS:
        if get(program).order == group.order and np.array_equal(get(program).fourier, group.fourier):
            return program
    return ""
