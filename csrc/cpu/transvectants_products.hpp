// Transvectants of one channel in lanes, and their adjoint. What lies along the lanes, samples or channels, is the caller's matter.
//
// An antidiagonal: its products stay in registers, and each coefficient that they lead to is a sum of them, stored once. For irreps 0, 2,
// .., 10 that is 700 products, 1,400 multiply-adds and 417 stores a tile, where an outer product in memory took 700 stores and 1,400 loads
// more.
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

// x and h: [coefficient][tile]. place(row): where the tile of a row goes.
template <class T, int Count, class Place>
void antidiagonal(const TransvectantsProblem& p, const TransvectantAntidiagonal& d, const T* x, const T* h, const Place& place) {
    constexpr int L = kLanes<T>, N = kTile<T>, V = kProductVectors;
    const T* coefficients = static_cast<const T*>(p.coefficients) + d.skip;
    for (int v = 0; v < 2 * L; v += V * L) {
        const T *first = x + d.first * N + v, *second = x + d.second * N + v;
        Vec<T> entry[Count][V];
#pragma GCC unroll 16
        for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
            for (int u = 0; u < V; ++u) entry[t][u] = load(first + t * N + u * L) * load(second - t * N + u * L);
        if (h) {
            const T *h_first = h + d.first * N + v, *h_second = h + d.second * N + v;
#pragma GCC unroll 16
            for (int t = 0; t < Count; ++t)
#pragma GCC unroll 2
                for (int u = 0; u < V; ++u) {
                    const Vec<T> a = load(first + t * N + u * L), b = load(second - t * N + u * L);
                    entry[t][u] = a * load(h_second - t * N + u * L) + load(h_first + t * N + u * L) * b;
                }
        }
        for (int r = d.row_begin; r < d.row_end; ++r) {
            const TransvectantRow& row = p.rows[r];
            const T* c = coefficients + row.coefficient;
            T* to = place(row) + v;
            Vec<T> sum[V];
#pragma GCC unroll 2
            for (int u = 0; u < V; ++u)
                sum[u] = d.skip ? load(to + u * L) + broadcast<T>(c[0]) * entry[0][u] : broadcast<T>(c[0]) * entry[0][u];
#pragma GCC unroll 16
            for (int t = 1; t < Count; ++t)
#pragma GCC unroll 2
                for (int u = 0; u < V; ++u) sum[u] += broadcast<T>(c[t]) * entry[t][u];
#pragma GCC unroll 2
            for (int u = 0; u < V; ++u) store(to + u * L, sum[u]);
        }
    }
}

template <class T, int Count, class Place>
ISOTYPIC_INLINE void antidiagonal_of(int count, const TransvectantsProblem& p, const TransvectantAntidiagonal& d, const T* x, const T* h,
                                     const Place& place) {
    if (count == Count) return antidiagonal<T, Count>(p, d, x, h, place);
    if constexpr (Count < kTransvectantEntries) antidiagonal_of<T, Count + 1>(count, p, d, x, h, place);
}

// All transvectants of one channel.
template <class T, class Place>
void products(const TransvectantsProblem& p, const T* x, const T* h, const Place& place) {
    for (int i = 0; i < p.antidiagonal_count; ++i) antidiagonal_of<T, 1>(p.antidiagonals[i].count, p, p.antidiagonals[i], x, h, place);
}

// The adjoint: from the gradients of the transvectants of one channel, z [place of the row][tile], the gradient g of x.
template <class T>
void products_adjoint(const TransvectantsProblem& p, const T* x, const T* z, T* g) {
    constexpr int L = kLanes<T>, N = kTile<T>;
    const T* coefficients = static_cast<const T*>(p.coefficients);
    for (int i = 0; i < 2 * p.in_size; ++i) store(g + i * L, zero<T>());
    for (int q = 0; q < p.pair_count; ++q) {
        const TransvectantPair& pair = p.pairs[q];
        const int* begin = p.term_begin + pair.entry;
        for (int i = 0; i <= pair.m; ++i) {
            T* gi = g + (pair.first + i) * N;
            const T* xi = x + (pair.first + i) * N;
            Vec<T> s0 = zero<T>(), s1 = zero<T>();
            for (int j = pair.same ? i : 0; j <= pair.n; ++j) {
                const int entry = i * (pair.n + 1) + j;
                Vec<T> v0 = zero<T>(), v1 = zero<T>();
                for (int t = begin[entry]; t < begin[entry + 1]; ++t) {
                    const Vec<T> c = broadcast<T>(coefficients[p.terms[t].coefficient]);
                    const T* from = z + static_cast<int64_t>(p.terms[t].place) * N;
                    v0 += c * load(from);
                    v1 += c * load(from + L);
                }
                const T* xj = x + (pair.second + j) * N;
                T* gj = g + (pair.second + j) * N;
                s0 += v0 * load(xj);
                s1 += v1 * load(xj + L);
                store(gj, load(gj) + v0 * load(xi));
                store(gj + L, load(gj + L) + v1 * load(xi + L));
            }
            store(gi, load(gi) + s0);
            store(gi + L, load(gi + L) + s1);
        }
    }
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
