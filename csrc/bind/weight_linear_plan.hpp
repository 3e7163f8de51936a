// A plan from the numbers of ops/weights/_operators.py: plan_arguments, each checked against what the plan can hold.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/weight_linear_plan.hpp"

namespace isotypic {

// Offsets and counts are 32-bit numbers in a plan, which travels to kernels by value, but for those of parameters. Counts above that, and
// negative ones, which a shape would take for "any size", are refused here.
inline int narrow(int64_t value, const char* name, int64_t least = 0) {
    if (value < least || value > std::numeric_limits<int>::max())
        throw std::invalid_argument(std::string("WeightPlan: ") + name + " must be between " + std::to_string(least) +
                                    " and 2^31 - 1, got " + std::to_string(value));
    return static_cast<int>(value);
}

inline WeightPlan make_plan(const std::vector<int64_t>& widths, const std::vector<std::array<int64_t, 14>>& layers,
                            const std::vector<std::array<int64_t, 5>>& nodes, int64_t entries, int64_t rows, int64_t global_offset,
                            int64_t global_slots, int64_t global_parameter, int64_t mixed, int64_t rank) {
    if (layers.empty() || layers.size() > kMaxWeightLayers || widths.size() != layers.size() + 1 || nodes.size() > widths.size())
        throw std::invalid_argument("WeightPlan: 1 to " + std::to_string(kMaxWeightLayers) + " layers are possible, got " +
                                    std::to_string(layers.size()));
    WeightPlan plan{};
    plan.layers = static_cast<int>(layers.size()), plan.node_count = static_cast<int>(nodes.size());
    // At most 2^61 parameters: times 8 bytes it is a size of memory.
    if (global_parameter < 0 || global_parameter > int64_t{1} << 60 || global_slots > int64_t{1} << 30)
        throw std::invalid_argument("WeightPlan: the widths give more than 2^60 parameters");
    plan.entries = narrow(entries, "entries", 1), plan.rows = narrow(rows, "rows", 1);
    plan.global_offset = narrow(global_offset, "global_offset"), plan.global_slots = narrow(global_slots, "global_slots");
    plan.global_parameter = global_parameter, plan.mixed = narrow(mixed, "mixed"), plan.rank = narrow(rank, "rank");
    for (size_t i = 0; i < widths.size(); ++i) plan.widths[i] = narrow(widths[i], "a width", 1), plan.nodes_of[i] = -1;
    for (size_t i = 0; i < layers.size(); ++i) {
        std::array<int, 14> l{};
        for (size_t k = 0; k < l.size(); ++k) l[k] = narrow(layers[i][k], "an offset of a layer", -1);
        plan.layer[i] = {l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7], l[8], l[9], l[10], l[11], l[12], l[13]};
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
        std::array<int, 4> n{};
        for (size_t k = 0; k < n.size(); ++k) n[k] = narrow(nodes[i][k], "an offset of a label");
        plan.nodes[i] = {n[0], n[1], n[2], n[3], nodes[i][4]};
        if (n[0] > plan.layers) throw std::invalid_argument("WeightPlan: a label is out of range");
        plan.nodes_of[n[0]] = static_cast<int>(i);
    }
    return plan;
}

}  // namespace isotypic
