// multivector_scale: multivectors times numbers that are made of them: the gate of each multivector, and the norm of the channels of an item.
//
//     gate    y[m] = f[m] x[m]                              f = a function of x[m]_0, f' its derivative, both given
//     norm    y[n, c]_i = r_n w[c, grade i] x[n, c]_i       r_n = max(mean_c sum_grades |sum_i inner_i x[n, c]_i^2|, epsilon)^(-1/2)
//
// with the gradients, for g that of y, h = w g, and s[n, c, grade] the sign of the sum over the grade,
//
//     gate    dx[m]_i = f[m] g[m]_i + (f'[m] <g[m], x[m]> where i = 0)
//     norm    dx[n, c]_i = r_n h[n, c]_i - r_n^3 / C (sum_c <h, x>) s inner_i x[n, c]_i       without the second term where epsilon is larger
//             dw[c, k] = sum_n r_n sum_(i of grade k) g x
#pragma once

#include "core/view.hpp"

namespace isotypic {

// How components count in the norm: inner_i, and whether the sums over grades may be negative, so that their signs matter.
struct MultivectorInner {
    double of[16] = {};
    bool definite = true;
};

// x, y, g and dx (M, 16), f and f' (M); contiguous, of one dtype, float32 or float64.
namespace cpu {
void multivector_gate(const View& x, const View& factor, const View& y);
void multivector_gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx);

// x, y, g and dx (N, C, 16), weight and dweight (C, 5) or both undefined; contiguous, of one dtype, float32 or float64.
void multivector_norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y);
void multivector_norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight,
                               const View& dx, const View& dweight);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails. The gradient of the weights is
// summed in parts: `workspace` of N + kNormParts C 16 numbers of the same dtype, undefined without weights.
namespace cuda {
constexpr int kNormParts = 64;
void multivector_gate(const View& x, const View& factor, const View& y, void* stream);
void multivector_gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx, void* stream);
void multivector_norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y, void* stream);
void multivector_norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight,
                               const View& dx, const View& dweight, const View& workspace, void* stream);
}  // namespace cuda

}  // namespace isotypic
