"""Functions on fields, on weights of networks and on binary forms. Each has its module, with the plain-torch references in
``isotypic.ops.reference*``."""

from isotypic.ops.batch_norm import batch_norm
from isotypic.ops.form_action import form_action
from isotypic.ops.gram import gram_to_form, project_gram
from isotypic.ops.group_conv import group_conv, group_conv_transpose, lift_conv
from isotypic.ops.group_linear import group_linear
from isotypic.ops.max_det_gram import MaxDetGram, max_det_gram
from isotypic.ops.moment_gram import moment_gram
from isotypic.ops.transvectant import transvectant
from isotypic.ops.transvectants import transvectant_paths, transvectants
from isotypic.ops.weight_affine import weight_affine
from isotypic.ops.weight_layout import WeightLayout, weight_layout
from isotypic.ops.weight_linear import weight_linear
from isotypic.ops.weight_pool import weight_pool

__all__ = [
    "MaxDetGram",
    "WeightLayout",
    "batch_norm",
    "form_action",
    "gram_to_form",
    "group_conv",
    "group_conv_transpose",
    "group_linear",
    "lift_conv",
    "max_det_gram",
    "moment_gram",
    "project_gram",
    "transvectant",
    "transvectant_paths",
    "transvectants",
    "weight_affine",
    "weight_layout",
    "weight_linear",
    "weight_pool",
]
