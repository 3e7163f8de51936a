// The kernels of weight_linear.cu that touch rows of the pooled tensor one by one: the gradient of a basis, and maxima.
#pragma once

#include "cuda/weight_linear_pool.cuh"

namespace isotypic {
namespace cuda {
namespace {

// dE[j, s]. Block: one (j, s); its threads share (network, r, c), in a fixed order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    basis_sums(WeightPlan plan, const T* x, const T* terms, const int64_t* sizes, bool mean, T* gradient, int64_t batch, int C) {
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
__global__ void __launch_bounds__(kThreads)
    locate(WeightPlan plan, const T* values, const T* x, const int64_t* sizes, int* index, T* pooled, int64_t count, int C) {
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
__global__ void __launch_bounds__(kThreads)
    gather_maxima(WeightPlan plan, const T* pooled, const int* index, const int64_t* sizes, T* values, int64_t count, int C) {
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
