// pooled (B, N, C) of x (B, P, C): what a network's weights sum to over the permuted axes, read once.
//
// Every W_i and every b_i is a matrix of rows and features (one feature in b_i, the features of a basis in its W_1). With r over permuted
// rows and s over permuted columns, sums over s go to rho[r], sums over r to kap[s], the sum of all to gam; where an axis is fixed its
// index is kept, so that either the other sum or the entry itself goes there.
//
// A block owns a part of one matrix of one network and up to 32 channels, a power of two of lanes; its 256 / lanes workers deal the rows
// among them. Eight features at a time are read, each neighbouring channel from a neighbouring address.
//     registers   8 values, 8 sums over the worker's rows, the sum of all
//     shared      sums over features, one for each row and channel, each touched by one thread alone: R lanes numbers; and the sums over
//                 rows of all workers while they are added in order, 8 KB (16 KB in float64)
// Parts: the whole matrix, where sums over columns are asked for; else 32 features. Where the sums of a matrix's rows would take more than
// 64 KB (512 rows in float32), x is read three times instead: by parts of 64 rows, by parts of 32 columns, and for the sum of all.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "cuda/weight_linear_product.cuh"
#include "ops/weight_linear.hpp"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kFeatures = 8;         // at a time
constexpr int kFeaturesOfPart = 32;  // where features are divided
constexpr int kRowsOfPart = 64;      // where rows are
constexpr int kRowBytesOfBlock = 64 * 1024;

DEVICE const int64_t* sizes_of(const WeightPlan& plan, const int64_t* sizes, int64_t network) {
    return sizes ? sizes + network * (plan.layers + 1) : nullptr;
}

// W_{i+1} at index 2 i, b_{i+1} at 2 i + 1. Rows of the pooled tensor: rho[r] from row + r row_step on, kap[s] from column + s column_step
// on, gam from total on.
struct PooledMatrix {
    int entry, rows, columns, features;
    bool rows_pooled, columns_pooled, basis;
    int row, row_step, column, column_step, total;
};
HOST_DEVICE ALWAYS_INLINE PooledMatrix pooled_matrix(const WeightPlan& plan, int index) {
    const int i = index / 2;
    const WeightLayer& layer = plan.layer[i];
    PooledMatrix m{};
    m.rows = layer.rows, m.rows_pooled = plan.nodes_of[i + 1] >= 0;
    if (m.rows_pooled) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[i + 1]];
        m.row = nodes.offset + (index % 2 ? layer.bias_slot : layer.row_slot), m.row_step = nodes.slots;
    }
    if (index % 2) {
        m.entry = layer.bias, m.columns = m.features = 1, m.total = plan.global_offset + layer.bias_total_slot;
        return m;
    }
    m.entry = layer.weight, m.columns = layer.columns, m.total = plan.global_offset + layer.total_slot;
    m.basis = i == 0 && plan.rank > 0, m.features = m.basis ? plan.rank : layer.columns;
    m.columns_pooled = plan.nodes_of[i] >= 0;
    if (m.columns_pooled) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[i]];
        m.column = nodes.offset + layer.column_slot, m.column_step = nodes.slots;
    }
    return m;
}

// What a block does of a matrix: the sums over features, over rows, over both, and whether entries themselves are written.
struct PoolPart {
    int first_row, last_row, first_feature, last_feature;
    bool over_features, over_rows, over_both, entries;
};
HOST_DEVICE inline int parts_of(int count, int most) {
    return (count + most - 1) / most;
}
HOST_DEVICE inline bool rows_are_cut(const PooledMatrix& m, int row_bytes) {
    return m.columns_pooled && m.rows > kRowBytesOfBlock / row_bytes;
}
HOST_DEVICE inline int pool_parts(const PooledMatrix& m, int row_bytes) {
    if (!m.columns_pooled) return parts_of(m.features, kFeaturesOfPart);
    if (!rows_are_cut(m, row_bytes)) return 1;
    return parts_of(m.rows, kRowsOfPart) + (m.rows_pooled ? parts_of(m.features, kFeaturesOfPart) + 1 : 0);
}
HOST_DEVICE ALWAYS_INLINE PoolPart pool_part(const PooledMatrix& m, int part, int row_bytes) {
    const bool both = m.rows_pooled && m.columns_pooled;
    const auto end = [](int begin, int step, int most) { return begin + step < most ? begin + step : most; };
    int first = part * kFeaturesOfPart;
    if (!m.columns_pooled) return {0, m.rows, first, end(first, kFeaturesOfPart, m.features), false, m.rows_pooled, false, true};
    if (!rows_are_cut(m, row_bytes)) return {0, m.rows, 0, m.features, true, m.rows_pooled, both, !both};
    const int row_parts = parts_of(m.rows, kRowsOfPart);
    first = part * kRowsOfPart;
    if (part < row_parts) return {first, end(first, kRowsOfPart, m.rows), 0, m.features, true, false, false, !both};
    first = (part - row_parts) * kFeaturesOfPart;
    if (first < m.features) return {0, m.rows, first, end(first, kFeaturesOfPart, m.features), false, true, false, false};
    return {0, m.rows, 0, m.features, false, false, true, false};
}
// Rows whose sums over features are kept in shared memory.
HOST_DEVICE inline int rows_kept(const PooledMatrix& m, int row_bytes) {
    return !m.columns_pooled ? 0 : rows_are_cut(m, row_bytes) ? kRowsOfPart : m.rows;
}

struct PoolParts {
    int first[2 * kMaxWeightLayers + 1];  // of a matrix
};

// What the threads of a block share besides sums; in shared memory, because it would take the registers that loads need.
struct PoolJob {
    PooledMatrix matrix;
    PoolPart part;
    int alive_rows, alive_columns;
};
constexpr int kPoolJobBytes = 128;

template <class A>
constexpr size_t pool_bytes(int rows, int row_bytes) {
    return kPoolJobBytes + sizeof(A) * kFeatures * kThreads + static_cast<size_t>(rows) * row_bytes;
}

// What eight neighbouring columns of a row hold, or zeros from `most` on.
template <class T>
DEVICE void load_features(Compute<T> (&value)[kFeatures], const T* from, int channels, int most) {
#pragma unroll
    for (int j = 0; j < kFeatures; ++j, from += channels) value[j] = j < most ? Compute<T>(widen(*from)) : Compute<T>(0);
}

template <class T, class Out>
__global__ void __launch_bounds__(kThreads, sizeof(Compute<T>) == 4 ? 4 : 2)
    pool_matrices(WeightPlan plan, PoolParts parts, const T* __restrict__ x, const T* __restrict__ basis, const int64_t* sizes, bool mean,
                  Out* __restrict__ pooled, int channels, int lanes_log2) {
    using A = Compute<T>;
    static_assert(sizeof(PoolJob) <= kPoolJobBytes);
    PoolJob& job = *reinterpret_cast<PoolJob*>(shared_memory());
    A *partial = reinterpret_cast<A*>(shared_memory() + kPoolJobBytes), *row_sums = partial + kFeatures * kThreads;
    const int lanes = 1 << lanes_log2, workers = kThreads >> lanes_log2, chunks = parts_of(channels, lanes);
    const int lane = thread_index() & (lanes - 1), worker = thread_index() >> lanes_log2;
    const unsigned part_count = parts.first[2 * plan.layers], part = block_index() / chunks % part_count;
    const int64_t network = block_index() / chunks / part_count;
    const int first_channel = static_cast<int>(block_index() % chunks) * lanes, c = first_channel + lane;
    if (thread_index() == 0) {
        int index = 0;
        while (static_cast<int>(part) >= parts.first[index + 1]) ++index;
        job.matrix = pooled_matrix(plan, index);
        job.part = pool_part(job.matrix, static_cast<int>(part) - parts.first[index], lanes * static_cast<int>(sizeof(A)));
        const int64_t* widths = sizes_of(plan, sizes, network);
        job.alive_rows = width_of(plan, widths, index / 2 + 1);
        job.alive_columns = job.matrix.columns_pooled ? width_of(plan, widths, index / 2) : job.matrix.columns;
    }
    __syncthreads();
    const PooledMatrix& m = job.matrix;
    const PoolPart& p = job.part;
    const int alive_rows = job.alive_rows;
    const T* values = x + (network * plan.entries + m.entry) * channels + c;
    Out* out = pooled + network * plan.rows * channels;
    const auto put = [&](int row, int channel, A value) { out[static_cast<int64_t>(row) * channels + channel] = narrow<Out>(value); };
    const auto over_rows = [&] { return mean && m.rows_pooled ? static_cast<A>(job.alive_rows) : A(1); };
    const auto over_features = [&] { return mean && m.columns_pooled ? static_cast<A>(job.alive_columns) : A(1); };
    const bool here = c < channels;

    A all = 0;
    for (int f0 = p.first_feature; f0 < p.last_feature; f0 += kFeatures) {
        const int features = p.last_feature - f0, most = job.alive_columns - f0, alive = features < most ? features : most;
        A sums[kFeatures] = {};
        for (int r = p.first_row + worker; r < p.last_row; r += workers) {
            A value[kFeatures] = {};
            const T* from = values + static_cast<int64_t>(r) * m.columns * channels;
            if (here && r < alive_rows && !m.basis) {
                load_features(value, from + static_cast<int64_t>(f0) * channels, channels, alive);
            } else if (here && r < alive_rows) {
#pragma unroll 1
                for (int s = 0; s < m.columns; s += kFeatures) {
                    A weight[kFeatures];
                    load_features(weight, from + static_cast<int64_t>(s) * channels, channels, m.columns - s);
#pragma unroll
                    for (int j = 0; j < kFeatures; ++j) {
                        const T* factors = basis + static_cast<int64_t>(f0 + j) * m.columns + s;
                        if (j < features)
#pragma unroll
                            for (int i = 0; i < kFeatures; ++i)
                                if (s + i < m.columns) value[j] += widen(factors[i]) * weight[i];
                    }
                }
            }
            A sum = 0;
#pragma unroll
            for (int j = 0; j < kFeatures; ++j) sum += value[j], sums[j] += value[j];
            all += sum;
            if (p.over_features) {
                A& kept = row_sums[((r - p.first_row) << lanes_log2) + lane];
                kept = f0 == p.first_feature ? sum : kept + sum;
            }
            if (p.entries && here) {
                const int at = m.rows_pooled ? m.row + r * m.row_step : m.columns_pooled ? m.column + r : m.total + r * m.features;
                const int step = m.rows_pooled || !m.columns_pooled ? 1 : m.column_step;
#pragma unroll
                for (int j = 0; j < kFeatures; ++j)
                    if (j < features) put(at + (f0 + j) * step, c, value[j]);
            }
        }
        if (!p.over_rows) continue;
#pragma unroll
        for (int j = 0; j < kFeatures; ++j) partial[j * kThreads + thread_index()] = sums[j];
        __syncthreads();
        const int busy = m.rows < workers ? m.rows : workers;
        for (int i = thread_index(); i < kFeatures << lanes_log2; i += kThreads) {
            const int f = f0 + (i >> lanes_log2), channel = first_channel + (i & (lanes - 1));
            if (f >= p.last_feature || channel >= channels) continue;
            const A* from = partial + (i >> lanes_log2) * kThreads + (i & (lanes - 1));
            A sum = 0;
            for (int w = 0; w < busy; ++w) sum += from[w << lanes_log2];
            put(m.columns_pooled ? m.column + f * m.column_step : m.total + f, channel, sum / over_rows());
        }
        __syncthreads();
    }
    if (p.over_features && here)
        for (int r = p.first_row + worker; r < p.last_row; r += workers)
            put(m.rows_pooled ? m.row + r * m.row_step : m.total + r, c,
                row_sums[((r - p.first_row) << lanes_log2) + lane] / over_features());
    if (!p.over_both) return;
    partial[thread_index()] = all;
    __syncthreads();
    if (worker > 0 || !here) return;
    A sum = 0;
    for (int w = 0; w < workers; ++w) sum += partial[(w << lanes_log2) + lane];
    put(m.total, c, sum / (over_features() * over_rows()));
}

}  // namespace
}  // namespace cuda
}  // namespace isotypic
