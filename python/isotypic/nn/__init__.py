"""Equivariant layers: parameters, initialisation and a call into `isotypic.ops`."""

from isotypic.nn.conv import GroupConv2d, GroupConv3d, LiftConv2d, LiftConv3d
from isotypic.nn.conv_transpose import GroupConvTranspose2d, GroupConvTranspose3d
from isotypic.nn.dropout import FieldDropout
from isotypic.nn.from_dwsnets import from_dwsnets
from isotypic.nn.from_escnn import from_escnn
from isotypic.nn.from_nfn import from_nfn
from isotypic.nn.group_pool import GroupPool
from isotypic.nn.io_position import IOPosition
from isotypic.nn.linear import GroupLinear
from isotypic.nn.mask import FieldMask
from isotypic.nn.moment import MomentLayer
from isotypic.nn.norm import FieldGroupNorm, FieldLayerNorm, GroupBatchNorm
from isotypic.nn.planar_group import PlanarGroup
from isotypic.nn.restrict import Restrict
from isotypic.nn.spatial_pool import BlurPool2d, BlurPool3d, GroupAvgPool2d, GroupAvgPool3d, GroupMaxPool2d, GroupMaxPool3d
from isotypic.nn.steerable import SteerableConv2d, SteerableLiftConv2d
from isotypic.nn.swap import swap
from isotypic.nn.transvectants import Transvectants
from isotypic.nn.weight_attention import WeightSpaceAttention
from isotypic.nn.weight_linear import DWSInvariant, DWSLinear, NPLinear
from isotypic.nn.weight_norm import WeightSpaceBatchNorm, WeightSpaceBlockNorm, WeightSpacePointwise
from isotypic.nn.weight_space import WeightSpace
from isotypic.nn.weight_spec import WeightSpec

__all__ = [
    "BlurPool2d",
    "BlurPool3d",
    "DWSInvariant",
    "DWSLinear",
    "FieldDropout",
    "FieldGroupNorm",
    "FieldLayerNorm",
    "FieldMask",
    "GroupAvgPool2d",
    "GroupAvgPool3d",
    "GroupBatchNorm",
    "GroupConv2d",
    "GroupConv3d",
    "GroupConvTranspose2d",
    "GroupConvTranspose3d",
    "GroupLinear",
    "GroupMaxPool2d",
    "GroupMaxPool3d",
    "GroupPool",
    "IOPosition",
    "LiftConv2d",
    "LiftConv3d",
    "MomentLayer",
    "NPLinear",
    "PlanarGroup",
    "Restrict",
    "SteerableConv2d",
    "SteerableLiftConv2d",
    "Transvectants",
    "WeightSpace",
    "WeightSpaceAttention",
    "WeightSpaceBatchNorm",
    "WeightSpaceBlockNorm",
    "WeightSpacePointwise",
    "WeightSpec",
    "from_dwsnets",
    "from_escnn",
    "from_nfn",
    "swap",
]
