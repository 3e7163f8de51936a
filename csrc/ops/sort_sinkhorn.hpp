// sort_sinkhorn: orders of nodes by scores, and what is smooth about them.
//
//     sort_order                scores -> order: ascending and stable; nodes behind the length stay in their places
//     sort_sinkhorn_entropy     t (sorted scores) -> h = -(1 / n) sum_ij P_ij log P_ij, P = Sinkhorn's iteration on exp(-|t_i - t_j| / tau)
//     sort_sinkhorn_gradient    t, x, y, w -> the gradient in t of sum_c x_c^T P y_c + w h
//
// No n x n matrix exists: see ops/sort_sinkhorn_solver.hpp. The gradient computes the iterations again, so that a graph keeps t alone.
#pragma once

#include "core/view.hpp"

namespace isotypic {

// Settings of the iteration; lengths (B) int64 on the device of the tensors, or null where all are n.
struct SinkhornSettings {
    const int64_t* lengths = nullptr;
    double tau = 1;
    int iterations = 1;
};

// t and gradient (B, n), entropy and w (B), x and y (B, n, C); w or x and y may be undefined. Contiguous, all float32 or all float64. The
// last one is fully overwritten.
namespace cpu {
// False where a score is NaN or infinite; then the order is not to be used.
bool sort_order(const View& scores, const int64_t* lengths, int64_t* order);
void sort_sinkhorn_entropy(const View& t, const SinkhornSettings& settings, const View& entropy);
void sort_sinkhorn_gradient(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings,
                            const View& gradient);
}  // namespace cpu

// The same on the current device, queued on the caller's stream, in a workspace of so many bytes. std::runtime_error when a launch fails.
namespace cuda {
int64_t sort_sinkhorn_workspace(const View& t, int iterations, bool gradient);
void sort_sinkhorn_entropy(const View& t, const SinkhornSettings& settings, const View& entropy, void* workspace, void* stream);
void sort_sinkhorn_gradient(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings,
                            const View& gradient, void* workspace, void* stream);
}  // namespace cuda

}  // namespace isotypic
