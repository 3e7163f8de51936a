"""Equivariant layers: parameters, initialisation and a call into `isotypic.ops`."""

from isotypic.nn.conv import GroupConv2d, GroupConv3d, LiftConv2d, LiftConv3d
from isotypic.nn.conv_transpose import GroupConvTranspose2d, GroupConvTranspose3d
from isotypic.nn.dropout import FieldDropout
from isotypic.nn.from_escnn import from_escnn
from isotypic.nn.group_pool import GroupPool
from isotypic.nn.linear import GroupLinear
from isotypic.nn.mask import FieldMask
from isotypic.nn.moment import MomentLayer
from isotypic.nn.norm import FieldGroupNorm, FieldLayerNorm, GroupBatchNorm
from isotypic.nn.planar_group import PlanarGroup
from isotypic.nn.restrict import Restrict
from isotypic.nn.spatial_pool import BlurPool2d, BlurPool3d, GroupAvgPool2d, GroupAvgPool3d, GroupMaxPool2d, GroupMaxPool3d
from isotypic.nn.steerable import SteerableConv2d, SteerableLiftConv2d
from isotypic.nn.transvectants import Transvectants

__all__ = [
    "BlurPool2d",
    "BlurPool3d",
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
    "LiftConv2d",
    "LiftConv3d",
    "MomentLayer",
    "PlanarGroup",
    "Restrict",
    "SteerableConv2d",
    "SteerableLiftConv2d",
    "Transvectants",
    "from_escnn",
]
