"""Approximate equivariance for any equivariant network: fixed inputs that do not move with the data.

A network E that is equivariant in the data u and in further inputs t together, E(g u, g t) = g E(u, t), computes a map of u alone once t is
held fixed, and that map is equivariant as far as t is zero. `relax` puts such inputs into a network that exists, `FixedInput` computes them
from coordinates, a domain (`Box`, `Mask`, `Density`) says where they are known, and outside it the network is exactly the strict one.
"""

from isotypic._public import in_public
from isotypic.relaxation.attach import relax
from isotypic.relaxation.domain import Box, Density, Mask
from isotypic.relaxation.fixed_input import FixedInput
from isotypic.relaxation.site import Site
from isotypic.relaxation.state import Relaxation

__all__ = ["Box", "Density", "FixedInput", "Mask", "Relaxation", "Site", "relax"]


def __dir__() -> list[str]:
    return __all__


in_public(globals())
