// What passes between the driver of pair_attention and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// A layer y = W x + b as the kernels read it: blocks of `block` outputs, (outputs / block, depth, block), zeros behind the last one; and
// its transpose in the same way.
template <class T>
struct PackedLayer {
    const T* weight;
    const T* bias;
    const T* transposed;
    int64_t inputs, outputs;
};

// Sizes of a call. Keys lie in tiles of `pairs`, of which the last one is filled up.
struct PairSizes {
    int64_t heads, width, dim, keys, tiles;
    int difference;  // PairDifference
    bool mix, softmax;
};

// What a thread works in, of T each; see `pair_workspace`.
template <class T>
struct PairGradients {
    T *w1, *b1, *w2, *b2, *w3, *b3;  // sums over pairs: weights (outputs, padded inputs), biases (outputs, lanes)
    T *k, *v, *x;                    // (tiles, heads, width, pairs), the same, (tiles, dim, pairs)
    T *q, *x_q;                      // of the query at hand: (heads, width), (dim)
};

template <class T>
struct PairAttentionKernel {
    int lanes, pairs, block;
    // One query: q and out with `head_stride` from head to head; keys (tiles, heads, width, pairs), positions (tiles, dim, pairs), values
    // (heads, keys, width), keep (tiles, pairs) of 0 and 1, scores (heads, tiles, pairs) scratch.
    void (*forward)(const PairSizes& sizes, const PackedLayer<T>* layers, const T* q, int64_t q_stride, const T* x, const T* keys,
                    const T* positions, const T* values, const T* keep, T* scores, T* workspace, T* out, int64_t out_stride);
    // One query: adds to the gradients of what queries share, writes those of its own.
    void (*gradient)(const PairSizes& sizes, const PackedLayer<T>* layers, const T* q, int64_t q_stride, const T* x, const T* keys,
                     const T* positions, const T* packed_values, const T* keep, const T* out, const T* grad, int64_t out_stride,
                     T* workspace, const PairGradients<T>& gradients);
};

struct PairAttentionKernels {
    PairAttentionKernel<float> float32;
    PairAttentionKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const PairAttentionKernels& pair_attention_kernels())

inline int64_t rounded_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

// Rows of a buffer of n numbers to a pair: whole blocks and whole vectors.
inline int64_t padded(int64_t n, int64_t lanes, int64_t block) {
    return rounded_up(n, lanes > block ? lanes : block);
}

}  // namespace isotypic::cpu
