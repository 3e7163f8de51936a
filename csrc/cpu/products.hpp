// Register-blocked products of the group convolution. Positions run along the vector lanes, two vectors (a tile) at a time.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// Accumulators that fit the register file beside two operands and a broadcast: 32 registers on AVX-512 and NEON, 16 before.
#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_NEON)
constexpr int kMaxWidth = 14;
constexpr int kGradientRows = 12;
#elif defined(ISOTYPIC_ISA_AVX2)
constexpr int kMaxWidth = 6;
constexpr int kGradientRows = 6;
#else
constexpr int kMaxWidth = 4;
constexpr int kGradientRows = 4;
#endif
constexpr int kGradientVectors = 2;

// c[n][tile] (+)= sum_k a[k][tile] b[k][n] for n < Width. Each step: two vector loads, Width broadcasts, 2 Width multiply-adds.
template <class T, int Width>
void multiply_tile(const T* a, const T* b, int64_t depth, T* c, bool accumulate) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Width][2];
    if (accumulate) {
#pragma GCC unroll 16
        for (int n = 0; n < Width; ++n) sum[n][0] = load(c + n * 2 * L), sum[n][1] = load(c + n * 2 * L + L);
    } else {
#pragma GCC unroll 16
        for (int n = 0; n < Width; ++n) sum[n][0] = zero<T>(), sum[n][1] = zero<T>();
    }
    for (int64_t k = 0; k < depth; ++k) {
        const Vec<T> a0 = load(a), a1 = load(a + L);
#pragma GCC unroll 16
        for (int n = 0; n < Width; ++n) {
            const Vec<T> w = broadcast<T>(b[n]);
            sum[n][0] += a0 * w;
            sum[n][1] += a1 * w;
        }
        a += 2 * L;
        b += Width;
    }
#pragma GCC unroll 16
    for (int n = 0; n < Width; ++n) store(c + n * 2 * L, sum[n][0]), store(c + n * 2 * L + L, sum[n][1]);
}

template <class T, int Width>
ISOTYPIC_INLINE void multiply_width(int width, const T* a, const T* b, int64_t depth, T* c, bool accumulate) {
    if (width == Width) return multiply_tile<T, Width>(a, b, depth, c, accumulate);
    if constexpr (Width > 1) multiply_width<T, Width - 1>(width, a, b, depth, c, accumulate);
}

// c[k][n] += sum_m a[k][m] g[m][n] over the positions m of a tile, for k < Rows and n < Vectors * lanes: the weight gradient.
template <class T, int Rows, int Vectors>
void accumulate_outer(const T* a, const T* g, int64_t g_stride, int steps, int64_t a_step, int64_t g_step, T* c) {
    constexpr int L = kLanes<T>, N = Vectors * L;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 16
    for (int k = 0; k < Rows; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[k][v] = load(c + k * N + v * L);
    for (int s = 0; s < steps; ++s) {
        for (int m = 0; m < kTile<T>; ++m) {
            Vec<T> right[Vectors];
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) right[v] = load(g + m * g_stride + v * L);
#pragma GCC unroll 16
            for (int k = 0; k < Rows; ++k) {
                const Vec<T> left = broadcast<T>(a[k * kTile<T> + m]);
#pragma GCC unroll 2
                for (int v = 0; v < Vectors; ++v) sum[k][v] += left * right[v];
            }
        }
        a += a_step;
        g += g_step;
    }
#pragma GCC unroll 16
    for (int k = 0; k < Rows; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) store(c + k * N + v * L, sum[k][v]);
}

// The same for any number of rows, in register blocks.
template <class T, int Vectors>
void accumulate_rows(const T* a, const T* g, int64_t g_stride, int steps, int64_t a_step, int64_t g_step, T* c, int64_t rows) {
    constexpr int N = Vectors * kLanes<T>;
    int64_t k = 0;
    for (; k + kGradientRows <= rows; k += kGradientRows)
        accumulate_outer<T, kGradientRows, Vectors>(a + k * kTile<T>, g, g_stride, steps, a_step, g_step, c + k * N);
    for (; k + 3 <= rows; k += 3) accumulate_outer<T, 3, Vectors>(a + k * kTile<T>, g, g_stride, steps, a_step, g_step, c + k * N);
    for (; k < rows; ++k) accumulate_outer<T, 1, Vectors>(a + k * kTile<T>, g, g_stride, steps, a_step, g_step, c + k * N);
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
