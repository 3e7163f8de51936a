#include "cuda/group_conv_tables.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace isotypic {
namespace cuda {
namespace {

using Matrix = std::vector<double>;

// A section before it is written out.
struct Draft {
    SectionSizes sizes{};
    int weight_size = 0;
    std::vector<IrrepBlock> irreps;
    std::vector<int> orbit_length, taps, weight_index;
    std::vector<Matrix> analysis, weight_matrix;  // one for each orbit
    Matrix synthesis;
};

class Writer {
  public:
    template <class T>
    int64_t append(const std::vector<T>& values) {
        bytes.resize((bytes.size() + 15) / 16 * 16);
        const int64_t offset = static_cast<int64_t>(bytes.size());
        const auto* first = reinterpret_cast<const std::byte*>(values.data());
        bytes.insert(bytes.end(), first, first + values.size() * sizeof(T));
        return offset;
    }

    void append(const Matrix& values, int64_t (&offsets)[2]) {
        offsets[0] = append(std::vector<float>(values.begin(), values.end()));
        offsets[1] = append(values);
    }

    // Equal matrices are written once.
    int64_t append(const std::vector<Matrix>& matrices, int64_t (&offsets)[2]) {
        std::vector<const Matrix*> distinct;
        std::vector<int> index;
        Matrix all;
        for (const Matrix& matrix : matrices) {
            const auto found = std::find_if(distinct.begin(), distinct.end(), [&](const Matrix* m) { return *m == matrix; });
            index.push_back(static_cast<int>(found - distinct.begin()));
            if (found != distinct.end()) continue;
            distinct.push_back(&matrix);
            all.insert(all.end(), matrix.begin(), matrix.end());
        }
        append(all, offsets);
        return append(index);
    }

    std::vector<std::byte> bytes;
};

// Deals jobs to ceil(jobs / slots_per_warp) warps, the deepest first, each to the warp with the least work that has room.
std::vector<Job> deal(std::vector<Job> jobs, int slots_per_warp) {
    const int warps = (static_cast<int>(jobs.size()) + slots_per_warp - 1) / slots_per_warp;
    std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.depth > b.depth; });
    std::vector<Job> dealt(static_cast<size_t>(warps) * slots_per_warp, Job{-1, 0, 0, 0, 0, 0});
    std::vector<int> count(warps), work(warps);
    for (const Job& job : jobs) {
        int best = -1;
        for (int w = 0; w < warps; ++w)
            if (count[w] < slots_per_warp && (best < 0 || work[w] < work[best])) best = w;
        dealt[static_cast<size_t>(best) * slots_per_warp + count[best]++] = job;
        work[best] += job.depth;
    }
    return dealt;
}

// Rows (rho, a, b < width(rho)) of `matrix` moved to rows (rho, a, b < dim); the new rows are zero.
Matrix widen_rows(const Matrix& matrix, int columns, const std::vector<IrrepBlock>& irreps, const std::vector<int>& width, bool dims) {
    Matrix result;
    size_t row = 0;
    for (size_t i = 0; i < irreps.size(); ++i)
        for (int a = 0; a < (dims ? irreps[i].dim : irreps[i].rows); ++a)
            for (int b = 0; b < irreps[i].dim; ++b) {
                if (b < width[i]) {
                    result.insert(result.end(), matrix.begin() + row * columns, matrix.begin() + (row + 1) * columns);
                    ++row;
                } else {
                    result.insert(result.end(), columns, 0.0);
                }
            }
    return result;
}

Matrix pad_columns(const Matrix& matrix, int columns, int padded) {
    Matrix result(columns ? matrix.size() / columns * padded : 0);
    for (size_t i = 0; i < matrix.size(); ++i) result[i / columns * padded + i % columns] = matrix[i];
    return result;
}

Draft forward_draft(const GroupConvPlan& plan) {
    Draft draft;
    draft.sizes = section_sizes(plan, false);
    draft.weight_size = static_cast<int>(plan.weight_size);
    draft.irreps = plan.irreps;
    draft.synthesis = plan.synthesis;
    for (const TapOrbit& orbit : plan.orbits) {
        const int weights = static_cast<int>(orbit.weight_index.size());
        draft.orbit_length.push_back(orbit.length);
        for (int h = 0; h < draft.sizes.length; ++h)
            for (int i = 0; i < 4; ++i) draft.taps.push_back(h >= orbit.length ? 0 : i < 3 ? orbit.tap[3 * h + i] : orbit.source[h]);
        for (int u = 0; u < draft.sizes.weight_length; ++u)
            draft.weight_index.push_back(u < weights ? static_cast<int>(orbit.weight_index[u]) : -1);
        draft.analysis.push_back(
            pad_columns(widen_rows(orbit.analysis, orbit.length, plan.irreps, orbit.inner, false), orbit.length, draft.sizes.length));
        draft.weight_matrix.push_back(
            pad_columns(widen_rows(orbit.weight_matrix, weights, plan.irreps, orbit.inner, true), weights, draft.sizes.weight_length));
    }
    return draft;
}

Draft regular_adjoint_draft(const GroupConvPlan& plan) {
    Draft draft = forward_draft(plan);
    for (size_t t = 0; t < plan.orbits.size(); ++t)
        for (size_t u = 0; u < plan.orbits[t].adjoint_index.size(); ++u)
            draft.weight_index[t * draft.sizes.weight_length + u] = static_cast<int>(plan.orbits[t].adjoint_index[u]);
    return draft;
}

Draft lifting_adjoint_draft(const GroupConvPlan& plan) {
    Draft draft;
    const Draft forward = forward_draft(plan);
    draft.sizes = section_sizes(plan, true);
    draft.weight_size = forward.weight_size;
    draft.irreps = {IrrepBlock{1, 1}};
    draft.synthesis = {1.0};
    const int length = forward.sizes.length, weights = forward.sizes.weight_length;
    for (size_t t = 0; t < plan.orbits.size(); ++t) {
        for (size_t u = 0; u < plan.orbits[t].weight_index.size(); ++u) {
            draft.orbit_length.push_back(plan.order);
            draft.weight_index.push_back(static_cast<int>(plan.orbits[t].weight_index[u]));
            draft.weight_matrix.push_back({1.0});
            draft.analysis.emplace_back(plan.order, 1.0);
            for (int g = 0; g < plan.order; ++g) {
                // The coefficient of f(tap(h)) psi[u] in out[g]: 1 for one h, and 0 for the others.
                int best = 0;
                double best_coefficient = 0;
                for (int h = 0; h < plan.orbits[t].length; ++h) {
                    double coefficient = 0;
                    int slot = 0, weight_slot = 0;
                    for (const IrrepBlock& irrep : plan.irreps) {
                        for (int r = 0; r < irrep.rows; ++r)
                            for (int j = 0; j < irrep.dim; ++j)
                                for (int k = 0; k < irrep.dim; ++k)
                                    coefficient += plan.synthesis[(slot + r * irrep.dim + j) * plan.order + g] *
                                                   forward.analysis[t][(slot + r * irrep.dim + k) * length + h] *
                                                   forward.weight_matrix[t][(weight_slot + j * irrep.dim + k) * weights + u];
                        slot += irrep.rows * irrep.dim;
                        weight_slot += irrep.dim * irrep.dim;
                    }
                    if (coefficient > best_coefficient) best = h, best_coefficient = coefficient;
                }
                for (int i = 0; i < 3; ++i) draft.taps.push_back(plan.orbits[t].tap[3 * best + i]);
                draft.taps.push_back(g);
            }
        }
    }
    return draft;
}

// The largest power of two that takes every sum of `row` values, weighted by a row of a matrix, back into the range of the values. Element
// (i, j) of a matrix lies at i row_stride + j column_stride.
float range_scale(const std::vector<Matrix>& matrices, size_t rows, size_t columns, size_t row_stride, size_t column_stride) {
    double largest = 0;
    for (const Matrix& matrix : matrices)
        for (size_t i = 0; i < rows; ++i) {
            double sum = 0;
            for (size_t j = 0; j < columns; ++j) sum += std::abs(matrix[i * row_stride + j * column_stride]);
            largest = std::max(largest, sum);
        }
    constexpr double kRounding = 1e-6;  // a row of ones and its rounded equal have one scale
    return largest > 0 ? static_cast<float>(std::exp2(std::floor(-std::log2(largest) + kRounding))) : 1.0f;
}

Section write(const Draft& draft, Writer& writer) {
    Section section{};
    section.slots = draft.sizes.slots;
    section.weight_slots = draft.sizes.weight_slots;
    section.orbits = draft.sizes.orbits;
    section.length = draft.sizes.length;
    section.weight_length = draft.sizes.weight_length;
    section.weight_size = draft.weight_size;
    section.outputs = draft.sizes.outputs;
    section.orbit_length = writer.append(draft.orbit_length);
    section.taps = writer.append(draft.taps);
    section.analysis_index = writer.append(draft.analysis, section.analysis);
    section.weight_index = writer.append(draft.weight_index);
    section.weight_matrix_index = writer.append(draft.weight_matrix, section.weight_matrix);
    writer.append(draft.synthesis, section.synthesis);
    const size_t slots = section.slots, outputs = section.outputs, length = section.length, weight_length = section.weight_length;
    section.analysis_scale = range_scale(draft.analysis, slots, length, length, 1);
    section.weight_scale = range_scale(draft.weight_matrix, section.weight_slots, weight_length, weight_length, 1);
    section.synthesis_scale = range_scale({draft.synthesis}, slots, outputs, outputs, 1);  // as the gradient is transformed

    std::vector<Job> jobs, weight_jobs;
    int slot = 0, weight_slot = 0;
    for (const auto& [d, rows] : draft.irreps) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < d; ++j) jobs.push_back({slot + r * d + j, d, slot + r * d, 1, weight_slot + j * d, 1});
        for (int j = 0; j < d; ++j)
            for (int k = 0; k < d; ++k) weight_jobs.push_back({weight_slot + j * d + k, rows, slot + k, d, slot + j, d});
        slot += rows * d;
        weight_slot += d * d;
    }
    for (int i = 0; i < 4; ++i) {
        section.jobs[i] = writer.append(deal(jobs, kSlotsPerWarp[i]));
        section.weight_jobs[i] = writer.append(deal(weight_jobs, kSlotsPerWarp[i]));
    }

    std::vector<std::vector<int>> uses(draft.weight_size);
    for (size_t i = 0; i < draft.weight_index.size(); ++i)
        if (draft.weight_index[i] >= 0) uses[draft.weight_index[i]].push_back(static_cast<int>(i));
    std::vector<int> begin{0}, use;
    for (const auto& list : uses) {
        for (int i : list) use.insert(use.end(), {i / draft.sizes.weight_length, i % draft.sizes.weight_length});
        begin.push_back(static_cast<int>(use.size() / 2));
    }
    section.use_begin = writer.append(begin);
    section.use = writer.append(use);
    return section;
}

}  // namespace

SectionSizes section_sizes(const GroupConvPlan& plan, bool adjoint) {
    SectionSizes sizes{};
    int weights = 0;
    for (const TapOrbit& orbit : plan.orbits) {
        sizes.length = std::max(sizes.length, orbit.length);
        sizes.weight_length = std::max(sizes.weight_length, static_cast<int>(orbit.weight_index.size()));
        weights += static_cast<int>(orbit.weight_index.size());
    }
    if (adjoint && !regular(plan)) return {1, 1, weights, plan.order, 1, 1};
    sizes.slots = sizes.outputs = plan.order;
    sizes.orbits = static_cast<int>(plan.orbits.size());
    for (const IrrepBlock& irrep : plan.irreps) sizes.weight_slots += irrep.dim * irrep.dim;
    return sizes;
}

std::vector<std::byte> plan_tables(const GroupConvPlan& plan) {
    Writer writer;
    writer.bytes.resize(kSections * sizeof(Section));
    const Section sections[kSections] = {write(forward_draft(plan), writer),
                                         write(regular(plan) ? regular_adjoint_draft(plan) : lifting_adjoint_draft(plan), writer)};
    std::memcpy(writer.bytes.data(), sections, sizeof sections);
    return writer.bytes;
}

}  // namespace cuda
}  // namespace isotypic
