// Driver of the CPU kernels of max_det: blocks of as many polynomials as a vector has lanes, handed to the threads; witnesses for what has
// no Gram.
#include "ops/max_det.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/max_det_kernel.hpp"
#include "ops/max_det_solver.hpp"
#include "ops/max_det_witness.hpp"

namespace isotypic::cpu {
namespace {

const MaxDetKernels& kernels() {
    return ISOTYPIC_SELECT_ISA(max_det_kernels);
}

template <class Work>
void for_each_block(const MaxDetKernels& k, const MaxDetCall& call, const Work& work) {
    const int64_t blocks = (call.batch + k.lanes - 1) / k.lanes;
    if (blocks == 0) return;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), blocks));
    const Scratch workspace(k.workspace(call.d), threads);
    std::fill_n(workspace.get(), workspace.stride() * threads, char{0});
    parallel_for(blocks, threads, [&](int64_t block, int thread) { work(block, workspace.part(thread)); });
}

// The rows that the first pass has marked, once more.
template <class Marked, class Work>
void for_each_marked(const MaxDetKernels& k, MaxDetCall call, const Marked& marked, const Work& work) {
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < call.batch; ++row)
        if (marked(row)) rows.push_back(row);
    call.rows = rows.data(), call.batch = static_cast<int64_t>(rows.size());
    for_each_block(k, call, [&](int64_t block, void* workspace) { work(call, block, workspace); });
}

// A point for the rows that are not positive at a node, and a search for those of which it is open, unless this is the quick pass.
void write_witness(const double* p, int d, bool single, bool quick, double* tail) {
    double point[2] = {0, 0};
    const bool seen = tail[0] == max_det::kNotPositive, open = tail[0] == max_det::kRefine && tail[3] == 0;
    if (seen || (open && !quick)) {
        const double theta = 3.14159265358979323846 * tail[2] / (2 * d + 1);
        const bool found =
            quick ? max_det::witness_at(p, 2 * d, theta, single, point) : max_det::witness(p, 2 * d, seen, theta, single, point);
        if (found) std::fill(tail - (d + 1) * (d + 1), tail, 0.0);  // weights for the second pass, which there will not be
        if (found || seen) tail[0] = found ? max_det::kNotPositive : quick ? max_det::kRefine : max_det::kUndecided;
        if (!found) point[0] = point[1] = 0;
    }
    tail[2] = point[0], tail[3] = point[1];
}

void solve_form(const MaxDetCall& call) {
    const MaxDetKernels& k = kernels();
    const int64_t m = 2 * call.d + 1, width = (call.d + 1) * (call.d + 1) + 5;
    const double* forms = static_cast<const double*>(call.p);
    double* solution = static_cast<double*>(call.out);
    for_each_block(k, call, [&](int64_t block, void* workspace) {
        k.solve(call, block, workspace);
        for (int64_t row = block * k.lanes; row < std::min((block + 1) * k.lanes, call.batch); ++row)
            write_witness(forms + row * m, call.d, call.single, call.quick, solution + (row + 1) * width - 5);
    });
    if (call.quick) return;
    for_each_marked(k, call, [&](int64_t row) { return solution[(row + 1) * width - 5] == max_det::kRefine; }, k.solve_again);
}

void differentiate(const MaxDetCall& call) {
    const MaxDetKernels& k = kernels();
    const double* result = static_cast<const double*>(call.out);
    const int64_t m = 2 * call.d + 1;
    for_each_block(k, call, [&](int64_t block, void* workspace) { k.adjoint(call, block, workspace); });
    for_each_marked(k, call, [&](int64_t row) { return std::isnan(result[row * m]); }, k.adjoint_again);
}

}  // namespace

void max_det(const View& p, const View& tables, bool single, bool candidates, bool quick, const View& solution) {
    ask_for_large_pages(solution);
    MaxDetCall call{};
    call.d = static_cast<int>(p.sizes[1] / 2), call.batch = p.sizes[0];
    call.p = p.data, call.tables = tables.data, call.out = solution.data;
    call.single = single, call.candidates = candidates, call.quick = quick;
    solve_form(call);
}

void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result) {
    ask_for_large_pages(result);
    MaxDetCall call{};
    call.d = static_cast<int>(gram.sizes[1] - 1), call.batch = gram.sizes[0];
    call.gram = gram.data, call.tables = tables.data, call.out = result.data;
    call.matrix = matrix.defined() ? matrix.data : nullptr;
    call.form = form.defined() ? form.data : nullptr;
    differentiate(call);
}

void max_det_frame(const View& p, const View& tables, const View& framed) {
    MaxDetCall call{};
    call.d = static_cast<int>(p.sizes[1] / 2), call.batch = p.sizes[0];
    call.p = p.data, call.tables = tables.data, call.out = framed.data;
    const MaxDetKernels& k = kernels();
    for_each_block(k, call, [&](int64_t block, void* workspace) { k.frame(call, block, workspace); });
}

}  // namespace isotypic::cpu
