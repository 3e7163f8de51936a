// The products of matrices that attention is made of, in tiles of registers.
//
//     scores     S[q, k] (+)= sum_f A[q, f] B[f, k]           keys along the lanes
//     gather     Y[i, d] (+)= sum_j A(i, j) B[j, d]           features or values along the lanes
#pragma once

#include "cpu/distance_attention_kernel.hpp"
#include "cpu/vec_exp.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if ISOTYPIC_VECTOR_BYTES > 0
template <class T>
ISOTYPIC_INLINE T lane(Vec<T> v, int i) {
    return v[i];
}
#else
template <class T>
ISOTYPIC_INLINE T lane(T v, int) {
    return v;
}
#endif

// exp of what is not positive; 0 where the result is no normal number.
ISOTYPIC_INLINE Vec<float> exp_nonpositive(Vec<float> x) {
    return x < -87.f ? zero<float>() : exp_negative(x);
}
ISOTYPIC_INLINE Vec<double> exp_nonpositive(Vec<double> x) {
    return x < -708. ? zero<double>() : exp_negative(x);
}
ISOTYPIC_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
    return a > b ? a : b;
}
ISOTYPIC_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
    return a > b ? a : b;
}
template <class T>
ISOTYPIC_INLINE T largest_lane(Vec<T> v) {
#if ISOTYPIC_VECTOR_BYTES > 0 && !defined(__clang__)
    typename VecTraits<T>::index turn;
#pragma GCC unroll 4
    for (int half = kLanes<T> / 2; half > 0; half /= 2) {
        for (int l = 0; l < kLanes<T>; ++l) turn[l] = (l + half) % kLanes<T>;
        v = maximum(v, __builtin_shuffle(v, turn));
    }
    return lane<T>(v, 0);
#else
    T result = lane<T>(v, 0);
    for (int i = 1; i < kLanes<T>; ++i) result = lane<T>(v, i) > result ? lane<T>(v, i) : result;
    return result;
#endif
}

constexpr int kRowTile = 4;
constexpr int kVectorTile = ISOTYPIC_VECTOR_BYTES == 64 ? 4 : 2;  // of keys
constexpr int kValueTile = ISOTYPIC_VECTOR_BYTES == 64 ? 6 : 3;   // of features or values

template <class T, int Rows>
ISOTYPIC_INLINE void scores_tile(int64_t F, const T* a, int64_t a_stride, const T* b, T* s, int64_t s_stride) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][kVectorTile] = {};
    for (int64_t f = 0; f < F; ++f, b += kKeyBlock) {
        Vec<T> column[kVectorTile];
#pragma GCC unroll 8
        for (int v = 0; v < kVectorTile; ++v) column[v] = load(b + v * L);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
            const Vec<T> x = broadcast<T>(a[i * a_stride + f]);
#pragma GCC unroll 8
            for (int v = 0; v < kVectorTile; ++v) sum[i][v] += x * column[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < kVectorTile; ++v) store(s + i * s_stride + v * L, sum[i][v]);
}

// `rows` rows of A against the kKeyBlock columns of B.
template <class T>
void scores(int64_t rows, int64_t F, const T* a, int64_t a_stride, const T* b, T* s, int64_t s_stride) {
    constexpr int64_t step = kVectorTile * kLanes<T>;
    for (int64_t k = 0; k < kKeyBlock; k += step) {
        int64_t i = 0;
        for (; i + kRowTile <= rows; i += kRowTile)
            scores_tile<T, kRowTile>(F, a + i * a_stride, a_stride, b + k, s + i * s_stride + k, s_stride);
        for (; i < rows; ++i) scores_tile<T, 1>(F, a + i * a_stride, a_stride, b + k, s + i * s_stride + k, s_stride);
    }
}

// A(i, j) = a[i a_row + j a_column]; scale[i] multiplies what is in Y, where scale is not null.
template <class T, int Rows, int Vectors>
ISOTYPIC_INLINE void gather_tile(int64_t J, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_stride, const T* scale, T* y,
                                 int64_t y_stride) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) {
            sum[i][v] = load(y + i * y_stride + v * L);
            if (scale) sum[i][v] *= broadcast<T>(scale[i]);
        }
    for (int64_t j = 0; j < J; ++j, b += b_stride, a += a_column) {
        Vec<T> row[Vectors];
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) row[v] = load(b + v * L);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
            const Vec<T> x = broadcast<T>(a[i * a_row]);
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) sum[i][v] += x * row[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) store(y + i * y_stride + v * L, sum[i][v]);
}

template <class T, int Vectors>
void gather_rows(int64_t rows, int64_t J, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_stride, const T* scale, T* y,
                 int64_t y_stride) {
    int64_t i = 0;
    for (; i + kRowTile <= rows; i += kRowTile)
        gather_tile<T, kRowTile, Vectors>(J, a + i * a_row, a_row, a_column, b, b_stride, scale ? scale + i : nullptr, y + i * y_stride,
                                          y_stride);
    for (; i < rows; ++i)
        gather_tile<T, 1, Vectors>(J, a + i * a_row, a_row, a_column, b, b_stride, scale ? scale + i : nullptr, y + i * y_stride, y_stride);
}

// `width` is a multiple of the lanes.
template <class T>
void gather(int64_t rows, int64_t width, int64_t J, const T* a, int64_t a_row, int64_t a_column, const T* b, int64_t b_stride,
            const T* scale, T* y, int64_t y_stride) {
    constexpr int64_t L = kLanes<T>;
    int64_t d = 0;
    for (; d + kValueTile * L <= width; d += kValueTile * L)
        gather_rows<T, kValueTile>(rows, J, a, a_row, a_column, b + d, b_stride, scale, y + d, y_stride);
    if constexpr (kValueTile > 4)
        for (; d + 4 * L <= width; d += 4 * L) gather_rows<T, 4>(rows, J, a, a_row, a_column, b + d, b_stride, scale, y + d, y_stride);
    for (; d + 2 * L <= width; d += 2 * L) gather_rows<T, 2>(rows, J, a, a_row, a_column, b + d, b_stride, scale, y + d, y_stride);
    for (; d < width; d += L) gather_rows<T, 1>(rows, J, a, a_row, a_column, b + d, b_stride, scale, y + d, y_stride);
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
