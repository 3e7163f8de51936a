// The device code of weight_linear.cu, whose header says what a block owns and what the floors are.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "ops/weight_linear.hpp"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kLanesOfBlock = 32;  // channels of a block of pool_rows
constexpr int kGroups = 4;         // its warps
constexpr int kSide = 32;          // of a tile
constexpr int kPitch = kSide + 1;  // of a tile in shared memory
constexpr int kThreads = 256;
constexpr int kOutputs = kSide * kSide / kThreads;
constexpr int kSplits = 16;  // partial sums of a gradient

DEVICE const int64_t* sizes_of(const WeightPlan& plan, const int64_t* sizes, int64_t network) {
    return sizes ? sizes + network * (plan.layers + 1) : nullptr;
}

// The slot j of a basis that a row of the pooled tensor holds, or -1: rho_1[r, j] (r is set) or gam_1[j] (r is -1).
DEVICE int basis_slot(const WeightPlan& plan, int row, int& r) {
    if (!plan.rank) return -1;
    const WeightLayer& layer = plan.layer[0];
    const WeightNodes& nodes = plan.nodes[plan.nodes_of[1]];
    const int local = row - nodes.offset, total = row - plan.global_offset - layer.total_slot;
    if (local >= 0 && local < nodes.width * nodes.slots) {
        r = local / nodes.slots;
        const int slot = local % nodes.slots - layer.row_slot;
        return slot < layer.row_slots ? slot : -1;
    }
    r = -1;
    return total >= 0 && total < plan.rank ? total : -1;
}

// pooled (B, rows, C) of x (B, P, C). Block: (network, row, 32 channels).
template <class T, class Out>
__global__ void pool_rows(WeightPlan plan, const T* x, const T* basis, const int64_t* sizes, bool mean, Out* pooled, int channels) {
    using A = Compute<T>;
    A* shared = reinterpret_cast<A*>(shared_memory());
    const int chunks = (channels + kLanesOfBlock - 1) / kLanesOfBlock;
    const int row = static_cast<int>(block_index() / chunks % plan.rows), lane = thread_index() % kLanesOfBlock,
              group = thread_index() / kLanesOfBlock;
    const int64_t network = block_index() / chunks / plan.rows;
    const int c = static_cast<int>(block_index() % chunks) * kLanesOfBlock + lane;
    const int64_t* widths = sizes_of(plan, sizes, network);
    const T* values = x + network * plan.entries * channels;
    A sum = 0, count = 1;
    int r = 0;
    const int feature = basis_slot(plan, row, r);
    if (feature >= 0) {
        const WeightLayer& layer = plan.layer[0];
        const int width = width_of(plan, widths, 1), first = r < 0 ? 0 : r, last = r < 0 ? width : r < width ? r + 1 : r;
        count = mean && r < 0 ? static_cast<A>(width) : A(1);
        for (int k = first; k < last && c < channels; ++k)
            for (int s = group; s < layer.columns; s += kGroups)
                sum += widen(basis[feature * layer.columns + s]) *
                       widen(values[(layer.weight + static_cast<int64_t>(k) * layer.columns + s) * channels + c]);
    } else {
        const PooledEntries set = pooled_entries(plan, widths, row);
        const int entries = set.outer * set.inner;
        count = mean && entries > 0 ? static_cast<A>(entries) : A(1);
        for (int e = group; e < entries && c < channels; e += kGroups) {
            const int64_t entry =
                set.first + static_cast<int64_t>(e / set.inner) * set.outer_stride + static_cast<int64_t>(e % set.inner) * set.inner_stride;
            sum += widen(values[entry * channels + c]);
        }
    }
    shared[group * kLanesOfBlock + lane] = sum;
    __syncthreads();
    if (group == 0 && c < channels) {
        A total = 0;
        for (int g = 0; g < kGroups; ++g) total += shared[g * kLanesOfBlock + lane];
        pooled[(network * plan.rows + row) * channels + c] = narrow<Out>(total / count);
    }
}

// The four outputs of a thread in a tile: rows thread / 32 + 8 k, column thread % 32.
template <class A>
DEVICE void multiply_tile(A (&sum)[kOutputs], const A* left, const A* right) {
    const int column = thread_index() % kSide, row = thread_index() / kSide;
    for (int k = 0; k < kSide; ++k)
        for (int i = 0; i < kOutputs; ++i) sum[i] += left[(row + i * (kThreads / kSide)) * kPitch + k] * right[k * kPitch + column];
}

// terms (B, rows, N) = pooled (B, rows, C) times the matrices of the labels and the global one, plus the bias. Block: (label, 32 rows (b,
// r), 32 columns (t, n)). Transposed, the weight's matrices and its pairs of slots are.
struct NodeTiles {
    int first[kMaxWeightLayers + 3];  // of a label; the global vector is the last
};

template <class T>
__global__ void multiply_nodes(WeightPlan plan, NodeTiles tiles, const Compute<T>* pooled, const T* weight, const T* bias, bool transposed,
                               Compute<T>* terms, int64_t batch, int C, int N) {
    using A = Compute<T>;
    A *left = reinterpret_cast<A*>(shared_memory()), *right = left + kSide * kPitch;
    int label = 0;
    while (static_cast<int>(block_index()) >= tiles.first[label + 1]) ++label;
    const bool global = label == plan.node_count;
    const int slots = global ? plan.global_slots : plan.nodes[label].slots, width = global ? 1 : plan.nodes[label].width;
    const int offset = global ? plan.global_offset : plan.nodes[label].offset,
              parameter = global ? plan.global_parameter : plan.nodes[label].parameter;
    const int column_tiles = (slots * N + kSide - 1) / kSide, tile = static_cast<int>(block_index()) - tiles.first[label];
    const int64_t first_row = static_cast<int64_t>(tile / column_tiles) * kSide, rows = batch * width;
    const int first_column = tile % column_tiles * kSide, depth = slots * C;
    A sum[kOutputs] = {};
    for (int k0 = 0; k0 < depth; k0 += kSide) {
        __syncthreads();
        for (int e = thread_index(); e < kSide * kSide; e += kThreads) {
            const int i = e / kSide, j = e % kSide;
            const int64_t row = first_row + i;
            left[i * kPitch + j] =
                row < rows && k0 + j < depth ? pooled[((row / width) * plan.rows + offset + row % width * slots) * C + k0 + j] : A(0);
            const int k = k0 + i, column = first_column + j;
            A value = 0;
            if (k < depth && column < slots * N) {
                const int s = k / C, c = k % C, t = column / N, n = column % N;
                const int64_t matrix = parameter + (transposed ? t * slots + s : s * slots + t);
                value = widen(weight[matrix * C * N + (transposed ? static_cast<int64_t>(n) * C + c : static_cast<int64_t>(c) * N + n)]);
            }
            right[i * kPitch + j] = value;
        }
        __syncthreads();
        multiply_tile(sum, left, right);
    }
    const int column = first_column + thread_index() % kSide;
    for (int i = 0; i < kOutputs; ++i) {
        const int64_t row = first_row + thread_index() / kSide + i * (kThreads / kSide);
        if (row >= rows || column >= slots * N) continue;
        const A start = global && bias ? widen(bias[column]) : A(0);
        terms[((row / width) * plan.rows + offset + row % width * slots) * N + column] = start + sum[i];
    }
}

// y (B, P, N): x mixed plus terms. Block: (network, 32 entries of one layer's weight or bias, 32 channels).
struct EntryTiles {
    int first[2 * kMaxWeightLayers + 1];  // of W_1, b_1, W_2, ..
};

template <class T, class Terms>
__global__ void affine_tiles(WeightPlan plan, EntryTiles tiles, const T* x, const T* mix, const Terms* terms, const T* basis,
                             const int64_t* sizes, bool mean, bool transposed, T* y, int C, int N) {
    using A = Compute<T>;
    A *left = reinterpret_cast<A*>(shared_memory()), *right = left + kSide * kPitch;
    const int column_tiles = (N + kSide - 1) / kSide, entry_tiles = tiles.first[2 * plan.layers];
    const int tile = static_cast<int>(block_index() / column_tiles % entry_tiles),
              first_column = static_cast<int>(block_index() % column_tiles) * kSide;
    const int64_t network = block_index() / column_tiles / entry_tiles;
    const int64_t* widths = sizes_of(plan, sizes, network);
    int part = 0;
    while (tile >= tiles.first[part + 1]) ++part;
    const WeightLayer& layer = plan.layer[part / 2];
    const int begin = (part % 2 ? layer.bias : layer.weight) + (tile - tiles.first[part]) * kSide;
    const int end = part % 2 ? layer.bias + layer.rows : layer.bias;
    A sum[kOutputs] = {};
    if (x && part % 2 == 0 && layer.mixed >= 0) {
        const T* values = x + network * plan.entries * C;
        const T* matrix = mix + static_cast<int64_t>(layer.mixed) * C * N;
        for (int k0 = 0; k0 < C; k0 += kSide) {
            __syncthreads();
            for (int e = thread_index(); e < kSide * kSide; e += kThreads) {
                const int i = e / kSide, j = e % kSide;
                left[i * kPitch + j] =
                    begin + i < end && k0 + j < C ? A(widen(values[static_cast<int64_t>(begin + i) * C + k0 + j])) : A(0);
                const int k = k0 + i, n = first_column + j;
                right[i * kPitch + j] =
                    k < C && n < N ? A(widen(matrix[transposed ? static_cast<int64_t>(n) * C + k : static_cast<int64_t>(k) * N + n]))
                                   : A(0);
            }
            __syncthreads();
            multiply_tile(sum, left, right);
        }
    }
    const int n = first_column + thread_index() % kSide;
    for (int i = 0; i < kOutputs; ++i) {
        const int entry = begin + thread_index() / kSide + i * (kThreads / kSide);
        if (entry >= end || n >= N) continue;
        const EntryRows rows = entry_rows(plan, widths, entry);
        A value = 0;
        if (rows.alive) {
            value = sum[i];
            if (terms) {
                const WeightScales scales = weight_scales(plan, widths, rows.layer, mean);
                const Terms* added = terms + network * plan.rows * N + n;
                auto term = [&](int row) { return A(widen(added[static_cast<int64_t>(row) * N])); };
                if (rows.s < 0) {
                    value += (rows.row >= 0 ? term(rows.row) : A(0)) + static_cast<A>(scales.bias) * term(rows.total);
                } else if (rows.layer == 0 && plan.rank) {
                    for (int j = 0; j < plan.rank; ++j)
                        value += widen(basis[static_cast<int64_t>(j) * layer.columns + rows.s]) *
                                 (static_cast<A>(scales.row) * term(rows.row + j) + static_cast<A>(scales.total) * term(rows.total + j));
                } else {
                    if (rows.row >= 0) value += static_cast<A>(scales.row) * term(rows.row);
                    if (rows.column >= 0) value += static_cast<A>(scales.column) * term(rows.column);
                    value += static_cast<A>(scales.total) * term(rows.total);
                }
            }
        }
        y[(network * plan.entries + entry) * N + n] = narrow<T>(value);
    }
}

// Partial sums of a parameter's gradient over a run of networks: a^T g over entries (mixed layers, from x and y) or over neurons (labels
// and the global vector, from what was pooled of x and y). Block: (run, tile of 32 rows and 32 columns of one matrix). partial (runs,
// parameters C N).
struct OuterTiles {
    int first[2 * kMaxWeightLayers + 4];  // of each mixed layer, each label, the global vector
};

template <class T>
__global__ void outer_tiles(WeightPlan plan, OuterTiles tiles, const T* x, const T* y, const Compute<T>* pooled, const Compute<T>* summed,
                            const int64_t* sizes, Compute<T>* partial, int64_t elements, int64_t batch, int runs, int C, int N) {
    using A = Compute<T>;
    A *left = reinterpret_cast<A*>(shared_memory()), *right = left + kSide * kPitch;
    const int per_run = static_cast<int>(block_count()) / runs, run = static_cast<int>(block_index()) / per_run,
              tile = static_cast<int>(block_index()) % per_run;
    int part = 0;
    while (tile >= tiles.first[part + 1]) ++part;
    const bool mixed = part < plan.mixed;
    const int label = part - plan.mixed;
    const bool global = label == plan.node_count;
    int index = 0;
    if (mixed)
        while (plan.layer[index].mixed != part) ++index;
    const WeightLayer& layer = plan.layer[index];
    const int slots = mixed ? 1 : global ? plan.global_slots : plan.nodes[label].slots;
    const int offset = mixed ? 0 : global ? plan.global_offset : plan.nodes[label].offset;
    const int parameter = mixed ? part : global ? plan.global_parameter : plan.nodes[label].parameter;
    const int positions = mixed ? layer.rows * layer.columns : global ? 1 : plan.nodes[label].width;
    const int height = slots * C, width = slots * N, column_tiles = (width + kSide - 1) / kSide;
    const int first_row = (tile - tiles.first[part]) / column_tiles * kSide,
              first_column = (tile - tiles.first[part]) % column_tiles * kSide;
    A sum[kOutputs] = {};
    for (int64_t network = batch * run / runs; network < batch * (run + 1) / runs; ++network) {
        const int64_t* widths = sizes_of(plan, sizes, network);
        for (int p0 = 0; p0 < positions; p0 += kSide) {
            __syncthreads();
            for (int e = thread_index(); e < kSide * kSide; e += kThreads) {
                const int i = e / kSide, j = e % kSide;
                // left[row of the tile][position], right[position][column of the tile]
                const int position = p0 + i;
                bool alive = position < positions;
                if (mixed && alive)
                    alive = position / layer.columns < width_of(plan, widths, index + 1) &&
                            position % layer.columns < width_of(plan, widths, index);
                const int row = first_row + j, column = first_column + j;
                A a = 0, g = 0;
                if (alive && row < height)
                    a = mixed ? A(widen(x[(network * plan.entries + layer.weight + position) * C + row]))
                              : pooled[(network * plan.rows + offset + static_cast<int64_t>(position) * slots) * C + row];
                if (alive && column < width)
                    g = mixed ? A(widen(y[(network * plan.entries + layer.weight + position) * N + column]))
                              : summed[(network * plan.rows + offset + static_cast<int64_t>(position) * slots) * N + column];
                left[j * kPitch + i] = a;
                right[i * kPitch + j] = g;
            }
            __syncthreads();
            multiply_tile(sum, left, right);
        }
    }
    const int column = first_column + thread_index() % kSide;
    for (int i = 0; i < kOutputs; ++i) {
        const int row = first_row + thread_index() / kSide + i * (kThreads / kSide);
        if (row >= height || column >= width) continue;
        const int64_t matrix = parameter + static_cast<int64_t>(row / C) * slots + column / N;
        partial[run * elements + (matrix * C + row % C) * N + column % N] = sum[i];
    }
}

// out[i] = sum of the partial sums in order; behind them the bias: the global rows of `summed`, over all networks.
template <class T>
__global__ void sum_partials(WeightPlan plan, const Compute<T>* partial, int64_t elements, int runs, const Compute<T>* summed,
                             int64_t batch, int N, T* out) {
    using A = Compute<T>;
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    A sum = 0;
    if (i < elements) {
        for (int run = 0; run < runs; ++run) sum += partial[run * elements + i];
        out[i] = narrow<T>(sum);
    } else if (summed && i < elements + static_cast<int64_t>(plan.global_slots) * N) {
        for (int64_t network = 0; network < batch; ++network) sum += summed[(network * plan.rows + plan.global_offset) * N + i - elements];
        out[i] = narrow<T>(sum);
    }
}

// dE[j, s]. Block: one (j, s); its threads share (network, r, c), in a fixed order.
template <class T>
__global__ void basis_sums(WeightPlan plan, const T* x, const T* terms, const int64_t* sizes, bool mean, T* gradient, int64_t batch,
                           int C) {
    using A = Compute<T>;
    A* shared = reinterpret_cast<A*>(shared_memory());
    const WeightLayer& layer = plan.layer[0];
    const WeightNodes& nodes = plan.nodes[plan.nodes_of[1]];
    const int j = static_cast<int>(block_index()) / layer.columns, s = static_cast<int>(block_index()) % layer.columns;
    A sum = 0;
    for (int64_t network = 0; network < batch; ++network) {
        const int64_t* widths = sizes_of(plan, sizes, network);
        const WeightScales scales = weight_scales(plan, widths, 0, mean);
        const T* added = terms + network * plan.rows * C;
        for (int i = thread_index(); i < width_of(plan, widths, 1) * C; i += kThreads) {
            const int r = i / C, c = i % C;
            const A row = widen(added[(nodes.offset + static_cast<int64_t>(r) * nodes.slots + layer.row_slot + j) * C + c]);
            const A total = widen(added[static_cast<int64_t>(plan.global_offset + layer.total_slot + j) * C + c]);
            const A value = widen(x[(network * plan.entries + layer.weight + static_cast<int64_t>(r) * layer.columns + s) * C + c]);
            sum += value * (static_cast<A>(scales.row) * row + static_cast<A>(scales.total) * total);
        }
    }
    shared[thread_index()] = sum;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread_index() < half) shared[thread_index()] += shared[thread_index() + half];
    }
    if (thread_index() == 0) gradient[block_index()] = narrow<T>(shared[0]);
}

// The entry of the first maximum of x for every (network, row, channel), -1 where a network lacks the neuron; and values there, when they
// are asked for.
template <class T>
__global__ void locate(WeightPlan plan, const T* values, const T* x, const int64_t* sizes, int* index, T* pooled, int64_t count, int C) {
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (i >= count) return;
    const int c = static_cast<int>(i % C), row = static_cast<int>(i / C % plan.rows);
    const int64_t network = i / C / plan.rows;
    const T* keys = x + network * plan.entries * C;
    const PooledEntries set = pooled_entries(plan, sizes_of(plan, sizes, network), row);
    int found = -1;
    Compute<T> best = 0;
    for (int a = 0; a < set.outer; ++a)
        for (int b = 0; b < set.inner; ++b) {
            const int entry = set.first + a * set.outer_stride + b * set.inner_stride;
            const auto value = widen(keys[static_cast<int64_t>(entry) * C + c]);
            if (found < 0 || value > best || (value != value && best == best)) best = value, found = entry;
        }
    if (index) index[i] = found;
    if (pooled) pooled[i] = found < 0 ? narrow<T>(0) : values[(network * plan.entries + found) * C + c];
}

// values (B, P, C): an entry gathers what the rows, column and block it is the maximum of hold.
template <class T>
__global__ void gather_maxima(WeightPlan plan, const T* pooled, const int* index, const int64_t* sizes, T* values, int64_t count, int C) {
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (i >= count) return;
    const int c = static_cast<int>(i % C), entry = static_cast<int>(i / C % plan.entries);
    const int64_t network = i / C / plan.entries;
    const EntryRows rows = entry_rows(plan, sizes_of(plan, sizes, network), entry);
    Compute<T> sum = 0;
    const int candidates[3] = {rows.row, rows.column, rows.total};
    for (int k = 0; k < 3 && rows.alive; ++k) {
        const int64_t at = (network * plan.rows + candidates[k]) * C + c;
        if (candidates[k] >= 0 && index[at] == entry) sum += widen(pooled[at]);
    }
    values[i] = narrow<T>(sum);
}

}  // namespace
}  // namespace cuda
}  // namespace isotypic
