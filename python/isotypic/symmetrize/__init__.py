"""Any network made symmetric: group averaging, frames, canonicalization and learned probabilistic symmetrization are one wrapper with
different laws on the group."""

from isotypic._public import in_public
from isotypic.symmetrize.elements import Elements, act, act_inverse
from isotypic.symmetrize.learned import Canonical, Learned, Recursive
from isotypic.symmetrize.noise import Noise
from isotypic.symmetrize.samplers import Finite, Haar, PCAFrames, Sampler, WeightedFrames
from isotypic.symmetrize.wrapper import FrameAverage, Info, Symmetrize

__all__ = [
    "Canonical",
    "Elements",
    "Finite",
    "FrameAverage",
    "Haar",
    "Info",
    "Learned",
    "Noise",
    "PCAFrames",
    "Recursive",
    "Sampler",
    "Symmetrize",
    "WeightedFrames",
    "act",
    "act_inverse",
]


def __dir__() -> list[str]:
    return __all__


in_public(globals())
