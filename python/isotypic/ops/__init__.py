"""Functions on fields. Each has its module, with the plain-torch reference in :mod:`isotypic.ops.reference`."""

from isotypic.ops.form_action import form_action
from isotypic.ops.group_conv import group_conv, group_conv_transpose, lift_conv
from isotypic.ops.group_linear import group_linear
from isotypic.ops.transvectant import transvectant
from isotypic.ops.transvectants import transvectant_paths, transvectants

__all__ = [
    "form_action",
    "group_conv",
    "group_conv_transpose",
    "group_linear",
    "lift_conv",
    "transvectant",
    "transvectant_paths",
    "transvectants",
]
