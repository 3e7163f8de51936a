// multivector_linear: equivariant linear maps between multivectors, by the tables of core/algebra.hpp,
//
//     y[n, o]_i = sum_c direct_i w[o, c, direct_map_i] x[n, c]_i + turned_i w[o, c, turned_map_i] x[n, c]_source_i
//
// plus shift[n, o, k] in the component through which the k-th scalar enters, 0 and 15. With A and B the two coefficients of a pair of
// channels as vectors of 16 numbers and P the permutation, y = sum_c A x + B P x, and the adjoint in x is a map of the same kind, plus a
// shift (N, C, k) of the components through which scalars leave: what their gradients add.
#pragma once

#include "core/view.hpp"

namespace isotypic {

// The place of an algebra among algebra::kLinearMaps, -1 where there is none of that name.
int linear_maps_index(const char* name);

// x (N, C, 16), y (N, O, 16), weight (O, C, K) with K the number of maps or 5, shift (N, O, 1 or 2), of the
// adjoint (N, C, 1 or 2), or undefined; contiguous, float32 or float64. The last one is fully overwritten.
namespace cpu {
void multivector_linear(int maps, const View& x, const View& weight, const View& shift, const View& y);
void multivector_linear_transpose(int maps, const View& y, const View& weight, const View& shift, const View& x);
void multivector_linear_weight(int maps, const View& x, const View& y, const View& weight);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails. The gradient of the weight is
// summed in parts: `workspace` (kWeightParts, O, C, 32) of the same dtype.
namespace cuda {
constexpr int kWeightParts = 64;
void multivector_linear(int maps, const View& x, const View& weight, const View& shift, const View& y, void* stream);
void multivector_linear_transpose(int maps, const View& y, const View& weight, const View& shift, const View& x, void* stream);
void multivector_linear_weight(int maps, const View& x, const View& y, const View& weight, const View& workspace, void* stream);
}  // namespace cuda

}  // namespace isotypic
