// form_action: substitution of a linear map into binary forms,
//
//     (g.p)(x, y) = p(a x + b y, c x + e y),     p(x, y) = sum_i p_i x^i y^(d-i),     g = [[a, b], [c, e]]
//
// one matrix to a form. The matrix M_d(g) of the map of coefficients is never built: Horner's rule (core/forms.hpp) takes 5 d^2 / 2
// multiply-adds.
#pragma once

#include "core/view.hpp"

namespace isotypic {

// p and y (N, d + 1), g (N, 2, 2); contiguous, float32 or float64. y is fully overwritten.
namespace cpu {
void form_action(const View& p, const View& g, const View& y);
}

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails or the degree is above
// kMaxDegree.
namespace cuda {
constexpr int kMaxDegree = 64;
void form_action(const View& p, const View& g, const View& y, void* stream);
}  // namespace cuda

}  // namespace isotypic
