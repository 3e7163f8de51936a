"""Functions on fields, on weights of networks, on binary forms and on multivectors. Each has its module, with the plain-torch references in
``isotypic.ops.fields.reference*``."""

from isotypic._public import in_public
from isotypic.ops.algebra import flops as _algebra_flops  # noqa: F401
from isotypic.ops.algebra.attention import distance_attention
from isotypic.ops.algebra.linear import multivector_linear
from isotypic.ops.algebra.products import equi_join, geometric_product
from isotypic.ops.fields import flops as _fields_flops  # noqa: F401
from isotypic.ops.fields.group_conv import group_conv, group_conv_transpose, lift_conv
from isotypic.ops.fields.group_linear import group_linear
from isotypic.ops.fields.max_pool import max_pool
from isotypic.ops.forms import flops as _forms_flops  # noqa: F401
from isotypic.ops.forms.form_action import form_action
from isotypic.ops.forms.gram import gram_to_form, project_gram
from isotypic.ops.forms.max_det_gram import MaxDetGram, max_det_gram
from isotypic.ops.forms.moment_gram import moment_gram
from isotypic.ops.forms.spectral_factor import spectral_factor
from isotypic.ops.forms.transvectant import transvectant
from isotypic.ops.forms.transvectants import transvectant_paths, transvectants
from isotypic.ops.norms import flops as _norms_flops  # noqa: F401
from isotypic.ops.norms.batch_norm import batch_norm
from isotypic.ops.processes import flops as _processes_flops  # noqa: F401
from isotypic.ops.processes.pair_attention import pair_attention
from isotypic.ops.processes.set_conv import set_conv, set_conv_decode
from isotypic.ops.symmetrize import flops as _symmetrize_flops  # noqa: F401
from isotypic.ops.symmetrize.permute import permute_adjacency, permute_nodes
from isotypic.ops.symmetrize.rotate_mean import rotate_mean
from isotypic.ops.symmetrize.small_matrix import OrthonormalFrame, Polar, SymmetricEigen, orthonormal_frame, polar, symmetric_eigen
from isotypic.ops.symmetrize.sort_sinkhorn import SortSinkhorn, sort_sinkhorn
from isotypic.ops.weights import flops as _weights_flops  # noqa: F401
from isotypic.ops.weights.affine import weight_affine
from isotypic.ops.weights.layout import WeightLayout, weight_layout
from isotypic.ops.weights.linear import weight_linear
from isotypic.ops.weights.pool import weight_pool

__all__ = [
    "MaxDetGram",
    "OrthonormalFrame",
    "Polar",
    "SortSinkhorn",
    "SymmetricEigen",
    "WeightLayout",
    "batch_norm",
    "distance_attention",
    "equi_join",
    "form_action",
    "geometric_product",
    "gram_to_form",
    "group_conv",
    "group_conv_transpose",
    "group_linear",
    "lift_conv",
    "max_det_gram",
    "max_pool",
    "moment_gram",
    "multivector_linear",
    "orthonormal_frame",
    "pair_attention",
    "permute_adjacency",
    "permute_nodes",
    "polar",
    "project_gram",
    "rotate_mean",
    "set_conv",
    "set_conv_decode",
    "sort_sinkhorn",
    "spectral_factor",
    "symmetric_eigen",
    "transvectant",
    "transvectant_paths",
    "transvectants",
    "weight_affine",
    "weight_layout",
    "weight_linear",
    "weight_pool",
]

in_public(globals())


def __dir__() -> list[str]:
    return __all__
