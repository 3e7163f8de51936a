// rotate_mean: vectors of k samples and a matrix d x d for each of them, d = 2, 3, 4; the trilinear form
//
//     scale sum_{b j i} <x[b, i], R[b, j] y[b, j, i]>
//
// and its three derivatives, of which each is one of the calls:
//
//     rotate_sum     R, y -> x    x[b, i] = scale sum_j R[b, j] y[b, j, i]
//     rotate_each    R, x -> y    y[b, j, i] = scale R[b, j]^T x[b, i]
//     rotate_outer   x, y -> R    R[b, j] = scale sum_i x[b, i] y[b, j, i]^T
//     rotate_both    x, R, y -> the last two: all that a gradient of the mean needs, in one pass over y
#pragma once

#include "core/view.hpp"

namespace isotypic {

// R (B, k, d, d), x (B, n, d), y (B, k, n, d); contiguous, all float32 or all float64. The last view is fully overwritten, of rotate_both
// the last two, which have the shapes of R and y.
namespace cpu {
void rotate_sum(const View& r, const View& y, double scale, const View& x);
void rotate_each(const View& r, const View& x, double scale, const View& y);
void rotate_outer(const View& x, const View& y, double scale, const View& r);
void rotate_both(const View& x, const View& r, const View& y, double scale, const View& to_r, const View& to_y);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails.
namespace cuda {
void rotate_sum(const View& r, const View& y, double scale, const View& x, void* stream);
void rotate_each(const View& r, const View& x, double scale, const View& y, void* stream);
void rotate_outer(const View& x, const View& y, double scale, const View& r, void* stream);
void rotate_both(const View& x, const View& r, const View& y, double scale, const View& to_r, const View& to_y, void* stream);
}  // namespace cuda

}  // namespace isotypic
