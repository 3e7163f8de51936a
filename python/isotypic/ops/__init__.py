"""Functions on fields and on weights. Each has its module; the plain-torch twins are in :mod:`isotypic.ops.reference` and
:mod:`isotypic.ops.reference_weights`."""

from isotypic.ops.group_conv import group_conv, group_conv_transpose, lift_conv
from isotypic.ops.group_linear import group_linear
from isotypic.ops.weight_affine import weight_affine
from isotypic.ops.weight_layout import WeightLayout, weight_layout
from isotypic.ops.weight_linear import weight_linear
from isotypic.ops.weight_pool import weight_pool

__all__ = [
    "WeightLayout",
    "group_conv",
    "group_conv_transpose",
    "group_linear",
    "lift_conv",
    "weight_affine",
    "weight_layout",
    "weight_linear",
    "weight_pool",
]
