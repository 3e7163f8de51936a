// Rows of memory to and from tiles in which they lie side by side along the lanes of a vector.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// tile[j * pitch + lane] = source[lane * stride + j] for j < width and lane < rows <= kLanes; the lanes behind are zero.
template <class T>
void load_tile(const T* source, int64_t stride, int64_t rows, int64_t width, T* tile, int64_t pitch) {
    constexpr int L = kLanes<T>;
    if (L > 1 && rows == L && width >= L) {
        for (int64_t j = 0; j < width; j += L) {
            const int64_t at = j + L <= width ? j : width - L;  // the last block overlaps the one before
            transpose(source + at, stride, tile + at * pitch, pitch);
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
    if (L > 1 && rows == L && width >= L) {
        for (int64_t j = 0; j < width; j += L) {
            const int64_t at = j + L <= width ? j : width - L;
            transpose(tile + at * pitch, pitch, target + at, stride);
        }
        return;
    }
    for (int64_t lane = 0; lane < rows; ++lane)
        for (int64_t j = 0; j < width; ++j) target[lane * stride + j] = tile[j * pitch + lane];
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
