// Tables of the transvectants: rows, antidiagonals, and for the adjoint the terms by coefficient of the input.
#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

#include "ops/transvectants.hpp"

namespace isotypic {
namespace {

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(std::string("TransvectantsPlan: ") + what);
}

}  // namespace

TransvectantsPlan::TransvectantsPlan(const std::vector<int>& degrees, const std::vector<int>& degrees_out,
                                     const std::vector<int>& path_list, const std::vector<double>& tables) {
    std::vector<int> offset;
    for (int degree : degrees) {
        require(degree >= 0, "degrees must not be negative");
        offset.push_back(in_size), in_size += degree + 1;
    }
    out_slots = static_cast<int>(degrees_out.size());
    for (int s = 0; s < out_slots; ++s) {
        require(degrees_out[s] >= 0 && std::find(degrees_out.begin(), degrees_out.begin() + s, degrees_out[s]) == degrees_out.begin() + s,
                "degrees_out must be different and not negative");
        out_begin.push_back(out_size), out_size += degrees_out[s] + 1;
        slot.insert(slot.end(), degrees_out[s] + 1, s);
    }
    out_begin.push_back(out_size);
    require(path_list.size() % 3 == 0, "paths must be triples");
    paths = static_cast<int>(path_list.size() / 3);

    std::vector<int> path_slot, table_begin;
    std::map<std::pair<int, int>, std::vector<int>> by_pair;
    path_begin.assign(out_slots + 1, 0);
    size_t table = 0;
    for (int p = 0; p < paths; ++p) {
        const int s = path_list[3 * p], t = path_list[3 * p + 1], k = path_list[3 * p + 2], slots = static_cast<int>(degrees.size());
        require(s >= 0 && s <= t && t < slots && k >= 0 && k <= std::min(degrees[s], degrees[t]),
                "a path must be (s, t, k), s <= t, with k at most both degrees");
        const auto found = std::find(degrees_out.begin(), degrees_out.end(), degrees[s] + degrees[t] - 2 * k);
        require(found != degrees_out.end(), "every path must lead to one of degrees_out");
        path_slot.push_back(static_cast<int>(found - degrees_out.begin()));
        require(p == 0 || path_slot[p] >= path_slot[p - 1], "paths must be in the order of degrees_out");
        ++path_begin[path_slot[p] + 1];
        table_begin.push_back(static_cast<int>(table));
        table += static_cast<size_t>(degrees[s] + 1) * (degrees[t] + 1);
        by_pair[{s, t}].push_back(p);
    }
    require(table == tables.size(), "tables must have (m + 1)(n + 1) entries for each path");
    for (int s = 0; s < out_slots; ++s) path_begin[s + 1] += path_begin[s];
    rows_before.assign(out_size + 1, 0);
    for (int l = 0; l < out_size; ++l) rows_before[l + 1] = rows_before[l] + path_begin[slot[l] + 1] - path_begin[slot[l]];

    placed.resize(rows_before[out_size]);
    std::vector<std::vector<TransvectantGradientTerm>> gradient(in_size);
    for (const auto& [key, list] : by_pair) {
        const auto [s, t] = key;
        const int m = degrees[s], n = degrees[t];
        const size_t first_row = rows.size();
        for (int p : list) {
            const int k = path_list[3 * p + 2], degree = m + n - 2 * k, out = path_slot[p];
            for (int l = 0; l <= degree; ++l) {
                const int sum = l + k, low = std::max(0, sum - n), high = s == t ? sum / 2 : std::min(m, sum);
                TransvectantRow row{offset[s] + low,
                                    offset[t] + sum - low,
                                    high - low + 1,
                                    static_cast<int>(coefficients.size()),
                                    out_begin[out] + l,
                                    p - path_begin[out],
                                    0};
                row.place = rows_before[row.out] + row.path;
                for (int i = low; i <= high; ++i) {
                    const int j = sum - i, c = static_cast<int>(coefficients.size());
                    // One slot twice: the entries (i, j) and (j, i) come together. For odd k they cancel.
                    const double* T = tables.data() + table_begin[p];
                    const double value = T[i * (n + 1) + j] + (s == t && i != j ? T[j * (n + 1) + i] : 0.0);
                    coefficients.push_back(value);
                    gradient[offset[s] + i].push_back({row.place, c, offset[t] + j});
                    gradient[offset[t] + j].push_back({row.place, c, offset[s] + i});
                }
                rows.push_back(row);
                placed[row.place] = row;
            }
        }
        const auto diagonal = [&](const TransvectantRow& row) { return row.first - offset[s] + row.second - offset[t]; };
        std::stable_sort(rows.begin() + first_row, rows.end(), [&](const auto& a, const auto& b) { return diagonal(a) < diagonal(b); });
        for (size_t begin = first_row, end; begin < rows.size(); begin = end) {
            for (end = begin; end < rows.size() && diagonal(rows[end]) == diagonal(rows[begin]);) ++end;
            const TransvectantRow& row = rows[begin];
            for (int skip = 0; skip < row.count; skip += kTransvectantEntries)
                antidiagonals.push_back({row.first + skip, row.second - skip, std::min(row.count - skip, kTransvectantEntries), skip,
                                         static_cast<int>(begin), static_cast<int>(end)});
        }
    }
    for (const auto& list : gradient) {
        gradient_begin.push_back(static_cast<int>(gradient_terms.size()));
        gradient_terms.insert(gradient_terms.end(), list.begin(), list.end());
    }
    gradient_begin.push_back(static_cast<int>(gradient_terms.size()));
    coefficients32.assign(coefficients.begin(), coefficients.end());
}

}  // namespace isotypic
