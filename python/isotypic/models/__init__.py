"""Networks assembled from the layers of `isotypic.nn`."""

from isotypic.models.cnp import CNP, RCNP, TNP
from isotypic.models.conv_cnp import ConvCNP, EquivCNP
from isotypic.models.dws_net import DWSNet
from isotypic.models.gatr import GATr
from isotypic.models.polynomials import PolyMLP, SL2Net, SO2Net
from isotypic.models.transformer import Transformer

__all__ = ["DWSNet", "GATr", "PolyMLP", "SL2Net", "SO2Net", "Transformer"]
from isotypic.models.te_tnp import PTTETNP, TETNP

__all__ = ["CNP", "PTTETNP", "RCNP", "TETNP", "TNP", "ConvCNP", "DWSNet", "EquivCNP", "PolyMLP", "SL2Net", "SO2Net"]
