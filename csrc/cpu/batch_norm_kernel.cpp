// batch_norm on the CPU.
//
// Nothing is multiplied that has to be: two to six operations a number, so that bytes decide. With s bytes a number:
//
//     forward   statistics   read x              s          backward   sums       read g, x              2 s
//               apply        read x, write y     2 s                   gradient   read g, x, write dx    3 s
//
// and a line that is written is read before. The statistics have to be known before the first number is written, so that x passes
// twice; what the driver can keep in L2 between the passes (a channel, where channels come first) is read from memory once: 2 s and 3 s.
//
// On one Zen 4 core with AVX-512, float32 and 9.7 MB channels last: forward 0.74 ms and backward 2.0 ms, where torch copies x in 0.9 ms and
// adds two such tensors in 1.4 ms: 39 and 58 MB at 50 and 30 GB/s, partly from L3, so that the kernels stand at the floor. From L2, at 64
// numbers a row, 14 and 23 us for 0.26 MB, two to four times the copy: there the additions show.
//
// Sums are taken over columns: four vectors side by side, each lane a column of its own, over at most kRows rows in the type of x, then in
// float64. In a piece with one channel the columns are put together at the end of each block. Squares are those of distances from the first
// number of the column in the block: with p such a number, sum (x - p)^2 is at most n + 1 times the sum of squared distances from the mean
// of the n numbers, so that no more than a factor of kRows can be lost to cancellation, whatever mean and variance are. Blocks are put
// together from means and squared distances (Chan, Golub and LeVeque, 1983).
#include "cpu/batch_norm_kernel.hpp"

#include "cpu/convert.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int kVectors = 4;
constexpr int64_t kRows = 128;  // rows of kVectors vectors in a block
template <class T>
constexpr int64_t kColumns = kVectors * kLanes<T>;
static_assert(kRows * kColumns<float> <= kBatchNormScratch);

ISOTYPIC_INLINE uint32_t lane_bits(int64_t lanes) {  // the first so many; none where negative
    return lanes <= 0 ? 0u : static_cast<uint32_t>((1ull << lanes) - 1);
}

// `rows` x `width` numbers at `first`, `stride` apart, in the compute type: where they lie, or copied to scratch.
template <class T>
struct Block {
    const T* data;
    int64_t stride;
};
template <class T>
ISOTYPIC_INLINE Block<T> fetch(const void* base, DType dtype, int64_t first, int64_t rows, int64_t width, int64_t stride, T* scratch) {
    if (dtype == kDType<T>) return {static_cast<const T*>(base) + first, stride};
    for (int64_t r = 0; r < rows; ++r) read_row<T>(base, dtype, first + r * stride, 1, width, scratch + r * width);
    return {scratch, width};
}

// visit(v, bits) for the vectors that `width` numbers of a row leave over behind the whole tiles of kColumns.
template <class T, class Visit>
ISOTYPIC_INLINE void visit_tail(int64_t tail, const Visit& visit) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
        const int64_t lanes = smaller(tail - v * kLanes<T>, kLanes<T>);
        if (lanes > 0) visit(v, lane_bits(lanes));
    }
}

template <class T>
struct Columns {
    alignas(64) T pivot[kColumns<T>], first[kColumns<T>], second[kColumns<T>];
};

// Number i of a row belongs to column i % kColumns: sums of x - pivot and of its square.
template <class T>
ISOTYPIC_INLINE void sum_distances(const Block<T>& x, int64_t rows, int64_t width, Columns<T>& out) {
    constexpr int64_t L = kLanes<T>;
    Vec<T> pivot[kVectors], sum[kVectors], squares[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
        const int64_t lanes = smaller(width - v * L, L);
        pivot[v] = lanes == L ? load(x.data + v * L) : lanes > 0 ? merge_load(zero<T>(), lane_bits(lanes), x.data + v * L) : zero<T>();
        sum[v] = squares[v] = zero<T>();
    }
    const int64_t whole = width / kColumns<T> * kColumns<T>;
    for (int64_t r = 0; r < rows; ++r) {
        const T* row = x.data + r * x.stride;
        for (int64_t i = 0; i < whole; i += kColumns<T>)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const Vec<T> distance = load(row + i + v * L) - pivot[v];
                sum[v] += distance, squares[v] += distance * distance;
            }
        visit_tail<T>(width - whole, [&](int v, uint32_t bits) ISOTYPIC_LAMBDA {
            const Vec<T> distance = merge_load(pivot[v], bits, row + whole + v * L) - pivot[v];
            sum[v] += distance, squares[v] += distance * distance;
        });
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
        store(out.pivot + v * L, pivot[v]), store(out.first + v * L, sum[v]), store(out.second + v * L, squares[v]);
}

// Sums over all columns, in an order that the compiler may vectorise.
template <int64_t N>
ISOTYPIC_INLINE double total(double* values) {
    for (int64_t half = N / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) values[j] += values[j + half];
    return values[0];
}

// Mean and squares of `count` numbers more.
ISOTYPIC_INLINE void join(double before, double count, double mean_of, double squares_of, double& mean, double& squares) {
    const double share = count / (before + count), step = mean_of - mean;
    mean += step * share;
    squares += squares_of + step * step * before * share;
}

template <class T>
void statistics(const BatchNormPiece& piece, const void* x, double* mean, double* squares, T* scratch) {
    constexpr int64_t N = kColumns<T>;
    Columns<T> columns;
    if (piece.by_column) {
        for (int64_t first = 0; first < piece.rows; first += kRows) {
            const int64_t rows = smaller(kRows, piece.rows - first);
            const double inverse = 1.0 / static_cast<double>(rows), before = static_cast<double>(first);
            for (int64_t j = 0; j < piece.width; j += N) {
                const int64_t width = smaller(N, piece.width - j);
                const auto block = fetch<T>(x, piece.dtype, first * piece.stride + j, rows, width, piece.stride, scratch);
                sum_distances(block, rows, width, columns);
                for (int64_t k = 0; k < width; ++k) {
                    const double sum = columns.first[k], mean_of = columns.pivot[k] + sum * inverse;
                    const double squares_of = columns.second[k] - sum * sum * inverse;
                    if (first == 0) {
                        mean[j + k] = mean_of, squares[j + k] = squares_of;
                    } else {
                        join(before, static_cast<double>(rows), mean_of, squares_of, mean[j + k], squares[j + k]);
                    }
                }
            }
        }
        return;
    }
    *mean = *squares = 0.0;
    double before = 0.0;
    for (int64_t i = 0; i < piece.width; i += kRows * N) {
        const int64_t width = smaller(kRows * N, piece.width - i), step = larger(1, kRows * N / width);
        for (int64_t first = 0; first < piece.rows; first += step) {
            const int64_t rows = smaller(step, piece.rows - first);
            const auto block = fetch<T>(x, piece.dtype, first * piece.stride + i, rows, width, piece.stride, scratch);
            sum_distances(block, rows, width, columns);
            // The first `tail` columns have one number more in each row.
            const int64_t tail = width % N;
            const double fewer = static_cast<double>(rows * (width / N)), more = fewer + static_cast<double>(rows);
            alignas(64) double counts[N], means[N], values[N];
            for (int64_t k = 0; k < N; ++k) {
                counts[k] = k < tail ? more : fewer;
                means[k] = counts[k] > 0.0 ? columns.pivot[k] + columns.first[k] / counts[k] : 0.0;
                values[k] = counts[k] * means[k];
            }
            const double count = static_cast<double>(rows * width), mean_of = total<N>(values) / count;
            for (int64_t k = 0; k < N; ++k) {
                const double sum = columns.first[k], step_to = means[k] - mean_of;
                values[k] = counts[k] > 0.0 ? columns.second[k] - sum * sum / counts[k] + counts[k] * step_to * step_to : 0.0;
            }
            join(before, count, mean_of, total<N>(values), *mean, *squares);
            before += count;
        }
    }
}

// Parameters of column i, or of all.
template <bool ByColumn, class T>
ISOTYPIC_INLINE Vec<T> parameter(const T* values, int64_t i, uint32_t bits) {
    if constexpr (!ByColumn) return broadcast(*values);
    return bits ? merge_load(zero<T>(), bits, values + i) : load(values + i);
}

template <bool Relu, class T>
ISOTYPIC_INLINE Vec<T> activated(Vec<T> v) {
    return Relu ? (v < zero<T>() ? zero<T>() : v) : v;  // NaN stays
}

template <bool Relu, class T>
ISOTYPIC_INLINE Vec<T> passed(Vec<T> g, Vec<T> distance, Vec<T> factor, Vec<T> shift) {
    return Relu ? (distance * factor + shift <= zero<T>() ? zero<T>() : g) : g;
}

template <bool ByColumn, bool Relu, class T>
ISOTYPIC_INLINE void sum_products(const BatchNormParameters<T>& p, int64_t column, const Block<T>& g, const Block<T>& x, int64_t rows,
                                  int64_t width, Columns<T>& out) {
    constexpr int64_t L = kLanes<T>;
    Vec<T> center[kVectors], factor[kVectors], shift[kVectors], plain[kVectors], weighted[kVectors];
    const int64_t whole = width / kColumns<T> * kColumns<T>;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
        const int64_t lanes = ByColumn ? smaller(width - v * L, L) : L;
        const uint32_t bits = lanes < L ? lane_bits(lanes) : 0;
        center[v] = factor[v] = shift[v] = plain[v] = weighted[v] = zero<T>();
        if (lanes <= 0) continue;
        center[v] = parameter<ByColumn>(p.center, column + v * L, bits);
        factor[v] = parameter<ByColumn>(p.factor, column + v * L, bits);
        shift[v] = parameter<ByColumn>(p.shift, column + v * L, bits);
    }
    for (int64_t r = 0; r < rows; ++r) {
        const T *of_g = g.data + r * g.stride, *of_x = x.data + r * x.stride;
        for (int64_t i = 0; i < whole; i += kColumns<T>)
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
                const Vec<T> distance = load(of_x + i + v * L) - center[v];
                const Vec<T> h = passed<Relu, T>(load(of_g + i + v * L), distance, factor[v], shift[v]);
                plain[v] += h, weighted[v] += h * distance;
            }
        visit_tail<T>(width - whole, [&](int v, uint32_t bits) ISOTYPIC_LAMBDA {
            const Vec<T> distance = merge_load(center[v], bits, of_x + whole + v * L) - center[v];
            const Vec<T> h = passed<Relu, T>(merge_load(zero<T>(), bits, of_g + whole + v * L), distance, factor[v], shift[v]);
            plain[v] += h, weighted[v] += h * distance;
        });
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store(out.first + v * L, plain[v]), store(out.second + v * L, weighted[v]);
}

template <bool Relu, class T>
ISOTYPIC_INLINE void sums_of(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* g, const void* x, double* plain,
                             double* weighted, T* scratch) {
    constexpr int64_t N = kColumns<T>;
    Columns<T> columns;
    if (piece.by_column) {
        for (int64_t j = 0; j < piece.width; ++j) plain[j] = weighted[j] = 0.0;
        for (int64_t first = 0; first < piece.rows; first += kRows) {
            const int64_t rows = smaller(kRows, piece.rows - first);
            for (int64_t j = 0; j < piece.width; j += N) {
                const int64_t width = smaller(N, piece.width - j), start = first * piece.stride + j;
                const auto of_g = fetch<T>(g, piece.dtype, start, rows, width, piece.stride, scratch);
                const auto of_x = fetch<T>(x, piece.dtype, start, rows, width, piece.stride, scratch + kBatchNormScratch);
                sum_products<true, Relu>(p, j, of_g, of_x, rows, width, columns);
                for (int64_t k = 0; k < width; ++k) plain[j + k] += columns.first[k], weighted[j + k] += columns.second[k];
            }
        }
        return;
    }
    *plain = *weighted = 0.0;
    for (int64_t i = 0; i < piece.width; i += kRows * N) {
        const int64_t width = smaller(kRows * N, piece.width - i), step = larger(1, kRows * N / width);
        for (int64_t first = 0; first < piece.rows; first += step) {
            const int64_t rows = smaller(step, piece.rows - first), start = first * piece.stride + i;
            const auto of_g = fetch<T>(g, piece.dtype, start, rows, width, piece.stride, scratch);
            const auto of_x = fetch<T>(x, piece.dtype, start, rows, width, piece.stride, scratch + kBatchNormScratch);
            sum_products<false, Relu>(p, 0, of_g, of_x, rows, width, columns);
            alignas(64) double values[N];
            for (int64_t k = 0; k < N; ++k) values[k] = columns.first[k];
            *plain += total<N>(values);
            for (int64_t k = 0; k < N; ++k) values[k] = columns.second[k];
            *weighted += total<N>(values);
        }
    }
}

template <class T>
void sums(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* g, const void* x, double* plain, double* weighted,
          T* scratch) {
    piece.relu ? sums_of<true>(piece, p, g, x, plain, weighted, scratch) : sums_of<false>(piece, p, g, x, plain, weighted, scratch);
}

// work(i, bits) for the vectors of a row; bits is 0 for a whole vector.
template <class T, class Work>
ISOTYPIC_INLINE void for_vectors(int64_t width, const Work& work) {
    constexpr int64_t L = kLanes<T>;
    int64_t i = 0;
#pragma GCC unroll 4
    for (; i + L <= width; i += L) work(i, 0u);
    if (i < width) work(i, lane_bits(width - i));
}

template <class T>
ISOTYPIC_INLINE Vec<T> load_part(const T* p, uint32_t bits) {
    return bits ? merge_load(zero<T>(), bits, p) : load(p);
}
template <class T>
ISOTYPIC_INLINE void store_part(T* p, uint32_t bits, Vec<T> v) {
    bits ? mask_store(p, bits, v) : store(p, v);
}

// compute(out, offset in the row, width, offset in memory) for each row of the output, in parts where it has to be converted.
template <class T, class Compute>
ISOTYPIC_INLINE void write_rows(const BatchNormPiece& piece, void* out, T* scratch, const Compute& compute) {
    const bool direct = piece.dtype == kDType<T>;
    const int64_t part = direct ? piece.width : kBatchNormScratch;
    for (int64_t r = 0; r < piece.rows; ++r)
        for (int64_t i = 0; i < piece.width; i += part) {
            const int64_t width = smaller(part, piece.width - i), start = r * piece.stride + i;
            compute(direct ? static_cast<T*>(out) + start : scratch, i, width, start);
            if (!direct) write_row<T>(out, piece.dtype, start, width, scratch);
        }
}

template <bool ByColumn, bool Relu, class T>
ISOTYPIC_INLINE void apply_to(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* x, void* y, T* scratch) {
    write_rows<T>(piece, y, scratch, [&](T* out, int64_t column, int64_t width, int64_t start) ISOTYPIC_LAMBDA {
        const T* in = fetch<T>(x, piece.dtype, start, 1, width, width, scratch + kBatchNormScratch).data;
        for_vectors<T>(width, [&](int64_t i, uint32_t bits) ISOTYPIC_LAMBDA {
            const Vec<T> distance = load_part(in + i, bits) - parameter<ByColumn>(p.center, column + i, bits);
            const Vec<T> v = distance * parameter<ByColumn>(p.factor, column + i, bits) + parameter<ByColumn>(p.shift, column + i, bits);
            store_part(out + i, bits, activated<Relu, T>(v));
        });
    });
}

template <class T>
void apply(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* x, void* y, T* scratch) {
    if (piece.by_column)
        piece.relu ? apply_to<true, true>(piece, p, x, y, scratch) : apply_to<true, false>(piece, p, x, y, scratch);
    else
        piece.relu ? apply_to<false, true>(piece, p, x, y, scratch) : apply_to<false, false>(piece, p, x, y, scratch);
}

template <bool ByColumn, bool Relu, class T>
ISOTYPIC_INLINE void gradient_of(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* g, const void* x, void* dx,
                                 T* scratch) {
    write_rows<T>(piece, dx, scratch, [&](T* out, int64_t column, int64_t width, int64_t start) ISOTYPIC_LAMBDA {
        const T* of_g = fetch<T>(g, piece.dtype, start, 1, width, width, scratch + kBatchNormScratch).data;
        const T* of_x = fetch<T>(x, piece.dtype, start, 1, width, width, scratch + 2 * kBatchNormScratch).data;
        for_vectors<T>(width, [&](int64_t i, uint32_t bits) ISOTYPIC_LAMBDA {
            const Vec<T> distance = load_part(of_x + i, bits) - parameter<ByColumn>(p.center, column + i, bits);
            const Vec<T> factor = parameter<ByColumn>(p.factor, column + i, bits);
            const Vec<T> h = passed<Relu, T>(load_part(of_g + i, bits), distance, factor, parameter<ByColumn>(p.shift, column + i, bits));
            const Vec<T> rest = distance * parameter<ByColumn>(p.slope, column + i, bits) + parameter<ByColumn>(p.offset, column + i, bits);
            store_part(out + i, bits, h * factor + rest);
        });
    });
}

template <class T>
void gradient(const BatchNormPiece& piece, const BatchNormParameters<T>& p, const void* g, const void* x, void* dx, T* scratch) {
    if (piece.by_column)
        piece.relu ? gradient_of<true, true>(piece, p, g, x, dx, scratch) : gradient_of<true, false>(piece, p, g, x, dx, scratch);
    else
        piece.relu ? gradient_of<false, true>(piece, p, g, x, dx, scratch) : gradient_of<false, false>(piece, p, g, x, dx, scratch);
}

const BatchNormKernels kKernels = {{kLanes<float>, &statistics<float>, &apply<float>, &sums<float>, &gradient<float>},
                                   {kLanes<double>, &statistics<double>, &apply<double>, &sums<double>, &gradient<double>}};

}  // namespace

const BatchNormKernels& batch_norm_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
