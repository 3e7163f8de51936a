// Transvectants in lanes, and their adjoint. What lies along the lanes, samples or channels, is the caller's matter.
//
// An antidiagonal: its products stay in registers, and each coefficient that they lead to is a sum of them, stored once. For irreps 0, 2,
// .., 10 that is 700 products, 1,400 multiply-adds and 417 stores a tile, where an outer product in memory took 700 stores and 1,400 loads
// more. The adjoint goes the other way by the same tables: the gradients of the products of an antidiagonal are sums in registers.
//
// Antidiagonals are small, 2 to 3 products on average, so that finding one's way to them takes as long as computing them: each is done for
// `channels` tiles in a row.
#pragma once

#include "cpu/transvectants_kernel.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// Vectors of a tile whose products fit the register file together.
#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_NEON)
constexpr int kProductVectors = 2;
#else
constexpr int kProductVectors = 1;
#endif
constexpr int kRowsTogether = 8;  // rows of an antidiagonal whose addresses are known together

// A row of the panel: of the first channel, and the way to that of the next one.
template <class T>
struct PanelRow {
    T* data;
    int64_t step;
};

// x and h: [channel][coefficient][tile]. place(row): the row of the panel.
template <class T, int Count, class Place>
void antidiagonal(const TransvectantsCall& p, const TransvectantAntidiagonal& d, const T* x, const T* h, int64_t channels,
                  const Place& place) {
    constexpr int L = kLanes<T>, N = kTile<T>, V = kProductVectors;
    const int64_t size = p.in_size * N;
    const T* coefficients = static_cast<const T*>(p.coefficients) + d.skip;
    for (int begin = d.row_begin; begin < d.row_end; begin += kRowsTogether) {
        const int rows = static_cast<int>(smaller(kRowsTogether, d.row_end - begin));
        PanelRow<T> to[kRowsTogether];
        const T* factors[kRowsTogether];
        for (int r = 0; r < rows; ++r) to[r] = place(p.rows[begin + r]), factors[r] = coefficients + p.rows[begin + r].coefficient;
        const T *first = x + d.first * N, *second = x + d.second * N;
        const T *h_first = h + d.first * N, *h_second = h + d.second * N;
        for (int64_t channel = 0; channel < channels; ++channel) {
            for (int v = 0; v < 2 * L; v += V * L) {
                Vec<T> entry[Count][V];
#pragma GCC unroll 16
                for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
                    for (int u = 0; u < V; ++u) {
                        const int at = v + u * L;
                        const Vec<T> a = load(first + t * N + at), b = load(second - t * N + at);
                        entry[t][u] = h ? a * load(h_second - t * N + at) + load(h_first + t * N + at) * b : a * b;
                    }
                for (int r = 0; r < rows; ++r) {
                    const T* c = factors[r];
                    T* target = to[r].data + v;
                    Vec<T> sum[V];
#pragma GCC unroll 2
                    for (int u = 0; u < V; ++u)
                        sum[u] = d.skip ? load(target + u * L) + broadcast<T>(c[0]) * entry[0][u] : broadcast<T>(c[0]) * entry[0][u];
#pragma GCC unroll 16
                    for (int t = 1; t < Count; ++t)
#pragma GCC unroll 2
                        for (int u = 0; u < V; ++u) sum[u] += broadcast<T>(c[t]) * entry[t][u];
#pragma GCC unroll 2
                    for (int u = 0; u < V; ++u) store(target + u * L, sum[u]);
                }
            }
            for (int r = 0; r < rows; ++r) to[r].data += to[r].step;
            first += size, second += size, h_first += size, h_second += size;
        }
    }
}

// g[first + t] += e[t] x[second - t] and g[second - t] += e[t] x[first + t], where e[t] is the sum over the rows of c[t] z[place of the
// row]. x and g: [channel][coefficient][tile], z: [channel][place][tile].
template <class T, int Count>
void antidiagonal_adjoint(const TransvectantsCall& p, const TransvectantAntidiagonal& d, const T* x, const T* z, T* g, int64_t channels) {
    constexpr int L = kLanes<T>, N = kTile<T>, V = kProductVectors;
    const T* coefficients = static_cast<const T*>(p.coefficients) + d.skip;
    for (int64_t channel = 0; channel < channels; ++channel) {
        const T *first = x + d.first * N, *second = x + d.second * N;
        T *to_first = g + d.first * N, *to_second = g + d.second * N;
        for (int v = 0; v < 2 * L; v += V * L) {
            Vec<T> entry[Count][V];
#pragma GCC unroll 16
            for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
                for (int u = 0; u < V; ++u) entry[t][u] = zero<T>();
            for (int r = d.row_begin; r < d.row_end; ++r) {
                const T *c = coefficients + p.rows[r].coefficient, *from = z + static_cast<int64_t>(p.rows[r].place) * N + v;
                Vec<T> value[V];
#pragma GCC unroll 2
                for (int u = 0; u < V; ++u) value[u] = load(from + u * L);
#pragma GCC unroll 16
                for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
                    for (int u = 0; u < V; ++u) entry[t][u] += broadcast<T>(c[t]) * value[u];
            }
#pragma GCC unroll 16
            for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
                for (int u = 0; u < V; ++u) {  // one after the other: both may be one coefficient
                    const int64_t i = t * N + v + u * L, j = -t * N + v + u * L;
                    const Vec<T> a = load(first + i), b = load(second + j);
                    store(to_first + i, load(to_first + i) + entry[t][u] * b);
                    store(to_second + j, load(to_second + j) + entry[t][u] * a);
                }
        }
        x += p.in_size * N, g += p.in_size * N, z += static_cast<int64_t>(p.row_count) * N;
    }
}

template <class T, int Count, class Place>
ISOTYPIC_INLINE void antidiagonal_of(int count, const TransvectantsCall& p, const TransvectantAntidiagonal& d, const T* x, const T* h,
                                     int64_t channels, const Place& place) {
    if (count == Count) return antidiagonal<T, Count>(p, d, x, h, channels, place);
    if constexpr (Count < kTransvectantEntries) antidiagonal_of<T, Count + 1>(count, p, d, x, h, channels, place);
}

template <class T, int Count>
ISOTYPIC_INLINE void antidiagonal_adjoint_of(int count, const TransvectantsCall& p, const TransvectantAntidiagonal& d, const T* x,
                                             const T* z, T* g, int64_t channels) {
    if (count == Count) return antidiagonal_adjoint<T, Count>(p, d, x, z, g, channels);
    if constexpr (Count < kTransvectantEntries) antidiagonal_adjoint_of<T, Count + 1>(count, p, d, x, z, g, channels);
}

// All transvectants of `channels` tiles.
template <class T, class Place>
void products(const TransvectantsCall& p, const T* x, const T* h, int64_t channels, const Place& place) {
    for (int i = 0; i < p.antidiagonal_count; ++i)
        antidiagonal_of<T, 1>(p.antidiagonals[i].count, p, p.antidiagonals[i], x, h, channels, place);
}

// The adjoint: from the gradients of the transvectants, z [channel][place of the row][tile], the gradient g of x.
template <class T>
void products_adjoint(const TransvectantsCall& p, const T* x, const T* z, T* g, int64_t channels) {
    for (int64_t i = 0; i < 2 * p.in_size * channels; ++i) store(g + i * kLanes<T>, zero<T>());
    for (int i = 0; i < p.antidiagonal_count; ++i)
        antidiagonal_adjoint_of<T, 1>(p.antidiagonals[i].count, p, p.antidiagonals[i], x, z, g, channels);
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
