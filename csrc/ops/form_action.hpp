// form_action: substitution of a linear map into binary forms,
//
//     (g.p)(x, y) = p(a x + b y, c x + e y),     p(x, y) = sum_i p_i x^i y^(d-i),     g = [[a, b], [c, e]]
//
// one matrix to a form, and its adjoints. The matrix M_d(g) of the map of coefficients is never built: Horner's rule (ops/form_action_horner.hpp) takes
// 5 d^2 / 2 multiply-adds.
//
//     form_action          p, g    -> y = M_d(g) p
//     form_action_adjoint  z, g    -> p = M_d(g)^T z = M_d(g^T) (C z) / C with C_i = binomial(d, i)
//     form_action_matrix   p, g, z -> r, r_ij = <z, d (g.p) / d g_ij>: with q_x and q_y the partial derivatives of p after the
//     substitution,
//                             r = [[<z, x q_x>, <z, y q_x>], [<z, x q_y>, <z, y q_y>]]
#pragma once

#include "core/view.hpp"

namespace isotypic {

// p, y and z (N, d + 1), g and r (N, 2, 2); contiguous, float32 or float64. The last one is fully overwritten.
namespace cpu {
void form_action(const View& p, const View& g, const View& y);
void form_action_adjoint(const View& z, const View& g, const View& p);
void form_action_matrix(const View& p, const View& g, const View& z, const View& r);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails or the degree is above
// kMaxDegree.
namespace cuda {
constexpr int kMaxDegree = 64;
void form_action(const View& p, const View& g, const View& y, void* stream);
void form_action_adjoint(const View& z, const View& g, const View& p, void* stream);
void form_action_matrix(const View& p, const View& g, const View& z, const View& r, void* stream);
}  // namespace cuda

}  // namespace isotypic
