"""Finite groups of integer matrices, their irreducible representations and Fourier matrices. Pure numpy.

>>> from isotypic import groups
>>> g = groups.get("p4m")
>>> g.order, [i.dim for i in g.irreps]
(8, [1, 1, 1, 1, 2])
"""

from .group import Group, Irrep
from .lattice import Orbit, orbits, support
from .planar import PlanarGroup
from .registry import fourier_program, generate, get, names

__all__ = ["Group", "Irrep", "Orbit", "PlanarGroup", "fourier_program", "generate", "get", "names", "orbits", "support"]


def __dir__() -> list[str]:
    return __all__
