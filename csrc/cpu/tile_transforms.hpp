// Between positions and the Fourier domain, one tile of positions at a time: gather the |G| shifted values of a channel and a tap, transform
// them in registers, and write them as rows of a panel; and the reverse.
//
// A group with a straight-line program (core/fourier.hpp) is transformed in place in registers. Every other transform (generated groups, and
// the shorter orbits of the lifting convolution) multiplies by its sparse matrix.
#pragma once

#include "core/fourier.hpp"
#include "cpu/group_conv_kernel.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// Where the positions of one vector lie in a padded plane: lanes `bits` at address `offset` + lane.
struct Segment {
    int64_t offset;
    uint32_t bits;
};

template <class T>
struct TileMap {
    int count[2];
    Segment segment[2][kLanes<T>];
    bool contiguous;  // both vectors are one full segment
};

template <class T>
constexpr uint32_t kAllLanes = static_cast<uint32_t>((1ull << kLanes<T>) - 1);

// The transform's values are read at src + offset[h], h < length, and written to the rows dst + row[i].
template <class T>
struct TransformArguments {
    const SparseMatrix* matrix;
    const TileMap<T>* map;
    int length;
    Vec<T>* values;  // scratch for the generic path, (max length or rows)
};

template <class T, int Count>
ISOTYPIC_INLINE void gather(const T* src, const int64_t* offset, int count, const TileMap<T>& map, int v, Vec<T>* values) {
    const int n = Count > 0 ? Count : count;
    if (map.contiguous) {
        const T* p = src + map.segment[v][0].offset;
#pragma GCC unroll 64
        for (int h = 0; h < n; ++h) values[h] = load(p + offset[h]);
        return;
    }
#pragma GCC unroll 64
    for (int h = 0; h < n; ++h) values[h] = zero<T>();
    for (int s = 0; s < map.count[v]; ++s) {
        const T* p = src + map.segment[v][s].offset;
        const uint32_t bits = map.segment[v][s].bits;
#pragma GCC unroll 64
        for (int h = 0; h < n; ++h) values[h] = merge_load(values[h], bits, p + offset[h]);
    }
}

template <class T, int Count>
ISOTYPIC_INLINE void scatter_add(T* dst, const int64_t* offset, int count, const TileMap<T>& map, int v, const Vec<T>* values) {
    const int n = Count > 0 ? Count : count;
    for (int s = 0; s < map.count[v]; ++s) {
        T* p = dst + map.segment[v][s].offset;
        const uint32_t bits = map.segment[v][s].bits;
        if (bits == kAllLanes<T>) {
#pragma GCC unroll 64
            for (int h = 0; h < n; ++h) store(p + offset[h], load(p + offset[h]) + values[h]);
        } else {
            for (int h = 0; h < n; ++h) mask_store(p + offset[h], bits, merge_load(zero<T>(), bits, p + offset[h]) + values[h]);
        }
    }
}

template <class T>
ISOTYPIC_INLINE Vec<T> sparse_row(const SparseMatrix& matrix, int row, const Vec<T>* values) {
    Vec<T> sum = zero<T>();
    for (int e = matrix.row_begin[row]; e < matrix.row_begin[row + 1]; ++e) sum += broadcast<T>(static_cast<T>(matrix.value[e])) * values[matrix.column[e]];
    return sum;
}

template <class T>
using Analyse = void (*)(const TransformArguments<T>&, const T* src, const int64_t* offset, T* dst, const int64_t* row);
template <class T>
using Synthesise = void (*)(const TransformArguments<T>&, const T* src, const int64_t* row, T* dst, const int64_t* offset);
template <class T>
using SynthesiseRows = void (*)(const TransformArguments<T>&, const T* src, const int64_t* row, T* dst);

// Gather, transform, write panel rows.
template <class T, class Program>
void analyse(const TransformArguments<T>& arguments, const T* src, const int64_t* offset, T* dst, const int64_t* row) {
#pragma GCC unroll 1
    for (int v = 0; v < 2; ++v) {
        Vec<T> values[Program::order];
        gather<T, Program::order>(src, offset, Program::order, *arguments.map, v, values);
        Program::template analysis<Vec<T>, T>(values);
#pragma GCC unroll 64
        for (int i = 0; i < Program::order; ++i) store(dst + row[i] + v * kLanes<T>, values[i]);
    }
}

// Read panel rows, transform back, add to where the values came from.
template <class T, class Program>
void synthesise_scatter(const TransformArguments<T>& arguments, const T* src, const int64_t* row, T* dst, const int64_t* offset) {
#pragma GCC unroll 1
    for (int v = 0; v < 2; ++v) {
        Vec<T> values[Program::order];
#pragma GCC unroll 64
        for (int i = 0; i < Program::order; ++i) values[i] = load(src + row[i] + v * kLanes<T>);
        Program::template synthesis<Vec<T>, T>(values);
        scatter_add<T, Program::order>(dst, offset, Program::order, *arguments.map, v, values);
    }
}

// Read panel rows, transform back, write (|G|, tile).
template <class T, class Program>
void synthesise_rows(const TransformArguments<T>&, const T* src, const int64_t* row, T* dst) {
#pragma GCC unroll 1
    for (int v = 0; v < 2; ++v) {
        Vec<T> values[Program::order];
#pragma GCC unroll 64
        for (int i = 0; i < Program::order; ++i) values[i] = load(src + row[i] + v * kLanes<T>);
        Program::template synthesis<Vec<T>, T>(values);
#pragma GCC unroll 64
        for (int h = 0; h < Program::order; ++h) store(dst + h * kTile<T> + v * kLanes<T>, values[h]);
    }
}

template <class T>
void analyse_generic(const TransformArguments<T>& arguments, const T* src, const int64_t* offset, T* dst, const int64_t* row) {
    for (int v = 0; v < 2; ++v) {
        gather<T, 0>(src, offset, arguments.length, *arguments.map, v, arguments.values);
        for (int i = 0; i < arguments.matrix->rows; ++i)
            store(dst + row[i] + v * kLanes<T>, sparse_row<T>(*arguments.matrix, i, arguments.values));
    }
}

// `matrix` is the adjoint: one row per value read.
template <class T>
void synthesise_scatter_generic(const TransformArguments<T>& arguments, const T* src, const int64_t* row, T* dst, const int64_t* offset) {
    const SparseMatrix& matrix = *arguments.matrix;
    for (int v = 0; v < 2; ++v) {
        for (int h = 0; h < matrix.rows; ++h) {
            Vec<T> sum = zero<T>();
            for (int e = matrix.row_begin[h]; e < matrix.row_begin[h + 1]; ++e)
                sum += broadcast<T>(static_cast<T>(matrix.value[e])) * load(src + row[matrix.column[e]] + v * kLanes<T>);
            arguments.values[h] = sum;
        }
        scatter_add<T, 0>(dst, offset, arguments.length, *arguments.map, v, arguments.values);
    }
}

template <class T>
void synthesise_rows_generic(const TransformArguments<T>& arguments, const T* src, const int64_t* row, T* dst) {
    const SparseMatrix& matrix = *arguments.matrix;
    for (int h = 0; h < matrix.rows; ++h)
        for (int v = 0; v < 2; ++v) {
            Vec<T> sum = zero<T>();
            for (int e = matrix.row_begin[h]; e < matrix.row_begin[h + 1]; ++e)
                sum += broadcast<T>(static_cast<T>(matrix.value[e])) * load(src + row[matrix.column[e]] + v * kLanes<T>);
            store(dst + h * kTile<T> + v * kLanes<T>, sum);
        }
}

template <class T>
struct TileTransforms {
    Analyse<T> analyse;
    Synthesise<T> synthesise_scatter;
    SynthesiseRows<T> synthesise_rows;
};

// By index in ISOTYPIC_FOR_EACH_FOURIER; -1 is the generic one.
template <class T>
ISOTYPIC_INLINE TileTransforms<T> tile_transforms(int program) {
    switch (program) {
#define ISOTYPIC_CASE(Program) \
    case kFourier##Program: return {analyse<T, fourier::Program>, synthesise_scatter<T, fourier::Program>, synthesise_rows<T, fourier::Program>};
        ISOTYPIC_FOR_EACH_FOURIER(ISOTYPIC_CASE)
#undef ISOTYPIC_CASE
        default: return {analyse_generic<T>, synthesise_scatter_generic<T>, synthesise_rows_generic<T>};
    }
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
