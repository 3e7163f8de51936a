// multivector_product: products of multivectors by a table of signs (core/algebra.hpp),
//
//     z_i = s sum_jk t_ijk a_j b_k
//
// The adjoints of a product in its factors are such products too, so that one operator serves the geometric product, the join and all of
// their derivatives.
#pragma once

#include "core/view.hpp"

namespace isotypic {

constexpr int kMultivector = 16;

// The place of a product in ISOTYPIC_ALGEBRA_PRODUCTS, -1 where there is none of that name.
int product_index(const char* name);

// a, b and z (N, C, 16) with components next to each other and any other strides that are not negative, those of z without overlap; scale (N, C) with such strides,
// or undefined for 1. float32 or float64; on the CPU also bfloat16 and float16, computed in float32. z is fully overwritten.
namespace cpu {
void multivector_product(int product, const View& a, const View& b, const View& scale, const View& z);
}

// The same on the current device, queued on the caller's stream, all four types. std::runtime_error when the launch fails.
namespace cuda {
void multivector_product(int product, const View& a, const View& b, const View& scale, const View& z, void* stream);
}

}  // namespace isotypic
