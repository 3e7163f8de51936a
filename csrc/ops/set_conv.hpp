// Set convolutions: sums of Gaussians at points, on a regular grid of 1 to 3 axes, and their adjoint. Lengths are in units of nodes:
// t_nk is the position of a point on axis k (0 at the first node, 1 at the second), s_k the lengthscale, negative where the axis runs down.
//
//     r_k = (g_k - t_nk) / s_k        psi_p = prod_k r_k^p_k exp(-r_k^2 / 2)   inside of the window |r_k| <= kWindow, zero outside of it
//
//     set_conv          y (B, N, C)          -> E (B, C, *shape)     E_c(g) = sum_n y_nc psi_p
//     set_conv_decode   F (B, C, *shape)     -> D (B, N, C)          D_nc = sum_g F_c(g) psi_p
//     set_conv_moments  y, F                 -> M (B, N, [C] + 2 d)  [D_nc], sum_c y_nc sum_g F_c r_k psi_0, sum_c y_nc sum_g F_c r_k^2
//     psi_0
//
// The derivatives of each are calls of the first two with other powers p; the third holds the three gradients of the first in one pass.
// The window of 6 lengthscales leaves 1.5e-8 of a Gaussian's height outside in float32, that of 9.5 3e-20 in float64: nothing that is
// computed inside of it is denormal.
#pragma once

#include "core/view.hpp"

namespace isotypic {

struct SetConvAxes {
    int dim = 0;
    int64_t nodes[3] = {1, 1, 1};  // of three axes; those in front of the last `dim` have one node and weight 1
    int powers[3] = {0, 0, 0};
};

template <class T>
constexpr double kSetConvWindow = sizeof(T) == 8 ? 9.5 : 6.0;

// t (B, N, d) and s (d,) of float64, the others of float32 or float64, M of float64; contiguous. The last one is fully overwritten.
// std::invalid_argument for a t that is not finite or an s that is zero or not finite; the first two return how many points lie outside of
// the outermost nodes.
namespace cpu {
int64_t set_conv(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid);
int64_t set_conv_decode(const View& grid, const View& t, const View& s, const SetConvAxes& axes, const View& y);
void set_conv_moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first,
                      const View& moments);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. A point that is not finite contributes nothing there.
namespace cuda {
void set_conv(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid, void* stream);
void set_conv_decode(const View& grid, const View& t, const View& s, const SetConvAxes& axes, const View& y, void* stream);
void set_conv_moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first,
                      const View& moments, void* stream);
}  // namespace cuda

}  // namespace isotypic
