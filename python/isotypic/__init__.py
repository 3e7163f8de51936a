"""Equivariant layers for PyTorch, computed irrep by irrep.

>>> import isotypic as iso
>>> iso.groups.get("p4m").order
8
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from isotypic import cloning, data, export, groups, models, nn, ops, pga, sl2, symmetrize, testing
from isotypic._info import cpu_isa, info
from isotypic._warnings import EquivarianceWarning
from isotypic.relaxation import Box, Density, FixedInput, Mask, Site, relax

try:
    __version__ = _version("isotypic")
except _PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Box",
    "Density",
    "EquivarianceWarning",
    "FixedInput",
    "Mask",
    "Site",
    "__version__",
    "cloning",
    "cpu_isa",
    "data",
    "export",
    "groups",
    "info",
    "models",
    "nn",
    "ops",
    "pga",
    "relax",
    "sl2",
    "symmetrize",
    "testing",
]


def __dir__() -> list[str]:
    return __all__
