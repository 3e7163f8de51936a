// transvectants of a single sample, for batches that do not fill a tile: channels along the lanes where products are made, output channels
// where they are mixed. What is read is the weight, once; for 50 channels and irreps up to 10 (0.63 MB in float32) that and 1.04 M
// multiply-adds in four vectors of output channels take 20,000 and 83,000 cycles.
#pragma once

#include "cpu/products.hpp"
#include "cpu/tile_copy.hpp"
#include "cpu/transvectants_products.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// c[r][n] (+)= sum over i < outer and j < inner of a[r * Row + i * a_outer + j * a_inner] w[i * w_outer + j * w_inner + n].
template <class T>
struct RowProduct {
    const T* a;
    int64_t a_outer, a_inner;
    const T* w;
    int64_t w_outer, w_inner, outer, inner;
    T* c;
    int64_t c_row;
    bool add;
};

template <class T>
ISOTYPIC_INLINE Vec<T> load_first(const T* p, int64_t count) {
    return count == kLanes<T> ? load(p) : merge_load(zero<T>(), (1u << count) - 1, p);
}

// Rows r < Rows and Vectors vectors of columns, of which the last has `last` lanes.
template <class T, int Row, int Rows, int Vectors>
void multiply_block(const RowProduct<T>& p, int64_t last) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v)
            sum[r][v] = !p.add ? zero<T>() : load_first(p.c + r * p.c_row + v * L, v + 1 < Vectors ? L : last);
    for (int64_t i = 0; i < p.outer; ++i) {
        const T *a = p.a + i * p.a_outer, *w = p.w + i * p.w_outer;
        for (int64_t j = 0; j < p.inner; ++j) {
            Vec<T> right[Vectors];
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) right[v] = v + 1 < Vectors ? load(w + v * L) : load_first(w + v * L, last);
#pragma GCC unroll 16
            for (int r = 0; r < Rows; ++r) {
                const Vec<T> left = broadcast<T>(a[r * Row]);
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
            }
            a += p.a_inner;
            w += p.w_inner;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
        T* c = p.c + r * p.c_row;
#pragma GCC unroll 4
        for (int v = 0; v + 1 < Vectors; ++v) store(c + v * L, sum[r][v]);
        if (last == L)
            store(c + (Vectors - 1) * L, sum[r][Vectors - 1]);
        else
            mask_store(c + (Vectors - 1) * L, (1u << last) - 1, sum[r][Vectors - 1]);
    }
}

template <class T, int Row, int Rows>
ISOTYPIC_INLINE void multiply_block_of(int64_t rows, RowProduct<T> p, int64_t columns) {
    if (rows == Rows) {
        constexpr int64_t L = kLanes<T>;
        for (int64_t n = 0; n < columns;) {
            const int64_t left = columns - n, vectors = (left + L - 1) / L;
            const int64_t taken = Rows <= kGradientRows / 2 && vectors >= 3 ? smaller(vectors, 4) : vectors >= 2 ? 2 : 1;
            const int64_t last = smaller(left - (taken - 1) * L, L);
            if constexpr (Rows <= kGradientRows / 2) {
                if (taken == 4) multiply_block<T, Row, Rows, 4>(p, last);
                if (taken == 3) multiply_block<T, Row, Rows, 3>(p, last);
            }
            if (taken == 2) multiply_block<T, Row, Rows, 2>(p, last);
            if (taken == 1) multiply_block<T, Row, Rows, 1>(p, last);
            n += taken * L;
            p.w += taken * L;
            p.c += taken * L;
        }
        return;
    }
    if constexpr (Rows > 1) multiply_block_of<T, Row, Rows - 1>(rows, p, columns);
}

// Any number of rows and columns, in blocks of nearly equal height.
template <class T, int Row>
void multiply_rows(RowProduct<T> p, int64_t rows, int64_t columns) {
    if (!rows || !columns) return;
    const int64_t blocks = (rows + kGradientRows - 1) / kGradientRows, height = (rows + blocks - 1) / blocks;
    for (int64_t r = 0; r < rows; r += height) {
        const int64_t count = smaller(height, rows - r);
        multiply_block_of<T, Row, kGradientRows>(count, p, columns);
        p.a += count * Row;
        p.c += count * p.c_row;
    }
}

// Rows of a panel lie as [slot][path][coefficient of the slot], so that the coefficients of a path follow each other.
template <class T>
struct SamplePlace {
    const TransvectantsCall& p;
    T* panel;
    PanelRow<T> operator()(const TransvectantRow& row) const {
        const int slot = p.slot[row.out], first = p.out_begin[slot];
        return {panel + (p.rows_before[first] + row.path * (p.out_begin[slot + 1] - first) + row.out - first) * kTile<T>, 0};
    }
};

// A tile is of channels here.
template <class T>
struct SampleWorkspace {
    T *x, *h, *panel, *rest;  // rest: (G, O), or (O, tile)
    SampleWorkspace(const TransvectantsCall& p, void* memory) {
        x = static_cast<T*>(memory);
        h = x + p.in_size * kTile<T>;
        panel = h + p.in_size * kTile<T>;
        rest = panel + static_cast<int64_t>(p.row_count) * kTile<T>;
    }
    static int64_t size(const TransvectantsCall& p) {
        return (2 * p.in_size + p.row_count) * kTile<T> + p.out_channels * larger(p.out_size, kTile<T>);
    }
};

template <class T>
void load_channels(const T* rows, int64_t stride, int64_t count, int64_t width, T* target) {
    constexpr int L = kLanes<T>;
    for (int v = 0; v < 2; ++v)
        load_tile(rows + v * L * stride, stride, smaller(larger(count - v * L, 0), L), width, target + v * L, kTile<T>);
}

template <class T>
void products_of_sample(const TransvectantsCall& p, int64_t sample, int64_t c0, int64_t channels, const SampleWorkspace<T>& w) {
    const int64_t from = (sample * p.in_channels + c0) * p.in_size;
    load_channels(static_cast<const T*>(p.f) + from, p.in_size, channels, p.in_size, w.x);
    if (p.h) load_channels(static_cast<const T*>(p.h) + from, p.in_size, channels, p.in_size, w.h);
    products<T>(p, w.x, p.h ? w.h : nullptr, 1, SamplePlace<T>{p, w.panel});
}

template <class T>
void forward_sample(const TransvectantsCall& p, int64_t sample, void* memory) {
    constexpr int64_t N = kTile<T>;
    const SampleWorkspace<T> w(p, memory);
    T* sums = w.rest;  // (G, O)
    const int64_t out = p.out_channels;
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += N) {
        const int64_t channels = smaller(N, p.in_channels - c0);
        products_of_sample(p, sample, c0, channels, w);
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t first = p.out_begin[s], width = p.out_begin[s + 1] - first, paths = p.path_begin[s + 1] - p.path_begin[s];
            multiply_rows<T, N>(
                {w.panel + p.rows_before[first] * N, 1, width * N, static_cast<const T*>(p.weight) + (c0 * p.paths + p.path_begin[s]) * out,
                 p.paths * out, out, channels, paths, sums + first * out, out, c0 > 0},
                width, out);
        }
    }
    T* y = static_cast<T*>(p.result) + sample * out * p.out_size;
    for (int64_t o = 0; o < out; ++o)
        for (int64_t l = 0; l < p.out_size; ++l) y[o * p.out_size + l] = sums[l * out + o];
}

template <class T>
void input_sample(const TransvectantsCall& p, int64_t sample, void* memory) {
    constexpr int L = kLanes<T>;
    constexpr int64_t N = kTile<T>;
    const SampleWorkspace<T> w(p, memory);
    T* turned = w.rest;  // the weight of a path and a tile of channels, (O, tile)
    const int64_t out = p.out_channels;
    const T* z = static_cast<const T*>(p.z) + sample * out * p.out_size;
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += N) {
        const int64_t channels = smaller(N, p.in_channels - c0), from = (sample * p.in_channels + c0) * p.in_size;
        load_channels(static_cast<const T*>(p.f) + from, p.in_size, channels, p.in_size, w.x);
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t first = p.out_begin[s], width = p.out_begin[s + 1] - first, paths = p.path_begin[s + 1] - p.path_begin[s];
            for (int64_t q = 0; q < paths; ++q) {
                load_channels(static_cast<const T*>(p.weight) + (c0 * p.paths + p.path_begin[s] + q) * out, p.paths * out, channels, out,
                              turned);
                multiply_rows<T, 1>(
                    {z + first, 0, p.out_size, turned, 0, N, 1, out, w.panel + (p.rows_before[first] + q) * N, paths * N, false}, width, N);
            }
        }
        products_adjoint<T>(p, w.x, w.panel, w.h, 1);
        for (int v = 0; v < 2; ++v)
            store_tile(w.h + v * L, N, smaller(larger(channels - v * L, 0), L), p.in_size,
                       static_cast<T*>(p.result) + from + v * L * p.in_size, p.in_size);
    }
}

template <class T>
void weight_sample(const TransvectantsCall& p, int64_t sample, bool add, void* sums, void* memory) {
    constexpr int64_t N = kTile<T>;
    const SampleWorkspace<T> w(p, memory);
    T* turned = w.rest;  // z (G, O)
    const int64_t out = p.out_channels;
    const T* z = static_cast<const T*>(p.z) + sample * out * p.out_size;
    for (int64_t o = 0; o < out; ++o)
        for (int64_t l = 0; l < p.out_size; ++l) turned[l * out + o] = z[o * p.out_size + l];
    for (int64_t c0 = 0; c0 < p.in_channels; c0 += N) {
        const int64_t channels = smaller(N, p.in_channels - c0);
        products_of_sample(p, sample, c0, channels, w);
        for (int s = 0; s < p.out_slots; ++s) {
            const int64_t first = p.out_begin[s], width = p.out_begin[s + 1] - first, paths = p.path_begin[s + 1] - p.path_begin[s];
            for (int64_t q = 0; q < paths; ++q)
                multiply_rows<T, 1>({w.panel + (p.rows_before[first] + q * width) * N, 0, N, turned + first * out, 0, out, 1, width,
                                     static_cast<T*>(sums) + (p.path_begin[s] * p.in_channels + c0 * paths + q) * out, paths * out, add},
                                    channels, out);
        }
    }
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
