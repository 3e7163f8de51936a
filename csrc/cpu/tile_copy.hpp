// Rows of memory to and from tiles in which they lie side by side along the lanes of a vector.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// dst[m * dst_stride + n] = src[n * src_stride + m] for m, n < 4: eight shuffles in four registers. Blocks of four take half the time of
// whole vectors here (16 lanes: about 100 cycles for 16 x 16 instead of 200), and fit rows of any length from four on.
template <class T>
ISOTYPIC_INLINE void transpose_block(const T* src, int64_t src_stride, T* dst, int64_t dst_stride) {
#if ISOTYPIC_VECTOR_BYTES > 0 && !defined(__clang__)
    typedef T Quad __attribute__((vector_size(4 * sizeof(T))));
    typedef T Unaligned __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T))));
    typedef decltype(Quad{} < Quad{}) Index;
    constexpr Index low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
    Quad row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) row[i] = *reinterpret_cast<const Unaligned*>(src + i * src_stride);
    const Quad a = __builtin_shuffle(row[0], row[1], low), b = __builtin_shuffle(row[0], row[1], high);
    const Quad c = __builtin_shuffle(row[2], row[3], low), d = __builtin_shuffle(row[2], row[3], high);
    *reinterpret_cast<Unaligned*>(dst) = __builtin_shuffle(a, c, left);
    *reinterpret_cast<Unaligned*>(dst + dst_stride) = __builtin_shuffle(a, c, right);
    *reinterpret_cast<Unaligned*>(dst + 2 * dst_stride) = __builtin_shuffle(b, d, left);
    *reinterpret_cast<Unaligned*>(dst + 3 * dst_stride) = __builtin_shuffle(b, d, right);
#else
    for (int m = 0; m < 4; ++m)
        for (int n = 0; n < 4; ++n) dst[m * dst_stride + n] = src[n * src_stride + m];
#endif
}

// tile[j * pitch + lane] = source[lane * stride + j] for j < width and lane < rows <= kLanes; the lanes behind are zero.
template <class T>
void load_tile(const T* source, int64_t stride, int64_t rows, int64_t width, T* tile, int64_t pitch) {
    constexpr int L = kLanes<T>;
    if (L >= 4 && rows == L && width >= 4) {
        for (int64_t j = 0; j < width; j += 4) {
            const int64_t at = j + 4 <= width ? j : width - 4;  // the last block overlaps the one before
            for (int lane = 0; lane < L; lane += 4) transpose_block(source + lane * stride + at, stride, tile + at * pitch + lane, pitch);
        }
        return;
    }
    for (int64_t lane = 0; lane < L; ++lane) {
        const T* row = source + lane * stride;
        if (lane < rows)
            for (int64_t j = 0; j < width; ++j) tile[j * pitch + lane] = row[j];
        else
            for (int64_t j = 0; j < width; ++j) tile[j * pitch + lane] = 0;
    }
}

// The way back, for the first `rows` lanes.
template <class T>
void store_tile(const T* tile, int64_t pitch, int64_t rows, int64_t width, T* target, int64_t stride) {
    constexpr int L = kLanes<T>;
    if (L >= 4 && rows == L && width >= 4) {
        for (int64_t j = 0; j < width; j += 4) {
            const int64_t at = j + 4 <= width ? j : width - 4;
            for (int lane = 0; lane < L; lane += 4) transpose_block(tile + at * pitch + lane, pitch, target + lane * stride + at, stride);
        }
        return;
    }
    for (int64_t lane = 0; lane < rows; ++lane)
        for (int64_t j = 0; j < width; ++j) target[lane * stride + j] = tile[j * pitch + lane];
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
