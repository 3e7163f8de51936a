"""Networks assembled from the layers of `isotypic.nn`."""

from isotypic.models.dws_net import DWSNet
from isotypic.models.gatr import GATr
from isotypic.models.polynomials import PolyMLP, SL2Net, SO2Net
from isotypic.models.transformer import Transformer

__all__ = ["DWSNet", "GATr", "PolyMLP", "SL2Net", "SO2Net", "Transformer"]
