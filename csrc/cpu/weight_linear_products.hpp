// Register-blocked products with channels along the lanes: c (rows, n) = a (rows, depth) b (depth, n) + initial values, and the outer sums
// a^T g.
//
// A tile is kTileRows rows by a panel of two vectors of columns. A step of the inner index takes two loads of b and one broadcast a row for
// two multiply-adds a row, so that the multiply-adds are the limit: 24 of them to 14 loads for AVX-512.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_NEON)
constexpr int kTileRows = 12;
#elif defined(ISOTYPIC_ISA_AVX2)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

template <class T>
constexpr int kPanel = 2 * kLanes<T>;

ISOTYPIC_INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
template <class T>
ISOTYPIC_INLINE int64_t panels_of(int64_t n) {
    return (n + kPanel<T> - 1) / kPanel<T>;
}
ISOTYPIC_INLINE uint32_t low_bits(int64_t count) {
    return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1;
}

// One operand pair of a product: a (rows, depth) with rows a_stride apart, b packed in panels [panel][depth][kPanel]. What lies `ahead`
// elements behind a is asked for while the product runs.
template <class T>
struct Factors {
    const T* a;
    int64_t a_stride;
    const T* b;
    int64_t depth;
    int64_t ahead;
};

template <class T>
constexpr int kLine = 64 / sizeof(T);

// Initial values: row[n], the same for all rows, plus column[row][n]; either may be null. Both are padded to whole panels.
template <class T>
struct Initial {
    const T* row;
    const T* column;
    int64_t column_stride;
};

template <class T, int Rows, int Vectors>
ISOTYPIC_INLINE void multiply_into(Vec<T> (&sum)[Rows][Vectors], const Factors<T>& factors) {
    const T *a = factors.a, *b = factors.b, *ahead = factors.a + factors.ahead;
    const int64_t a_stride = factors.a_stride;
    for (int64_t k = 0; k < factors.depth; ++k) {
        __builtin_prefetch(ahead + k * kLine<T>, 0, 2);
        Vec<T> right[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) right[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            const Vec<T> left = broadcast<T>(a[r * a_stride + k]);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
        }
        b += kPanel<T>;
    }
}

// One tile; `columns` of the panel exist. Two products may be summed, because W_1 has one with the channels and one with a basis.
template <class T, int Rows, int Vectors>
void multiply_tile(const Factors<T>& first, const Factors<T>& second, const Initial<T>& initial, T* c, int64_t c_stride, int64_t columns) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)  // what the next tile writes is on its way while this one is computed
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) __builtin_prefetch(c + (Rows + r) * c_stride + v * L, 1);
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
        const Vec<T> start = initial.row ? load(initial.row + v * L) : zero<T>();
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
            sum[r][v] = initial.column ? start + load(initial.column + r * initial.column_stride + v * L) : start;
    }
    multiply_into<T, Rows, Vectors>(sum, first);
    if (second.depth) multiply_into<T, Rows, Vectors>(sum, second);
    if (columns >= Vectors * L) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) store(c + r * c_stride + v * L, sum[r][v]);
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) mask_store(c + r * c_stride + v * L, low_bits(least(columns - v * L, L)), sum[r][v]);
    }
}

template <class T, int Rows, int Vectors>
ISOTYPIC_INLINE void multiply_rows(int rows, const Factors<T>& first, const Factors<T>& second, const Initial<T>& initial, T* c,
                                   int64_t c_stride, int64_t columns) {
    if (rows == Rows) return multiply_tile<T, Rows, Vectors>(first, second, initial, c, c_stride, columns);
    if constexpr (Rows > 1) multiply_rows<T, Rows - 1, Vectors>(rows, first, second, initial, c, c_stride, columns);
}

// The product of few inner indices, whose cost is reading the initial values and writing: the vectors of b, of one panel or of two, stay in
// registers. Two panels are written together, so that a row is one run of memory.
template <class T, int Depth, int Vectors>
void multiply_shallow(int64_t rows, const Factors<T>& factors, const Initial<T>& initial, T* c, int64_t c_stride, int64_t columns) {
    constexpr int L = kLanes<T>;
    Vec<T> right[Depth > 0 ? Depth : 1][Vectors], start[Vectors];
    for (int k = 0; k < Depth; ++k)
        for (int v = 0; v < Vectors; ++v) right[k][v] = load(factors.b + (v / 2 * Depth + k) * kPanel<T> + v % 2 * L);
    for (int v = 0; v < Vectors; ++v) start[v] = initial.row ? load(initial.row + v * L) : zero<T>();
    const bool full = columns >= Vectors * L;
    for (int64_t r = 0; r < rows; ++r) {
        const T* left = factors.a + r * factors.a_stride;
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            Vec<T> sum = initial.column ? start[v] + load(initial.column + r * initial.column_stride + v * L) : start[v];
#pragma GCC unroll 4
            for (int k = 0; k < Depth; ++k) sum += broadcast<T>(left[k]) * right[k][v];
            T* target = c + r * c_stride + v * L;
            full ? store(target, sum) : mask_store(target, low_bits(least(columns - v * L, L)), sum);
        }
    }
}

constexpr int kShallow = 4;
constexpr int kShallowest = 2;  // with which the vectors of two panels fit the registers

template <class T, int Depth, int Vectors>
ISOTYPIC_INLINE void multiply_depth(int64_t rows, const Factors<T>& factors, const Initial<T>& initial, T* c, int64_t c_stride,
                                    int64_t columns) {
    if (factors.depth == Depth) return multiply_shallow<T, Depth, Vectors>(rows, factors, initial, c, c_stride, columns);
    if constexpr (Depth > 0) multiply_depth<T, Depth - 1, Vectors>(rows, factors, initial, c, c_stride, columns);
}

// c (rows, n), rows c_stride apart. Rows are dealt to tiles of nearly equal height.
template <class T>
void multiply(int64_t rows, int64_t n, Factors<T> first, Factors<T> second, Initial<T> initial, T* c, int64_t c_stride) {
    if (rows == 0) return;
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows, height = (rows + tiles - 1) / tiles;
    if (first.depth <= kShallow && !second.depth) {
        for (int64_t column = 0, width; column < n; column += width) {
            const Factors<T> f{first.a, first.a_stride, first.b + column * first.depth, first.depth, 0};
            const Initial<T> i{initial.row ? initial.row + column : nullptr, initial.column ? initial.column + column : nullptr,
                               initial.column_stride};
            const bool two = first.depth <= kShallowest && n - column > kPanel<T>;
            width = two ? 2 * kPanel<T> : kPanel<T>;
            if (two)
                multiply_depth<T, kShallowest, 4>(rows, f, i, c + column, c_stride, n - column);
            else if (n - column > kLanes<T>)
                multiply_depth<T, kShallow, 2>(rows, f, i, c + column, c_stride, n - column);
            else
                multiply_depth<T, kShallow, 1>(rows, f, i, c + column, c_stride, n - column);
        }
        return;
    }
    for (int64_t column = 0; column < n; column += kPanel<T>) {
        for (int64_t r = 0; r < rows; r += height) {
            const int count = static_cast<int>(least(height, rows - r));
            const Factors<T> f{first.a + r * first.a_stride, first.a_stride, first.b + column * first.depth, first.depth, first.ahead};
            const Factors<T> s{second.a + r * second.a_stride, second.a_stride, second.b + column * second.depth, second.depth,
                               second.ahead};
            const Initial<T> i{initial.row ? initial.row + column : nullptr,
                               initial.column ? initial.column + r * initial.column_stride + column : nullptr, initial.column_stride};
            T* target = c + r * c_stride + column;
            if (n - column > kLanes<T>)
                multiply_rows<T, kTileRows, 2>(count, f, s, i, target, c_stride, n - column);
            else
                multiply_rows<T, kTileRows, 1>(count, f, s, i, target, c_stride, n - column);
        }
    }
}

// packed[panel][k][kPanel] of b(k, j) at b[k row_stride + j column_stride], zeros behind the last column.
template <class T>
void pack_panels(const T* b, int64_t depth, int64_t n, int64_t row_stride, int64_t column_stride, T* packed) {
    for (int64_t first = 0; first < n; first += kPanel<T>) {
        const int64_t count = least(kPanel<T>, n - first);
        for (int64_t k = 0; k < depth; ++k, packed += kPanel<T>) {
            const T* row = b + k * row_stride + first * column_stride;
            for (int64_t j = 0; j < count; ++j) packed[j] = row[j * column_stride];
            for (int64_t j = count; j < kPanel<T>; ++j) packed[j] = 0;
        }
    }
}

// The same of b[(s, c), (t, n)] = weight[s, t][c, n], slots (s, t) of slots^2 matrices (C, N); or, transposed, of weight[t, s][n, c],
// matrices (N, C).
template <class T>
void pack_slots(const T* weight, int64_t slots, int64_t C, int64_t N, bool transposed, T* packed) {
    const int64_t columns = slots * N, source_row = transposed ? 1 : N, source_column = transposed ? C : 1;
    for (int64_t first = 0; first < columns; first += kPanel<T>) {
        const int64_t last = least(first + kPanel<T>, columns);
        for (int64_t s = 0; s < slots; ++s) {
            for (int64_t j = first; j < last;) {  // the columns of one t in this panel
                const int64_t t = j / N, n = j - t * N, count = least(N - n, last - j);
                const T* source = weight + (transposed ? t * slots + s : s * slots + t) * C * N + n * source_column;
                T* target = packed + s * C * kPanel<T> + j - first;
                if (transposed) {
                    for (int64_t k = 0; k < count; ++k)
                        for (int64_t c = 0; c < C; ++c) target[c * kPanel<T> + k] = source[k * source_column + c];
                } else {
                    for (int64_t c = 0; c < C; ++c)
                        for (int64_t k = 0; k < count; ++k) target[c * kPanel<T> + k] = source[c * source_row + k];
                }
                j += count;
            }
            for (int64_t c = 0; c < C; ++c)
                for (int64_t j = last - first; j < kPanel<T>; ++j) packed[(s * C + c) * kPanel<T> + j] = 0;
        }
        packed += slots * C * kPanel<T>;
    }
}

template <class T, bool Full>
ISOTYPIC_INLINE Vec<T> load_columns(const T* p, int64_t count) {
    if constexpr (Full) return load(p);
    return merge_load(zero<T>(), low_bits(least(count, kLanes<T>)), p);
}

// Where to ask for what comes after a and g, in the steps of both.
template <class T>
struct Ahead {
    const T *a, *g;
};

// c (Rows, columns) += sum_e a[e][r] g[e][j].
template <class T, int Rows, int Vectors, bool Full>
void outer_tile(const T* a, int64_t a_stride, const T* g, int64_t g_stride, int64_t depth, T* c, int64_t c_stride, int64_t columns,
                Ahead<T> ahead) {
    constexpr int L = kLanes<T>;
    Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[r][v] = load_columns<T, Full>(c + r * c_stride + v * L, columns - v * L);
    for (int64_t e = 0; e < depth; ++e) {
        __builtin_prefetch(ahead.a + e * a_stride, 0, 2);
        __builtin_prefetch(ahead.g + e * g_stride, 0, 2);
        Vec<T> right[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) right[v] = load_columns<T, Full>(g + v * L, columns - v * L);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r) {
            const Vec<T> left = broadcast<T>(a[r]);
#pragma GCC unroll 2
            for (int v = 0; v < Vectors; ++v) sum[r][v] += left * right[v];
        }
        a += a_stride, g += g_stride;
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
            if constexpr (Full)
                store(c + r * c_stride + v * L, sum[r][v]);
            else
                mask_store(c + r * c_stride + v * L, low_bits(least(columns - v * L, L)), sum[r][v]);
        }
}

template <class T, int Rows, int Vectors, bool Full>
ISOTYPIC_INLINE void outer_rows(int rows, const T* a, int64_t a_stride, const T* g, int64_t g_stride, int64_t depth, T* c, int64_t c_stride,
                                int64_t columns, Ahead<T> ahead) {
    if (rows == Rows) return outer_tile<T, Rows, Vectors, Full>(a, a_stride, g, g_stride, depth, c, c_stride, columns, ahead);
    if constexpr (Rows > 1) outer_rows<T, Rows - 1, Vectors, Full>(rows, a, a_stride, g, g_stride, depth, c, c_stride, columns, ahead);
}

// c (rows, n) += a^T g over `depth` positions, in runs that stay in L1. What lies a_ahead and g_ahead elements behind them is asked for
// meanwhile, one line of each position for each tile.
template <class T>
void accumulate_outer(const T* a, int64_t a_stride, int64_t rows, const T* g, int64_t g_stride, int64_t n, int64_t depth, T* c,
                      int64_t c_stride, int64_t a_ahead, int64_t g_ahead) {
    if (rows == 0) return;
    constexpr int64_t kRun = 64;
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows, height = (rows + tiles - 1) / tiles;
    for (int64_t e = 0; e < depth; e += kRun) {
        const int64_t run = least(kRun, depth - e);
        Ahead<T> ahead{a + e * a_stride + a_ahead, g + e * g_stride + g_ahead};
        for (int64_t column = 0; column < n; column += kPanel<T>) {
            const int64_t columns = n - column;
            for (int64_t r = 0; r < rows; r += height, ahead.a += kLine<T>, ahead.g += kLine<T>) {
                const int count = static_cast<int>(least(height, rows - r));
                const T *left = a + e * a_stride + r, *right = g + e * g_stride + column;
                T* target = c + r * c_stride + column;
                if (columns >= kPanel<T>)
                    outer_rows<T, kTileRows, 2, true>(count, left, a_stride, right, g_stride, run, target, c_stride, columns, ahead);
                else if (columns > kLanes<T>)
                    outer_rows<T, kTileRows, 2, false>(count, left, a_stride, right, g_stride, run, target, c_stride, columns, ahead);
                else
                    outer_rows<T, kTileRows, 1, false>(count, left, a_stride, right, g_stride, run, target, c_stride, columns, ahead);
            }
        }
    }
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
