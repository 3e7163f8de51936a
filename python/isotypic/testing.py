"""Tests of equivariance for modules of one's own: of fields under finite groups, of relaxed networks, of multivectors under versors."""

from isotypic._testing.fields import act, assert_equivariant, equivariance_error, hexagonal_mask
from isotypic._testing.network import check_network
from isotypic._testing.relaxed import Action, assert_jointly_equivariant, equivariance_gap
from isotypic._testing.versors import random_versor

__all__ = [
    "Action",
    "act",
    "assert_equivariant",
    "assert_jointly_equivariant",
    "check_network",
    "equivariance_error",
    "equivariance_gap",
    "hexagonal_mask",
    "random_versor",
]


def __dir__() -> list[str]:
    return __all__
