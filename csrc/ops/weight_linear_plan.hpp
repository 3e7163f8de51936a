// Where everything lies in the flat tensors of weight-space operators (python/isotypic/ops/weights/layout.py has the formulas). A plain
// struct of fixed size, so that it reaches a CUDA kernel as a parameter.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace isotypic {

constexpr int kMaxWeightLayers = 32;

// W_i and b_i. Slots are -1 where the axis they belong to is fixed.
struct WeightLayer {
    int rows, columns;
    int weight, bias;               // offsets among the entries of a network
    int mixed;                      // index of the channel matrix, or -1
    int row_slot, row_slots;        // rho_i among the slots of its label
    int column_slot, column_slots;  // kap_i among the slots of the label before
    int bias_slot;
    int total_slot, total_slots;  // gam_i among the slots of g
    int bias_total_slot, bias_total_slots;
};

// The neurons of a permuted label: row (r, slot) of the pooled tensor is at offset + r slots + slot.
struct WeightNodes {
    int label, width, slots, offset;
    int64_t parameter;  // first of the (slots, slots) matrices: slots grow with the widths, and their squares pass 2^31 first
};

struct WeightPlan {
    int layers, node_count;
    int entries, rows;  // of a network: weights and biases; rows of the pooled tensor
    int global_offset, global_slots;
    int64_t global_parameter;
    int mixed, rank;
    int widths[kMaxWeightLayers + 1];
    int nodes_of[kMaxWeightLayers + 1];  // of a label: index into nodes, or -1 where it is fixed
    WeightLayer layer[kMaxWeightLayers];
    WeightNodes nodes[kMaxWeightLayers + 1];

    HOST_DEVICE int64_t parameters() const { return global_parameter + int64_t{global_slots} * global_slots; }
};

// The width of a label in a network whose widths are `sizes` (layers + 1), or the plan's where that is null. Never more than there is
// memory for.
HOST_DEVICE ALWAYS_INLINE int width_of(const WeightPlan& plan, const int64_t* sizes, int label) {
    const int most = plan.widths[label];
    if (!sizes || plan.nodes_of[label] < 0) return most;
    return sizes[label] < 1 ? 1 : sizes[label] < most ? static_cast<int>(sizes[label]) : most;
}

// The factor of a sum over permuted axes of these widths in a mean.
struct WeightScales {
    double row, column, total, bias;
};
HOST_DEVICE ALWAYS_INLINE WeightScales weight_scales(const WeightPlan& plan, const int64_t* sizes, int layer, bool mean) {
    const double rows = mean && plan.nodes_of[layer + 1] >= 0 ? width_of(plan, sizes, layer + 1) : 1;
    const double columns = mean && plan.nodes_of[layer] >= 0 ? width_of(plan, sizes, layer) : 1;
    return {1 / columns, 1 / rows, 1 / (rows * columns), 1 / rows};
}

// The entries that are pooled to one row of the pooled tensor: first + i outer_stride + j inner_stride for i < outer, j < inner. None,
// where the row is that of a neuron which the network lacks. Not for slots of a basis.
struct PooledEntries {
    int first, outer, outer_stride, inner, inner_stride;
};

HOST_DEVICE static inline PooledEntries pooled_entries(const WeightPlan& plan, const int64_t* sizes, int row) {
    for (int n = 0; n < plan.node_count; ++n) {
        const WeightNodes& nodes = plan.nodes[n];
        const int local = row - nodes.offset;
        if (local < 0 || local >= nodes.width * nodes.slots) continue;
        const int r = local / nodes.slots, slot = local % nodes.slots;
        if (r >= width_of(plan, sizes, nodes.label)) return {0, 0, 0, 0, 0};
        if (nodes.label > 0) {
            const WeightLayer& layer = plan.layer[nodes.label - 1];
            if (slot == layer.bias_slot) return {layer.bias + r, 1, 0, 1, 0};
            const int feature = slot - layer.row_slot;
            if (feature < layer.row_slots) {
                if (plan.nodes_of[nodes.label - 1] < 0) return {layer.weight + r * layer.columns + feature, 1, 0, 1, 0};
                return {layer.weight + r * layer.columns, 1, 0, width_of(plan, sizes, nodes.label - 1), 1};
            }
        }
        const WeightLayer& layer = plan.layer[nodes.label];
        const int feature = slot - layer.column_slot;
        if (plan.nodes_of[nodes.label + 1] < 0) return {layer.weight + feature * layer.columns + r, 1, 0, 1, 0};
        return {layer.weight + r, width_of(plan, sizes, nodes.label + 1), layer.columns, 1, 0};
    }
    const int slot = row - plan.global_offset;
    for (int i = 0; i < plan.layers; ++i) {
        const WeightLayer& layer = plan.layer[i];
        const bool rows_pooled = plan.nodes_of[i + 1] >= 0, columns_pooled = plan.nodes_of[i] >= 0;
        const int rows = rows_pooled ? width_of(plan, sizes, i + 1) : 1, columns = columns_pooled ? width_of(plan, sizes, i) : 1;
        const int total = slot - layer.total_slot, bias = slot - layer.bias_total_slot;
        if (total >= 0 && total < layer.total_slots) {
            const int features = columns_pooled ? 1 : layer.columns;
            return {layer.weight + total / features * layer.columns + total % features, rows, layer.columns, columns, 1};
        }
        if (bias >= 0 && bias < layer.bias_total_slots) return {layer.bias + bias, 1, 0, rows, 1};
    }
    return {0, 0, 0, 0, 0};
}

// An entry and the rows of the pooled tensor that it is pooled to: that of its row r, of its column s, and of its block; -1 where there is
// none. With a basis the row and the block of W_1 have `rank` slots, of which these are the first.
struct EntryRows {
    int layer, r, s;  // s is -1 in a bias
    int row, column, total;
    bool alive;  // whether the network has this entry
};

// Of the entry (r, s) of the weight of a layer, or r of its bias, where s is -1; in a network of the plan's own widths.
HOST_DEVICE static inline EntryRows entry_rows(const WeightPlan& plan, int i, int r, int s) {
    const WeightLayer& layer = plan.layer[i];
    EntryRows out{i, r, s, -1, -1, 0, true};
    const bool rows_pooled = plan.nodes_of[i + 1] >= 0, columns_pooled = plan.nodes_of[i] >= 0;
    if (s < 0) {
        if (rows_pooled) out.row = plan.nodes[plan.nodes_of[i + 1]].offset + r * plan.nodes[plan.nodes_of[i + 1]].slots + layer.bias_slot;
        out.total = plan.global_offset + layer.bias_total_slot + (rows_pooled ? 0 : r);
        return out;
    }
    const bool basis = i == 0 && plan.rank > 0;
    const int feature = columns_pooled || basis ? 0 : s;  // among those that a pooled row axis leaves
    if (rows_pooled) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[i + 1]];
        out.row = nodes.offset + r * nodes.slots + layer.row_slot + feature;
    }
    if (columns_pooled) {
        const WeightNodes& nodes = plan.nodes[plan.nodes_of[i]];
        out.column = nodes.offset + s * nodes.slots + layer.column_slot + (rows_pooled ? 0 : r);
    }
    out.total = plan.global_offset + layer.total_slot + feature + (rows_pooled ? 0 : r * (columns_pooled ? 1 : layer.columns));
    return out;
}

HOST_DEVICE static inline EntryRows entry_rows(const WeightPlan& plan, const int64_t* sizes, int entry) {
    int i = 0;
    while (i + 1 < plan.layers && entry >= plan.layer[i + 1].weight) ++i;
    const WeightLayer& layer = plan.layer[i];
    const bool bias = entry >= layer.bias;
    const int local = entry - (bias ? layer.bias : layer.weight);
    EntryRows out = bias ? entry_rows(plan, i, local, -1) : entry_rows(plan, i, local / layer.columns, local % layer.columns);
    out.alive = out.r < width_of(plan, sizes, i + 1) && out.s < width_of(plan, sizes, i);
    return out;
}

}  // namespace isotypic
