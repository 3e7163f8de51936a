// Multivectors to and from tiles in which one component of a vector's worth of them lies side by side.
//
// A vector has L / 4 quarters of four lanes. The four components 4b..4b+3 of L multivectors are four vectors whose quarter g holds those of
// multivectors 4g..4g+3, loaded a quarter at a time, and one transposition of 4 x 4 within quarters. That takes 8 shuffles for each four
// components instead of 16 for a transposition of whole vectors: shuffles of 512 bits run on one port of two, loads beside them.
#pragma once

#include "cpu/convert.hpp"
#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if (defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_AVX2)) && !defined(__clang__)
#define ISOTYPIC_QUARTERS 1
#else
#define ISOTYPIC_QUARTERS 0
#endif

#if ISOTYPIC_QUARTERS
// p, p + 4 stride, ...: one quarter each.
ISOTYPIC_INLINE Vec<float> load_quarters(const float* p, int64_t stride) {
#if defined(ISOTYPIC_ISA_AVX512)
    Vec<float> v = _mm512_zextps128_ps512(_mm_loadu_ps(p));
    v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(p + 4 * stride));
    v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(p + 8 * stride));
    return _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(p + 12 * stride));
#else
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
#endif
}
ISOTYPIC_INLINE void store_quarters(float* p, int64_t stride, Vec<float> v) {
#if defined(ISOTYPIC_ISA_AVX512)
    _mm_storeu_ps(p, _mm512_maskz_extractf32x4_ps(0xf, v, 0));
    _mm_storeu_ps(p + 4 * stride, _mm512_maskz_extractf32x4_ps(0xf, v, 1));
    _mm_storeu_ps(p + 8 * stride, _mm512_maskz_extractf32x4_ps(0xf, v, 2));
    _mm_storeu_ps(p + 12 * stride, _mm512_maskz_extractf32x4_ps(0xf, v, 3));
#else
    _mm_storeu_ps(p, _mm256_castps256_ps128(v));
    _mm_storeu_ps(p + 4 * stride, _mm256_extractf128_ps(v, 1));
#endif
}

// Transposes the 4 x 4 numbers of each quarter.
ISOTYPIC_INLINE void transpose_quarters(Vec<float>* r) {
    VecTraits<float>::index low, high, left, right;
    for (int l = 0; l < kLanes<float>; ++l) {
        const int base = l / 4 * 4, i = l % 4, other = kLanes<float>;
        low[l] = base + i / 2 + (i % 2 ? other : 0);
        high[l] = base + 2 + i / 2 + (i % 2 ? other : 0);
        left[l] = base + i % 2 + (i / 2 ? other : 0);
        right[l] = base + 2 + i % 2 + (i / 2 ? other : 0);
    }
    const Vec<float> a = __builtin_shuffle(r[0], r[1], low), b = __builtin_shuffle(r[0], r[1], high);
    const Vec<float> c = __builtin_shuffle(r[2], r[3], low), d = __builtin_shuffle(r[2], r[3], high);
    r[0] = __builtin_shuffle(a, c, left);
    r[1] = __builtin_shuffle(a, c, right);
    r[2] = __builtin_shuffle(b, d, left);
    r[3] = __builtin_shuffle(b, d, right);
}
#endif

// v[i]: component i of multivectors p, p + stride, ..., as many as there are lanes.
template <class T>
ISOTYPIC_INLINE void load_multivectors(const T* p, int64_t stride, Vec<T>* v) {
#if ISOTYPIC_QUARTERS
    if constexpr (sizeof(T) == 4) {
#pragma GCC unroll 4
        for (int b = 0; b < 16; b += 4) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) v[b + i] = load_quarters(p + i * stride + b, stride);
            transpose_quarters(v + b);
        }
        return;
    }
#endif
    constexpr int L = kLanes<T>;
    alignas(64) T tile[16 * L];
    load_tile(p, stride, L, 16, tile, L);
    for (int i = 0; i < 16; ++i) v[i] = load(tile + i * L);
}

template <class T>
ISOTYPIC_INLINE void store_multivectors(Vec<T>* v, T* p, int64_t stride) {
#if ISOTYPIC_QUARTERS
    if constexpr (sizeof(T) == 4) {
#pragma GCC unroll 4
        for (int b = 0; b < 16; b += 4) {
            transpose_quarters(v + b);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) store_quarters(p + i * stride + b, stride, v[b + i]);
        }
        return;
    }
#endif
    constexpr int L = kLanes<T>;
    alignas(64) T tile[16 * L];
    for (int i = 0; i < 16; ++i) store(tile + i * L, v[i]);
    store_tile(tile, L, L, 16, p, stride);
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
