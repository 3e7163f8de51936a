"""Networks: on weights and on polynomials from the layers of `isotypic.nn`, on graphs and points from plain torch."""

from isotypic._public import in_public
from isotypic.models.cnp import CNP, RCNP, TNP
from isotypic.models.conv_cnp import ConvCNP
from isotypic.models.dws_net import DWSNet
from isotypic.models.egnn import EGNN
from isotypic.models.equiv_cnp import EquivCNP
from isotypic.models.gatr import GATr
from isotypic.models.gin import GIN
from isotypic.models.graph_transformer import GraphTransformer
from isotypic.models.image_transformer import ImageTransformerOnGraphs
from isotypic.models.polynomials import PolyMLP, SL2Net, SO2Net
from isotypic.models.te_tnp import PTTETNP, TETNP
from isotypic.models.transformer import Transformer
from isotypic.models.vn_dgcnn import VNDGCNN

__all__ = [
    "CNP",
    "EGNN",
    "GIN",
    "PTTETNP",
    "RCNP",
    "TETNP",
    "TNP",
    "VNDGCNN",
    "ConvCNP",
    "DWSNet",
    "EquivCNP",
    "GATr",
    "GraphTransformer",
    "ImageTransformerOnGraphs",
    "PolyMLP",
    "SL2Net",
    "SO2Net",
    "Transformer",
]

in_public(globals())


def __dir__() -> list[str]:
    return __all__
