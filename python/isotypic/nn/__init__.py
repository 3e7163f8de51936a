"""Equivariant layers: parameters, initialisation and a call into `isotypic.ops`."""

from isotypic._public import in_public
from isotypic.groups.planar import PlanarGroup
from isotypic.nn._batch_norm import convert_sync_batchnorm
from isotypic.nn.algebra.attention import GATrAttention
from isotypic.nn.algebra.block import GATrBlock
from isotypic.nn.algebra.linear import MultivectorLinear
from isotypic.nn.algebra.mlp import GeometricBilinear, GeometricMLP
from isotypic.nn.algebra.norm import EquiLayerNorm, GradeDropout, ScalarGate
from isotypic.nn.convert.from_dwsnets import from_dwsnets
from isotypic.nn.convert.from_escnn import from_escnn
from isotypic.nn.convert.from_gatr import from_gatr
from isotypic.nn.convert.from_lgatr import from_lgatr
from isotypic.nn.convert.from_nfn import from_nfn
from isotypic.nn.convert.swap import swap
from isotypic.nn.convert.swapping.report import SwapReport
from isotypic.nn.fields.conv import GroupConv2d, GroupConv3d, LiftConv2d, LiftConv3d
from isotypic.nn.fields.conv_transpose import GroupConvTranspose2d, GroupConvTranspose3d
from isotypic.nn.fields.dropout import FieldDropout
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.line import GroupAvgPool1d, GroupConv1d, GroupConvTranspose1d, GroupMaxPool1d, LiftConv1d
from isotypic.nn.fields.linear import GroupLinear
from isotypic.nn.fields.mask import FieldMask
from isotypic.nn.fields.norm import FieldGroupNorm, FieldInstanceNorm, FieldLayerNorm, GroupBatchNorm
from isotypic.nn.fields.per_channel import PerChannel
from isotypic.nn.fields.pixel_shuffle import FieldPixelShuffle
from isotypic.nn.fields.relaxed import RelaxedGroupConv2d
from isotypic.nn.fields.restrict import Restrict
from isotypic.nn.fields.spatial_pool import BlurPool2d, BlurPool3d, GroupAvgPool2d, GroupAvgPool3d, GroupMaxPool2d, GroupMaxPool3d
from isotypic.nn.fields.steerable import SteerableConv2d, SteerableLiftConv2d
from isotypic.nn.fields.steerable_transpose import SteerableConvTranspose2d
from isotypic.nn.forms.moment import MomentLayer
from isotypic.nn.forms.positive import PositivePolynomial
from isotypic.nn.forms.transvectants import Transvectants
from isotypic.nn.weights.attention import WeightSpaceAttention
from isotypic.nn.weights.io_position import IOPosition
from isotypic.nn.weights.linear import DWSInvariant, DWSLinear, NPLinear
from isotypic.nn.weights.norm import WeightSpaceBatchNorm, WeightSpaceBlockNorm, WeightSpacePointwise
from isotypic.nn.weights.space import WeightSpace
from isotypic.nn.weights.spec import WeightSpec

__all__ = [
    "BlurPool2d",
    "BlurPool3d",
    "DWSInvariant",
    "DWSLinear",
    "EquiLayerNorm",
    "FieldDropout",
    "FieldGroupNorm",
    "FieldInstanceNorm",
    "FieldLayerNorm",
    "FieldMask",
    "FieldPixelShuffle",
    "GATrAttention",
    "GATrBlock",
    "GeometricBilinear",
    "GeometricMLP",
    "GradeDropout",
    "GroupAvgPool1d",
    "GroupAvgPool2d",
    "GroupAvgPool3d",
    "GroupBatchNorm",
    "GroupConv1d",
    "GroupConv2d",
    "GroupConv3d",
    "GroupConvTranspose1d",
    "GroupConvTranspose2d",
    "GroupConvTranspose3d",
    "GroupLinear",
    "GroupMaxPool1d",
    "GroupMaxPool2d",
    "GroupMaxPool3d",
    "GroupPool",
    "IOPosition",
    "LiftConv1d",
    "LiftConv2d",
    "LiftConv3d",
    "MomentLayer",
    "MultivectorLinear",
    "NPLinear",
    "PerChannel",
    "PlanarGroup",
    "PositivePolynomial",
    "RelaxedGroupConv2d",
    "Restrict",
    "ScalarGate",
    "SteerableConv2d",
    "SteerableConvTranspose2d",
    "SteerableLiftConv2d",
    "SwapReport",
    "Transvectants",
    "WeightSpace",
    "WeightSpaceAttention",
    "WeightSpaceBatchNorm",
    "WeightSpaceBlockNorm",
    "WeightSpacePointwise",
    "WeightSpec",
    "convert_sync_batchnorm",
    "from_dwsnets",
    "from_escnn",
    "from_gatr",
    "from_lgatr",
    "from_nfn",
    "swap",
]

in_public(globals())


def __dir__() -> list[str]:
    return __all__
