#include <algorithm>
#include <stdexcept>
#include <string>

#include "ops/group_conv.hpp"

namespace isotypic {
namespace {

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(std::string("GroupConvPlan: ") + what);
}

SparseRows sparse_rows(const std::vector<double>& matrix, int rows, int columns, bool transposed) {
    SparseRows out;
    out.row_begin.push_back(0);
    for (int i = 0; i < (transposed ? columns : rows); ++i) {
        for (int j = 0; j < (transposed ? rows : columns); ++j) {
            const double value = transposed ? matrix[static_cast<size_t>(j) * columns + i] : matrix[static_cast<size_t>(i) * columns + j];
            if (value == 0) continue;
            out.column.push_back(j);
            out.value.push_back(value);
        }
        out.row_begin.push_back(static_cast<int>(out.column.size()));
    }
    return out;
}

Rounded rounded(const std::vector<double>& matrix) {
    constexpr size_t kLongestVector = 16;
    Rounded out{matrix, {matrix.begin(), matrix.end()}};
    out.wide.resize(matrix.size() + kLongestVector), out.single.resize(matrix.size() + kLongestVector);
    return out;
}

// Rows of a matrix, appended one by one.
struct RowBuilder {
    const std::vector<double>& from;
    size_t columns;
    std::vector<double> out;

    void add(int row, int other = -1, double factor = 0) {  // from[row] + factor from[other]
        for (size_t i = 0; i < columns; ++i) out.push_back(from[row * columns + i] + (other < 0 ? 0 : factor * from[other * columns + i]));
    }
};

GroupConvPlan with_three_products(const GroupConvPlan& plan) {
    GroupConvPlan out;
    out.fourier = plan.fourier, out.order = plan.order, out.sources = plan.sources, out.weight_size = plan.weight_size;
    RowBuilder synthesis{plan.synthesis, static_cast<size_t>(plan.order), {}};
    int row = 0;
    for (const IrrepBlock& irrep : plan.irreps) {
        if (irrep.dim == 2) {
            out.irreps.insert(out.irreps.end(), 3, {1, 1});
            synthesis.add(row, row + 1, -1);
            synthesis.add(row, row + 1, 1);
            synthesis.add(row + 1);
        } else {
            out.irreps.push_back(irrep);
            synthesis.add(row);
        }
        row += irrep.dim;
    }
    out.synthesis = std::move(synthesis.out);
    for (const TapOrbit& orbit : plan.orbits) {
        TapOrbit other;
        other.length = orbit.length, other.source = orbit.source, other.tap = orbit.tap;
        other.weight_index = orbit.weight_index, other.adjoint_index = orbit.adjoint_index;
        RowBuilder analysis{orbit.analysis, static_cast<size_t>(orbit.length), {}},
            weight{orbit.weight_matrix, orbit.weight_index.size(), {}};
        int analysis_row = 0, weight_row = 0;
        for (size_t rho = 0; rho < plan.irreps.size(); ++rho) {
            const int inner = orbit.inner[rho];  // a stabiliser fixes all of a complex irrep of dimension 2, or nothing
            if (plan.irreps[rho].dim == 2) {
                require(inner == 0 || inner == 2, "an orbit keeps half of a complex irrep");
                other.inner.insert(other.inner.end(), 3, inner / 2);
                if (inner == 2) {
                    analysis.add(analysis_row), analysis.add(analysis_row + 1), analysis.add(analysis_row, analysis_row + 1, 1);
                    weight.add(weight_row), weight.add(weight_row + 1), weight.add(weight_row, weight_row + 1, -1);
                }
                weight_row += 2 * inner;
            } else {
                other.inner.push_back(inner);
                if (inner) analysis.add(analysis_row), weight.add(weight_row);
                weight_row += inner;
            }
            analysis_row += inner;
        }
        other.analysis = std::move(analysis.out);
        other.weight_matrix = std::move(weight.out);
        out.orbits.push_back(std::move(other));
    }
    return out;
}

}  // namespace

void GroupConvPlan::finalize() {
    derive(order);
    bool worthwhile = false;
    for (const IrrepBlock& irrep : irreps) {
        if (irrep.dim > 2 || (irrep.dim == 2 && irrep.rows != 1)) return;
        worthwhile |= irrep.dim == 2;
    }
    if (!worthwhile) return;
    GroupConvPlan other = with_three_products(*this);
    int products = 0;
    for (const IrrepBlock& irrep : other.irreps) products += irrep.dim;
    other.derive(products);
    three_products = std::make_shared<const GroupConvPlan>(std::move(other));
}

void GroupConvPlan::derive(int rows) {
    identity = std::make_shared<const int>(0);
    require(order > 0 && (sources == order || sources == 1), "sources must be 1 or the order of the group");
    require(synthesis.size() == static_cast<size_t>(rows) * order,
            "synthesis must have one row for each (irrep, r, j) and a column for each element");
    require(!orbits.empty(), "there must be at least one tap orbit");
    for (size_t rho = 0; rho < irreps.size(); ++rho)
        for (int r = 0; r < irreps[rho].rows; ++r)
            for (int j = 0; j < irreps[rho].dim; ++j) row_irrep.push_back(static_cast<int>(rho)), row_r.push_back(r), row_j.push_back(j);
    require(row_irrep.size() == static_cast<size_t>(rows), "the irreps' rows * dim must sum to the order of the group");
    sparse_synthesis = sparse_rows(synthesis, rows, order, true);  // out[h] = sum over rows
    sparse_synthesis_adjoint = sparse_rows(synthesis, rows, order, false);

    std::vector<int> first(irreps.size(), 0);
    for (TapOrbit& orbit : orbits) {
        require(orbit.inner.size() == irreps.size(), "an orbit's inner must have one entry per irrep");
        for (size_t rho = 0; rho < irreps.size(); ++rho) {
            for (int r = 0; r < irreps[rho].rows; ++r)
                for (int k = 0; k < orbit.inner[rho]; ++k)
                    orbit.row_irrep.push_back(static_cast<int>(rho)), orbit.row_r.push_back(r), orbit.row_k.push_back(first[rho] + k);
            for (int j = 0; j < irreps[rho].dim; ++j)
                for (int k = 0; k < orbit.inner[rho]; ++k)
                    orbit.weight_irrep.push_back(static_cast<int>(rho)), orbit.weight_j.push_back(j),
                        orbit.weight_k.push_back(first[rho] + k);
            first[rho] += orbit.inner[rho];
        }
        orbit.analysis_rows = static_cast<int>(orbit.row_irrep.size());
        orbit.weight_rows = static_cast<int>(orbit.weight_irrep.size());
        const size_t length = static_cast<size_t>(orbit.length), weights = orbit.weight_index.size();
        require(orbit.source.size() == length && orbit.tap.size() == 3 * length, "an orbit's source and tap must have `length` rows");
        require(orbit.analysis.size() == orbit.analysis_rows * length, "an orbit's analysis must have shape (sum of rows * inner, length)");
        require(orbit.weight_matrix.size() == orbit.weight_rows * weights,
                "an orbit's weight_matrix must have shape (sum of dim * inner, weight_length)");
        require(orbit.adjoint_index.empty() || orbit.adjoint_index.size() == weights,
                "an orbit's adjoint_index must be empty or like weight_index");
        for (int source : orbit.source) require(source >= 0 && source < sources, "an orbit's source is out of range");
        for (size_t i = 0; i < orbit.tap.size(); ++i) {
            require(orbit.tap[i] >= 0, "an orbit's tap is negative");
            last_tap[i % 3] = std::max(last_tap[i % 3], orbit.tap[i]);
        }
        for (int64_t index : orbit.weight_index) require(index >= 0 && index < weight_size, "an orbit's weight_index is out of range");
        for (int64_t index : orbit.adjoint_index) require(index >= 0 && index < weight_size, "an orbit's adjoint_index is out of range");
        std::vector<double> columns(orbit.weight_matrix.size());
        for (int i = 0; i < orbit.weight_rows; ++i)
            for (size_t u = 0; u < weights; ++u) columns[u * orbit.weight_rows + i] = orbit.weight_matrix[i * weights + u];
        orbit.weight_columns = rounded(columns), orbit.weight_rounded = rounded(orbit.weight_matrix);
        orbit.sparse_analysis = sparse_rows(orbit.analysis, orbit.analysis_rows, orbit.length, false);
        orbit.sparse_adjoint = sparse_rows(orbit.analysis, orbit.analysis_rows, orbit.length, true);
    }
}

}  // namespace isotypic
