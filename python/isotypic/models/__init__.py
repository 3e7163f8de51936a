"""Networks assembled from the layers of `isotypic.nn`."""

from isotypic.models.dws_net import DWSNet
from isotypic.models.polynomials import PolyMLP, SL2Net, SO2Net

__all__ = ["DWSNet", "PolyMLP", "SL2Net", "SO2Net"]
