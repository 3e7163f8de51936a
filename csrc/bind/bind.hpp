// One function per operator; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace isotypic {

void bind_batch_norm(pybind11::module_& m);
void bind_form_action(pybind11::module_& m);
void bind_group_conv(pybind11::module_& m);
void bind_weight_linear(pybind11::module_& m);
void bind_max_det(pybind11::module_& m);
void bind_permute(pybind11::module_& m);
void bind_rotate_mean(pybind11::module_& m);
void bind_small_matrix(pybind11::module_& m);
void bind_sort_sinkhorn(pybind11::module_& m);
void bind_transvectants(pybind11::module_& m);

}  // namespace isotypic
