"""Objects of Euclidean space as multivectors of G(3,0,1), and back.

Components are those of 1 | e0 e1 e2 e3 | e01 e02 e03 e12 e13 e23 | e012 e013 e023 e123 | e0123. Points are trivectors, planes vectors,
lines bivectors; rotations and translations are even versors, reflections odd ones. A versor u acts on x by `sandwich`.
"""

from isotypic.pga.embed import (
    embed_direction,
    embed_plane,
    embed_point,
    embed_pseudoscalar,
    embed_reflection,
    embed_rotation,
    embed_scalar,
    embed_translation,
)
from isotypic.pga.extract import (
    extract_direction,
    extract_plane,
    extract_point,
    extract_pseudoscalar,
    extract_reflection,
    extract_rotation,
    extract_scalar,
    extract_translation,
)
from isotypic.pga.versor import sandwich

__all__ = [
    "embed_direction",
    "embed_plane",
    "embed_point",
    "embed_pseudoscalar",
    "embed_reflection",
    "embed_rotation",
    "embed_scalar",
    "embed_translation",
    "extract_direction",
    "extract_plane",
    "extract_point",
    "extract_pseudoscalar",
    "extract_reflection",
    "extract_rotation",
    "extract_scalar",
    "extract_translation",
    "sandwich",
]


def __dir__() -> list[str]:
    return __all__
