// Attention whose scores are an MLP of each pair of a query and a key, which sees the difference of their positions and the scores of all
// heads. No array of pairs is ever made.
//
//     s_ijh = q_ih . k_jh / sqrt(D)                        u_ij = x_i - x_j, |x_i - x_j|^2 or nothing
//     MLP(z) = W3 relu(W2 relu(W1 z + b1) + b2) + b3
//     mix:      a_ij = MLP([u_ij, s_ij])                   bias:  a_ij = s_ij + MLP(u_ij)
//     softmax:  p_ij = exp(a_ij - l_i), l_i = log sum_j exp(a_ij)          sum:  p_ij = a_ij
//     o_i = sum_j p_ij v_j,  over the keys j that the mask keeps
//
// pair_attention           -> out (B, H, N_q, D + 1): o and l behind it; (B, H, N_q, D) for the sum. A query without keys has zeros.
// pair_attention_gradient  -> the gradients of <grad, out> in all tensors, one behind the other: q, k, v, x_q, x_k, W1, b1, W2, b2, W3, b3.
//                             It makes the scores again, from `out` of the first call.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace isotypic {

enum class PairDifference : int { vector, distance2, none };

// q (B, H, N_q, D), k and v (B, H, N_k, D), x_q (B, N_q, d) and x_k (B, N_k, d) (undefined for `none`), w1 (W1, inputs), b1 (W1), w2
// (W2, W1), b2 (W2), w3 (H, W2), b3 (H); contiguous, float32 or float64 all. mask: bytes (B, rows, N_k) with 1 or N_q rows, or null.
struct PairAttentionCall {
    View q, k, v, x_q, x_k, w1, b1, w2, b2, w3, b3;
    const uint8_t* mask = nullptr;
    int64_t mask_rows = 1;
    bool mix = true, softmax = true;
    PairDifference difference = PairDifference::vector;

    int64_t out_width() const { return q.sizes[3] + (softmax ? 1 : 0); }
    int64_t gradient_size() const {
        const View* views[] = {&q, &k, &v, &x_q, &x_k, &w1, &b1, &w2, &b2, &w3, &b3};
        int64_t total = 0;
        for (const View* view : views) total += view->defined() ? view->numel() : 0;
        return total;
    }
};

// out, grad and result as above, contiguous, of the dtype of q. The last one is fully overwritten.
namespace cpu {
void pair_attention(const PairAttentionCall& call, const View& out);
void pair_attention_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result);
}  // namespace cpu

// The same on the current device, queued on the caller's stream; workspace of pair_attention_workspace bytes.
namespace cuda {
int64_t pair_attention_workspace(const PairAttentionCall& call);
void pair_attention(const PairAttentionCall& call, const View& out, void* stream);
void pair_attention_gradient(const PairAttentionCall& call, const View& out, const View& grad, const View& result, void* workspace,
                             void* stream);
}  // namespace cuda

}  // namespace isotypic
