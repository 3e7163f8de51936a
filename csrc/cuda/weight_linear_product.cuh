// The product that the kernels of weight_linear share: tiles in shared memory, 4 x 4 outputs of a thread in registers.
//
// A tile lies with its inner index outside, tile[k][i], and rows of 16 bytes more than their numbers. So a thread reads the four rows and
// the four columns of its outputs as vectors of 16 bytes, 2 loads for 16 multiply-adds in float32, and the rows of different k begin at
// different banks.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSide = 32;   // columns of a tile, and inner indices at a time
constexpr int kLines = 32;  // threads that read along a line of memory

template <class A>
HOST_DEVICE constexpr int pitch_of(int numbers) {
    return numbers + 16 / static_cast<int>(sizeof(A));
}

// Four numbers side by side.
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
    T value[4];
};

// Sum += left[k][0 .. 3]^T right[k][0 .. 3] over k < depth.
template <class A>
DEVICE void multiply_tile(A (&sum)[4][4], const A* left, int left_pitch, const A* right, int right_pitch, int depth) {
#pragma unroll 4
    for (int k = 0; k < depth; ++k) {
        const Four<A> a = *reinterpret_cast<const Four<A>*>(left + k * left_pitch),
                      b = *reinterpret_cast<const Four<A>*>(right + k * right_pitch);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[i][j] += a.value[i] * b.value[j];
    }
}

// The power of two that covers what is read along a line, at most 32, as its logarithm.
HOST_DEVICE inline int line_log2(int numbers) {
    int log2 = 0;
    while (1 << log2 < numbers && 1 << log2 < kLines) ++log2;
    return log2;
}

// tile[k][row] = value(row, k) for row < Rows and k < 2^depth_log2, where neighbouring k are neighbours in memory: a thread loads four rows
// of one k and stores them at once. All loads are on their way before the first store.
template <int Rows, class A, class Value>
DEVICE void stage_rows(A* tile, int pitch, int depth_log2, const Value& value) {
    constexpr int kItems = (Rows / 4 * kSide + kThreads - 1) / kThreads;
    Four<A> held[kItems];
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
        const int i = thread_index() + item * kThreads, k = i & ((1 << depth_log2) - 1), row = 4 * (i >> depth_log2);
#pragma unroll
        for (int j = 0; j < 4; ++j) held[item].value[j] = row < Rows ? value(row + j, k) : A(0);
    }
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
        const int i = thread_index() + item * kThreads, k = i & ((1 << depth_log2) - 1), row = 4 * (i >> depth_log2);
        if (row < Rows) *reinterpret_cast<Four<A>*>(tile + k * pitch + row) = held[item];
    }
}

// tile[k][column] = value(k, column) for k < Depth and column < 32, where neighbouring columns are neighbours in memory. hold() loads,
// store() stores, so that the loads of two tiles can be on their way together.
template <int Depth, class A>
struct ColumnsOnTheWay {
    static constexpr int kItems = Depth * kSide / kThreads;
    A held[kItems];
    template <class Value>
    DEVICE void load(const Value& value) {
#pragma unroll
        for (int item = 0; item < kItems; ++item)
            held[item] = value(thread_index() / kSide + item * (kThreads / kSide), thread_index() % kSide);
    }
    DEVICE void store(A* tile, int pitch) const {
#pragma unroll
        for (int item = 0; item < kItems; ++item)
            tile[(thread_index() / kSide + item * (kThreads / kSide)) * pitch + thread_index() % kSide] = held[item];
    }
};

// Whether four numbers at multiples of four can be moved at once.
template <class T>
DEVICE bool in_fours(const T* pointer, int numbers) {
    return numbers % 4 == 0 && reinterpret_cast<uintptr_t>(pointer) % alignof(Four<T>) == 0;
}
// Four numbers of which `left` exist.
template <class T>
DEVICE void load_four(Compute<T> (&to)[4], const T* from, int left, bool at_once) {
    if (at_once && left >= 4) {
        const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = widen(four.value[j]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) to[j] = j < left ? Compute<T>(widen(from[j])) : Compute<T>(0);
    }
}
template <class T>
DEVICE void store_four(T* to, const Compute<T> (&from)[4], int left, bool at_once) {
    if (at_once && left >= 4) {
        Four<T> four;
#pragma unroll
        for (int j = 0; j < 4; ++j) four.value[j] = narrow<T>(from[j]);
        *reinterpret_cast<Four<T>*>(to) = four;
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < left) to[j] = narrow<T>(from[j]);
    }
}

}  // namespace
}  // namespace cuda
}  // namespace isotypic
