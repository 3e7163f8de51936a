// small_matrix: frames, eigenvectors and polar factors of N matrices d x d, d = 2, 3, 4, and their adjoints (ops/small_matrix_algebra.hpp):
//
//     frame            v -> q, u            v = q r by Gram-Schmidt, u = r^-1, or 0 where the columns of v are dependent
//     frame_backward   g, q, u -> g_v
//     eigen            a -> values, vectors      of (a + a^T) / 2, ascending
//     eigen_backward   g_values, g_vectors, values, vectors -> g_a
//     polar            a -> r, s            a = r s
//     polar_backward   g_r, g_s, r, s -> g_a
//     sylvester        s, w -> x            s x + x s = w, antisymmetric
#pragma once

#include "core/view.hpp"
#include "ops/small_matrix_algebra.hpp"

namespace isotypic {

// Matrices (N, d, d), values (N, d); contiguous, all float32 or all float64; in[4] and out[2] as far as the operation has them. Outputs are
// fully overwritten.
namespace cpu {
void small_matrix(small_matrix::Operation operation, const View* in, bool proper, const View* out);
}

// The same on the current device, queued on the caller's stream. std::runtime_error when the launch fails.
namespace cuda {
void small_matrix(small_matrix::Operation operation, const View* in, bool proper, const View* out, void* stream);
}

}  // namespace isotypic
