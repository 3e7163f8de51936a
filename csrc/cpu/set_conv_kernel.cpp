// Set convolutions on the CPU: every point meets the nodes of its window and no others, a vector of nodes of the last axis at a time.
//
// Work: a point with a window of w_1 x w_2 nodes takes w_1 w_2 C multiply-adds and w_1 + w_2 exponentials, where the dense form takes all
// nodes. Encoding reads, adds to and writes C w_1 w_2 numbers of the grid, one vector to a cycle at best: for 4,096 points with windows of
// 25 x 32 and two channels 0.4 million vectors, 0.14 ms at 3 GHz. Points that follow each other and share a window, as all do when the
// lengthscale is long, are taken four at a time on two rows, so that a vector is read and written once for four multiply-adds: the register
// block of a matrix product. Decoding takes a block of channels that stays in L2 and all points of a run through it; a product of weights
// is made once for a block.
#include "cpu/set_conv_kernel.hpp"

#include "ops/set_conv.hpp"

#include "cpu/vec.hpp"
#include "cpu/vec_exp.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_NEON)
constexpr int kChannels = 8;  // accumulators beside the operands
#else
constexpr int kChannels = 4;
#endif

template <class T>
ISOTYPIC_INLINE Vec<T> lane_numbers() {
    Vec<T> result = zero<T>();
#if ISOTYPIC_VECTOR_BYTES > 0
    for (int l = 0; l < kLanes<T>; ++l) result[l] = static_cast<T>(l);
#endif
    return result;
}

// r^p exp(-r^2 / 2) inside of the window, zero outside of it.
template <class T>
ISOTYPIC_INLINE Vec<T> weight(Vec<T> r, int power) {
    constexpr T limit = static_cast<T>(kSetConvWindow<T> * kSetConvWindow<T>);
    const Vec<T> square = r * r, edge = broadcast<T>(limit);
    const Vec<T> inside = square <= edge ? square : edge;
    Vec<T> result = exp_negative(inside * broadcast<T>(static_cast<T>(-0.5)));
    for (int i = 0; i < power; ++i) result *= r;
    return square <= edge ? result : zero<T>();
}

template <class T>
void windows(const SetConvSizes& sizes, int dim, int64_t count, const double* t, SetConvWindow* windows, T* tables) {
    constexpr int L = kLanes<T>;
    const Vec<T> lanes = lane_numbers<T>();
    for (int64_t n = 0; n < count; ++n, ++windows, tables += sizes.stride) {
        T* table = tables;
        for (int axis = 0; axis < 3; table += sizes.capacity[axis], ++axis) {
            if (!sizes.used[axis]) {
                windows->first[axis] = 0, windows->count[axis] = 1, windows->offset[axis] = 0;
                table[0] = 1;
                continue;
            }
            const double at = t[n * dim + axis - (3 - dim)], nodes = static_cast<double>(sizes.nodes[axis]);
            double low = at - sizes.reach[axis], high = at + sizes.reach[axis];
            low = low < 0 ? 0 : low > nodes ? nodes : low;
            high = high < -1 ? -1 : high > nodes - 1 ? nodes - 1 : high;
            int64_t first = static_cast<int64_t>(low), last = static_cast<int64_t>(high + 1);  // high + 1 >= 0
            if (static_cast<double>(first) < low) ++first;
            int64_t extent = larger(last - first, 0);
            if (axis == 2) {
                extent = (extent + L - 1) / L;
                first = larger(smaller(first, sizes.nodes[2] - extent * L), 0);
            }
            const double offset = (static_cast<double>(first) - at) * sizes.inverse[axis];
            windows->first[axis] = static_cast<int32_t>(first), windows->count[axis] = static_cast<int32_t>(extent);
            windows->offset[axis] = offset;
            const Vec<T> base = broadcast<T>(static_cast<T>(offset)), step = broadcast<T>(static_cast<T>(sizes.inverse[axis]));
            const int64_t vectors = axis == 2 ? extent : (extent + L - 1) / L;
            for (int64_t v = 0; v < vectors; ++v)
                store(table + v * L, weight<T>(base + (lanes + broadcast<T>(static_cast<T>(v * L))) * step, sizes.powers[axis]));
        }
    }
}

// Lanes of the last vector of a row where rows are shorter than a window's vectors; 0 where all are whole.
template <class T>
ISOTYPIC_INLINE uint32_t tail_of(const SetConvSizes& sizes, int64_t vectors) {
    const int64_t rest = vectors * kLanes<T> - sizes.nodes[2];
    return rest > 0 ? (1u << (kLanes<T> - rest)) - 1 : 0;
}

template <class T>
ISOTYPIC_INLINE Vec<T> read(const T* p, uint32_t lanes) {
    return lanes ? merge_load(zero<T>(), lanes, p) : load(p);
}
template <class T>
ISOTYPIC_INLINE void write(T* p, uint32_t lanes, Vec<T> v) {
    if (lanes)
        mask_store(p, lanes, v);
    else
        store(p, v);
}

// Rows x Points: row r += sum_p factor[r][p] weights[p], `vectors` of them.
template <class T, int Rows, int Points>
ISOTYPIC_INLINE void add_rows(T* const* rows, const T (*factor)[4], const T* const* weights, int64_t vectors, uint32_t tail) {
    constexpr int L = kLanes<T>;
    for (int64_t v = 0; v < vectors; ++v) {
        const uint32_t lanes = v + 1 == vectors ? tail : 0;
        Vec<T> w[Points];
#pragma GCC unroll 4
        for (int p = 0; p < Points; ++p) w[p] = load(weights[p] + v * L);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
            Vec<T> sum = read(rows[r] + v * L, lanes);
#pragma GCC unroll 4
            for (int p = 0; p < Points; ++p) sum += broadcast<T>(factor[r][p]) * w[p];
            write(rows[r] + v * L, lanes, sum);
        }
    }
}

ISOTYPIC_INLINE bool same_window(const SetConvWindow& a, const SetConvWindow& b) {
    bool same = true;
    for (int axis = 0; axis < 3; ++axis) same = same && a.first[axis] == b.first[axis] && a.count[axis] == b.count[axis];
    return same;
}

// `Points` points with one window.
template <class T, int Points>
ISOTYPIC_INLINE void encode_points(const SetConvSizes& sizes, const SetConvWindow& window, const T* tables, const T* y, int64_t channels,
                                   int striped, int64_t first, int64_t last, T* grid) {
    const int64_t nodes = sizes.nodes[0] * sizes.nodes[1] * sizes.nodes[2], vectors = window.count[2];
    const uint32_t tail = tail_of<T>(sizes, vectors);
    int64_t low[2], high[2];
    for (int axis = 0; axis < 2; ++axis) {
        low[axis] = window.first[axis], high[axis] = low[axis] + window.count[axis];
        if (axis == striped) low[axis] = larger(low[axis], first), high[axis] = smaller(high[axis], last);
    }
    const T *first_axis[Points], *second_axis[Points], *weights[Points];
    for (int p = 0; p < Points; ++p) {
        first_axis[p] = tables + p * sizes.stride - window.first[0];
        second_axis[p] = first_axis[p] + window.first[0] + sizes.capacity[0] - window.first[1];
        weights[p] = second_axis[p] + window.first[1] + sizes.capacity[1];
    }
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = low[0]; i < high[0]; ++i) {
            T* plane = grid + c * nodes + i * sizes.nodes[1] * sizes.nodes[2] + window.first[2];
            T outer[Points], factor[2][4];
            for (int p = 0; p < Points; ++p) outer[p] = y[p * channels + c] * first_axis[p][i];
            int64_t j = low[1];
            for (; j + 2 <= high[1]; j += 2) {
                T* rows[2] = {plane + j * sizes.nodes[2], plane + (j + 1) * sizes.nodes[2]};
                for (int p = 0; p < Points; ++p)
                    factor[0][p] = outer[p] * second_axis[p][j], factor[1][p] = outer[p] * second_axis[p][j + 1];
                add_rows<T, 2, Points>(rows, factor, weights, vectors, tail);
            }
            if (j < high[1]) {
                T* rows[1] = {plane + j * sizes.nodes[2]};
                for (int p = 0; p < Points; ++p) factor[0][p] = outer[p] * second_axis[p][j];
                add_rows<T, 1, Points>(rows, factor, weights, vectors, tail);
            }
        }
}

template <class T>
void encode(const SetConvSizes& sizes, int64_t count, const SetConvWindow* windows, const T* tables, const T* y, int64_t channels,
            int striped, int64_t first, int64_t last, T* grid) {
    int64_t n = 0;
    while (n < count) {
        const bool four = n + 4 <= count && same_window(windows[n], windows[n + 1]) && same_window(windows[n], windows[n + 2]) &&
                          same_window(windows[n], windows[n + 3]);
        const T* table = tables + n * sizes.stride;
        if (four)
            encode_points<T, 4>(sizes, windows[n], table, y + n * channels, channels, striped, first, last, grid);
        else
            encode_points<T, 1>(sizes, windows[n], table, y + n * channels, channels, striped, first, last, grid);
        n += four ? 4 : 1;
    }
}

// use(row of the grid from the window's first node on, product of the weights of the first two axes, i, j) for every row of the window.
template <class T, class Use>
ISOTYPIC_INLINE void for_rows(const SetConvSizes& sizes, const SetConvWindow& window, const T* table, const Use& use) {
    const T* second = table + sizes.capacity[0];
    for (int i = 0; i < window.count[0]; ++i)
        for (int j = 0; j < window.count[1]; ++j)
            use(((window.first[0] + i) * sizes.nodes[1] + window.first[1] + j) * sizes.nodes[2] + window.first[2], table[i] * second[j], i,
                j);
}

template <class T, int Count>
ISOTYPIC_INLINE void decode_point(const SetConvSizes& sizes, const SetConvWindow& window, const T* table, const T* grid, int64_t nodes,
                                  T* y) {
    constexpr int L = kLanes<T>;
    const int64_t vectors = window.count[2];
    const uint32_t tail = tail_of<T>(sizes, vectors);
    const T* weights = table + sizes.capacity[0] + sizes.capacity[1];
    Vec<T> sum[Count];
#pragma GCC unroll 8
    for (int c = 0; c < Count; ++c) sum[c] = zero<T>();
    for_rows(sizes, window, table, [&](int64_t at, T factor, int, int) ISOTYPIC_LAMBDA {
        const Vec<T> outer = broadcast<T>(factor);
        for (int64_t v = 0; v < vectors; ++v) {
            const uint32_t lanes = v + 1 == vectors ? tail : 0;
            const Vec<T> product = outer * load(weights + v * L);
            const T* values = grid + at + v * L;
#pragma GCC unroll 8
            for (int c = 0; c < Count; ++c) sum[c] += product * read(values + c * nodes, lanes);
        }
    });
#pragma GCC unroll 8
    for (int c = 0; c < Count; ++c) y[c] = sum_lanes<T>(sum[c]);
}

template <class T, int Count>
ISOTYPIC_INLINE void decode_block(int count, const SetConvSizes& sizes, int64_t points, const SetConvWindow* windows, const T* tables,
                                  const T* grid, int64_t nodes, int64_t channels, T* y) {
    if (count == Count) {
        for (int64_t n = 0; n < points; ++n)
            decode_point<T, Count>(sizes, windows[n], tables + n * sizes.stride, grid, nodes, y + n * channels);
    } else if constexpr (Count > 1) {
        decode_block<T, Count - 1>(count, sizes, points, windows, tables, grid, nodes, channels, y);
    }
}

template <class T>
void decode(const SetConvSizes& sizes, int64_t count, const SetConvWindow* windows, const T* tables, const T* grid, int64_t channels,
            T* y) {
    const int64_t nodes = sizes.nodes[0] * sizes.nodes[1] * sizes.nodes[2];
    for (int64_t c = 0; c < channels; c += kChannels)
        decode_block<T, kChannels>(static_cast<int>(smaller(kChannels, channels - c)), sizes, count, windows, tables, grid + c * nodes,
                                   nodes, channels, y + c);
}

template <class T, int Count, bool First>
ISOTYPIC_INLINE void moments_point(const SetConvSizes& sizes, int dim, const SetConvWindow& window, const T* table, const T* y,
                                   const T* grid, int64_t nodes, double* values, double* moments) {
    constexpr int L = kLanes<T>;
    const int64_t vectors = window.count[2];
    const uint32_t tail = tail_of<T>(sizes, vectors);
    const T* weights = table + sizes.capacity[0] + sizes.capacity[1];
    Vec<T> sum[Count], first[3], second[3], factor[Count];
#pragma GCC unroll 8
    for (int c = 0; c < Count; ++c) sum[c] = zero<T>(), factor[c] = broadcast<T>(y[c]);
    for (int axis = 0; axis < 3; ++axis) first[axis] = second[axis] = zero<T>();
    T offset[3], step[3];
    for (int axis = 0; axis < 3; ++axis)
        offset[axis] = static_cast<T>(window.offset[axis]), step[axis] = sizes.used[axis] ? static_cast<T>(sizes.inverse[axis]) : T{0};
    const Vec<T> base = broadcast<T>(offset[2]) + lane_numbers<T>() * broadcast<T>(step[2]);
    for_rows(sizes, window, table, [&](int64_t at, T outer, int i, int j) ISOTYPIC_LAMBDA {
        Vec<T> row = zero<T>();
        for (int64_t v = 0; v < vectors; ++v) {
            const uint32_t lanes = v + 1 == vectors ? tail : 0;
            const Vec<T> product = broadcast<T>(outer) * load(weights + v * L);
            const T* read_at = grid + at + v * L;
            Vec<T> mixed = zero<T>();
#pragma GCC unroll 8
            for (int c = 0; c < Count; ++c) {
                const Vec<T> value = read(read_at + c * nodes, lanes);
                if constexpr (First) sum[c] += product * value;
                mixed += factor[c] * value;
            }
            mixed *= product;
            row += mixed;
            const Vec<T> r = base + broadcast<T>(static_cast<T>(v * L) * step[2]);
            mixed *= r;
            first[2] += mixed;
            second[2] += mixed * r;
        }
        const T r0 = offset[0] + static_cast<T>(i) * step[0], r1 = offset[1] + static_cast<T>(j) * step[1];
        const Vec<T> by0 = row * broadcast<T>(r0), by1 = row * broadcast<T>(r1);
        first[0] += by0, first[1] += by1;
        second[0] += by0 * broadcast<T>(r0), second[1] += by1 * broadcast<T>(r1);
    });
    if constexpr (First) {
#pragma GCC unroll 8
        for (int c = 0; c < Count; ++c) values[c] = static_cast<double>(sum_lanes<T>(sum[c]));
    }
    for (int axis = 3 - dim; axis < 3; ++axis) {
        moments[axis - (3 - dim)] += static_cast<double>(sum_lanes<T>(first[axis]));
        moments[axis - (3 - dim) + dim] += static_cast<double>(sum_lanes<T>(second[axis]));
    }
}

template <class T, int Count, bool First>
ISOTYPIC_INLINE void moments_block(int count, const SetConvSizes& sizes, int dim, int64_t points, const SetConvWindow* windows,
                                   const T* tables, const T* y, const T* grid, int64_t nodes, int64_t channels, int64_t width,
                                   double* values, double* moments) {
    if (count == Count) {
        for (int64_t n = 0; n < points; ++n)
            moments_point<T, Count, First>(sizes, dim, windows[n], tables + n * sizes.stride, y + n * channels, grid, nodes,
                                           values + n * width, moments + n * width);
    } else if constexpr (Count > 1) {
        moments_block<T, Count - 1, First>(count, sizes, dim, points, windows, tables, y, grid, nodes, channels, width, values, moments);
    }
}

template <class T>
void moments(const SetConvSizes& sizes, int dim, int64_t count, const SetConvWindow* windows, const T* tables, const T* y, const T* grid,
             int64_t channels, bool first, double* moments) {
    const int64_t nodes = sizes.nodes[0] * sizes.nodes[1] * sizes.nodes[2], before = first ? channels : 0, width = before + 2 * dim;
    for (int64_t n = 0; n < count; ++n)
        for (int64_t k = before; k < width; ++k) moments[n * width + k] = 0;
    for (int64_t c = 0; c < channels; c += kChannels) {
        const int block = static_cast<int>(smaller(kChannels, channels - c));
        if (first)
            moments_block<T, kChannels, true>(block, sizes, dim, count, windows, tables, y + c, grid + c * nodes, nodes, channels, width,
                                              moments + c, moments + before);
        else
            moments_block<T, kChannels, false>(block, sizes, dim, count, windows, tables, y + c, grid + c * nodes, nodes, channels, width,
                                               moments, moments);
    }
}

template <class T>
constexpr SetConvKernel<T> kernel() {
    return {kLanes<T>, &windows<T>, &encode<T>, &decode<T>, &moments<T>};
}

const SetConvKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const SetConvKernels& set_conv_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
