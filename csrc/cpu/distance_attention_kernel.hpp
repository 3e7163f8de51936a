// What passes between the driver of distance_attention and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

constexpr int64_t kQueryBlock = 64, kKeyBlock = 64;
constexpr int kGeometry = 5;  // of a point: x1, x2, x3, w, n^2

// One head. Features of a query or a key: inner C + S products, then kGeometry numbers for each channel where there is a distance. For
// gradients there are as many again, of which the distance is a product: p v, v^2, |p|^2 with p = (x - centre w) n and v = w n.
struct AttentionHead {
    int64_t queries, keys, keys_padded;  // a multiple of kKeyBlock
    int C, S, Cv, Sv;
    int inner, index[16];
    double sign[16];
    int distance;
    double scale, epsilon;
    int64_t features;               // products
    int64_t geometry;               // kGeometry C or 0
    int64_t row, row_padded;        // features + geometry, and a multiple of the lanes
    int64_t values, values_padded;  // 16 Cv + Sv
    int64_t shared;                 // heads that share their keys
};

// Rows of one head in a tensor, `stride` apart from item to item.
template <class T>
struct Rows {
    T* data;
    int64_t stride;
};

template <class T>
struct AttentionData {
    Rows<const T> q_mv, k_mv, v_mv, q_s, k_s, v_s;
    const T* weight;        // (C) or null
    const uint8_t* mask;    // (queries, keys) or null
    const int32_t* ranges;  // (queries, 2) or null
    Rows<T> mv, s;          // of the result
    T* lse;                 // (queries)
};

template <class T>
struct AttentionPacked {
    T* key_panel;    // (keys_padded / kKeyBlock, row, kKeyBlock)
    T* value_rows;   // (keys_padded, values_padded)
    T* spoiled;      // (keys_padded): 0, or NaN for a key that is not finite
    T* key_rows;     // (keys_padded, row_padded), for gradients
    T* value_panel;  // (keys_padded / kKeyBlock, values, kKeyBlock), for gradients
    T* centre;       // (C, 3), for gradients
};

template <class T>
struct AttentionKernel {
    int lanes;
    int64_t (*workspace)(const AttentionHead& head);  // numbers, for one thread
    // `data` is that of the first of the heads that share these keys.
    void (*pack)(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed);
    // Queries first to first + count <= kQueryBlock.
    void (*forward)(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, int64_t first, int64_t count,
                    T* workspace);
    // All queries of a head: their gradients written to q_mv, q_s and weight (C); added to key_rows (keys_padded, row_padded) and
    // value_rows (keys_padded, values_padded).
    void (*backward)(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, Rows<const T> g_mv,
                     Rows<const T> g_s, Rows<T> q_mv, Rows<T> q_s, T* weight, T* key_rows, T* value_rows, T* workspace);
    // The gradients of keys and values of one key head from the sums above.
    void (*unpack)(const AttentionHead& head, const AttentionData<T>& data, const AttentionPacked<T>& packed, const T* key_rows,
                   const T* value_rows, Rows<T> k_mv, Rows<T> k_s, Rows<T> v_mv, Rows<T> v_s);
};

struct AttentionKernels {
    AttentionKernel<float> float32;
    AttentionKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const AttentionKernels& distance_attention_kernels())

}  // namespace isotypic::cpu
