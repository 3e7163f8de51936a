// The small kernels of group_conv: psi to blocks, the sum of partial results, and blocks back to psi.
#pragma once

#include <type_traits>

#include "cuda/group_conv_arguments.cuh"

namespace isotypic {
namespace cuda {

// --------------------------------------------------------------------------------------------------------------------

DEVICE int64_t global_index() {
    return static_cast<int64_t>(block_index()) * thread_count() + thread_index();
}

// Blocks of the weight as operand B, rounded: (group, step, column tile, weight slot) tiles of 256 bytes, zeros where a step or a tile is
// padded. The first threads also write where the taps of an orbit lie from a position.
template <class Policy>
__global__ void pack_weights(const Packing p) {
    using Accumulator = typename Policy::Accumulator;
    using Storage = typename Policy::Storage;
    const Section& section = section_of(p.tables, p.section);
    const int64_t index = global_index();
    if (index < section.orbits * section.length) {
        const Geometry& g = p.geometry;
        const int* tap = table<int>(p.tables, section.taps) + 4 * index;
        int at[3];
        for (int i = 0; i < 3; ++i) at[i] = g.tap_scale[i] * tap[i] + g.tap_shift[i];
        if (g.staged) {
            p.offsets[index] = tap[3] * g.pixels + (at[0] * g.extent[1] + at[1]) * g.extent[2] + at[2];
        } else {
            for (int i = 0; i < 3; ++i) p.offsets[4 * index + i] = at[i];
            p.offsets[4 * index + 3] = tap[3];
        }
    }
    if (index >= p.total) return;
    constexpr int kElements = Policy::kStep * kColumnTile;
    const int n = static_cast<int>(index % kColumnTile), k = static_cast<int>(index / kColumnTile % Policy::kStep);
    int64_t tile = index / kElements;
    const int slot = static_cast<int>(tile % section.weight_slots);
    tile /= section.weight_slots;
    const int column = static_cast<int>(tile % p.column_tiles) * kColumnTile + n;
    tile /= p.column_tiles;
    const int step = static_cast<int>(tile % p.steps), group = static_cast<int>(tile / p.steps);
    const int chunk = step / p.steps_of_chunk, pair = (step - chunk * p.steps_of_chunk) * Policy::kStep + k;
    const int fields = p.in_fields - chunk * p.chunk < p.chunk ? p.in_fields - chunk * p.chunk : p.chunk;
    const int padded = (fields + p.together - 1) / p.together * p.together;
    const int t = pair / padded, field = chunk * p.chunk + pair % padded;
    Accumulator sum = 0;
    if (t < section.orbits && field < p.in_fields && column < p.out_fields) {
        const Storage* psi =
            static_cast<const Storage*>(p.psi) + group * p.group_stride + column * p.column_stride + field * p.inner_stride;
        const int* weight_index = table<int>(p.tables, section.weight_index) + t * section.weight_length;
        const Accumulator* row =
            matrix<Accumulator>(p.tables, section.weight_matrix) +
            (static_cast<int64_t>(table<int>(p.tables, section.weight_matrix_index)[t]) * section.weight_slots + slot) *
                section.weight_length;
        for (int u = 0; u < section.weight_length; ++u)
            if (weight_index[u] >= 0) sum += row[u] * widen(psi[weight_index[u]]);
        if constexpr (Policy::kNarrowRange) sum *= section.weight_scale;
    }
    using Word = typename Policy::Word;
    using Element = std::conditional_t<Policy::kPerWord == 2, Storage, Word>;
    Element* target = reinterpret_cast<Element*>(p.weights + index / kElements * kColumnTileBytes) + Policy::b_index(k, n);
    if constexpr (Policy::kPerWord == 2)
        *target = narrow<typename Policy::Storage>(sum);
    else
        *target = Policy::pack(&sum);
}

// Sums the splits in their order.
template <class Policy>
__global__ void sum_splits(const Unpacking p) {
    using Accumulator = typename Policy::Accumulator;
    const int64_t index = global_index();
    if (index >= p.total) return;
    const Accumulator* partial = static_cast<const Accumulator*>(p.partial);
    Accumulator sum = 0;
    for (int split = 0; split < p.splits; ++split) sum += partial[split * p.total + index];
    static_cast<Accumulator*>(p.blocks)[index] = sum;
}

// The adjoint of psi -> blocks, one element of psi to a thread.
template <class Policy>
__global__ void unpack_weights(const Unpacking p) {
    using Accumulator = typename Policy::Accumulator;
    const Section& section = section_of(p.tables, 0);
    const int64_t index = global_index();
    if (index >= p.total) return;
    const int element = static_cast<int>(index % section.weight_size);
    const int64_t pair = index / section.weight_size;
    const int field = static_cast<int>(pair % p.in_fields);
    const int64_t o = pair / p.in_fields;
    const int group = static_cast<int>(o / p.out_fields), column = static_cast<int>(o % p.out_fields);
    const Accumulator* blocks =
        static_cast<const Accumulator*>(p.blocks) + static_cast<int64_t>(group) * p.weight_slots * p.rows * p.columns + column;
    const Accumulator* matrices = matrix<Accumulator>(p.tables, section.weight_matrix);
    const int* matrix_index = table<int>(p.tables, section.weight_matrix_index);
    const int* begin = table<int>(p.tables, section.use_begin);
    const int* use = table<int>(p.tables, section.use);
    Accumulator sum = 0;
    for (int i = begin[element]; i < begin[element + 1]; ++i) {
        const int t = use[2 * i], u = use[2 * i + 1];
        const Accumulator* weights = matrices + static_cast<int64_t>(matrix_index[t]) * section.weight_slots * section.weight_length + u;
        for (int slot = 0; slot < section.weight_slots; ++slot)
            sum += weights[slot * section.weight_length] *
                   blocks[(static_cast<int64_t>(slot) * p.rows + field * section.orbits + t) * p.columns];
    }
    if constexpr (Policy::kNarrowRange) sum /= section.analysis_scale * section.synthesis_scale;
    static_cast<typename Policy::Storage*>(p.psi)[index] = narrow<typename Policy::Storage>(sum);
}

}  // namespace cuda
}  // namespace isotypic
