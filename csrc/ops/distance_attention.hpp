// distance_attention: attention between items that carry multivectors and scalars. With the channels c of a head,
//
//     logit[q, k] = scale (sum_ci sign_i q_ci k_ci + sum_s q_s k_s - sum_c weight_c (n_q n_k)^2 |x_q w_k - x_k w_q|^2)
//     n = w / (w^2 + 0.001), x = components 11 to 13, w = component 14
//     out[q] = sum_k softmax_k(logit[q, k]) value[k],      lse[q] = log sum_k exp logit[q, k], infinite where q attends to nothing
//
// The distance is that of a difference, so that far from the origin nothing cancels. Gradients compute the weights again from lse:
//
//     P = exp(logit - lse),   dV = P^T g,   dlogit = P (g V^T - rowsum(g out))
#pragma once

#include "core/view.hpp"

namespace isotypic {

struct AttentionSettings {
    int heads = 1, key_heads = 1;  // key_heads: 1 or heads
    int inner = 0;                 // components in the inner product, their places and signs
    int index[16] = {};
    double sign[16] = {};
    bool distance = false;
    double scale = 1;
};

constexpr double kAttentionEpsilon = 1e-3;

// q_mv (B, Nq, heads C, 16), k_mv (B, Nk, key_heads C, 16), v_mv (B, Nk, key_heads Cv, 16), q_s (B, Nq, heads S), k_s (B, Nk, key_heads S),
// v_s (B, Nk, key_heads Sv): channels next to each other, any strides of items and samples. weight (heads, C) or undefined for 1; mask
// (B, Nq, Nk) bytes or null, 0 does not attend; ranges (B, Nq, 2) or null: the first key of a query and the one after the last.
// mv (B, Nq, heads Cv, 16), s (B, Nq, heads Sv), lse (B, heads, Nq): contiguous, fully overwritten. All of one dtype, float32 or float64.
struct AttentionCall {
    AttentionSettings settings;
    View q_mv, k_mv, v_mv, q_s, k_s, v_s, weight;
    const uint8_t* mask = nullptr;
    const int32_t* ranges = nullptr;
    View mv, s, lse;
};

// The gradients of the seven tensors, contiguous and fully overwritten; g_mv and g_s as mv and s.
struct AttentionGradients {
    View g_mv, g_s;
    View q_mv, k_mv, v_mv, q_s, k_s, v_s, weight;
};

namespace cpu {
void distance_attention(const AttentionCall& a);
void distance_attention_backward(const AttentionCall& a, const AttentionGradients& g);
}  // namespace cpu

// The same on the current device, queued on the caller's stream; operands contiguous. std::runtime_error when the launch fails or a head
// has more than kMaxHead numbers in its queries or in its values. `workspace`: attention_workspace numbers of the dtype for
// the gradients, one for each sample, 16 queries and channel of all heads.
namespace cuda {
constexpr int kMaxHead = 1024;
constexpr int kAttentionQueries = 16;
inline int64_t attention_workspace(int64_t batch, int64_t queries, int64_t channels) {
    return batch * ((queries + kAttentionQueries - 1) / kAttentionQueries) * channels;
}
void distance_attention(const AttentionCall& a, void* stream);
void distance_attention_backward(const AttentionCall& a, const AttentionGradients& g, const View& workspace, void* stream);
}  // namespace cuda

}  // namespace isotypic
