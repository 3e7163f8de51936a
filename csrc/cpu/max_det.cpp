// Driver of the CPU kernels of max_det: blocks of as many polynomials as a vector has lanes, handed to the threads; witnesses for what has
// no Gram.
#include "ops/max_det.hpp"

#include <algorithm>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/max_det_kernel.hpp"
#include "ops/max_det_solver.hpp"
#include "ops/max_det_witness.hpp"

namespace isotypic::cpu {
namespace {

const MaxDetKernels& kernels(DType dtype) {
    const MaxDetKernelSet& set = ISOTYPIC_SELECT_ISA(max_det_kernels);
    return dtype == DType::float64 ? set.float64 : set.float32;
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

// A point for the rows that are not positive at a node, and a search for those that did not converge.
template <class T>
void write_witness(const T* p, int d, bool single, T* tail) {
    double point[2] = {0, 0};
    if (tail[0] == max_det::kNotPositive || tail[0] == max_det::kUndecided) {
        const double theta = 3.14159265358979323846 * static_cast<double>(tail[2]) / (2 * d + 1);
        const bool found = max_det::witness(p, 2 * d, tail[0] == max_det::kNotPositive, theta, single, point);
        tail[0] = static_cast<T>(found ? max_det::kNotPositive : max_det::kUndecided);
    }
    tail[2] = static_cast<T>(point[0]), tail[3] = static_cast<T>(point[1]);
}

}  // namespace

void max_det(const View& p, const View& tables, bool single, const View& solution) {
    ask_for_large_pages(solution);
    MaxDetCall call{};
    call.d = static_cast<int>(p.sizes[1] / 2), call.batch = p.sizes[0];
    call.p = p.data, call.tables = tables.data, call.out = solution.data;
    const MaxDetKernels& k = kernels(p.dtype);
    const int64_t m = p.sizes[1], width = solution.sizes[1];
    auto witnesses = [&](int64_t block, const auto* forms, auto* out) {
        for (int64_t row = block * k.lanes; row < std::min((block + 1) * k.lanes, call.batch); ++row)
            write_witness(forms + row * m, call.d, single || p.dtype == DType::float32, out + (row + 1) * width - 4);
    };
    for_each_block(k, call, [&](int64_t block, void* workspace) {
        k.solve(call, block, workspace);
        if (p.dtype == DType::float64)
            witnesses(block, static_cast<const double*>(p.data), static_cast<double*>(solution.data));
        else
            witnesses(block, static_cast<const float*>(p.data), static_cast<float*>(solution.data));
    });
}

void max_det_adjoint(const View& gram, const View& matrix, const View& form, const View& tables, const View& result) {
    ask_for_large_pages(result);
    MaxDetCall call{};
    call.d = static_cast<int>(gram.sizes[1] - 1), call.batch = gram.sizes[0];
    call.gram = gram.data, call.tables = tables.data, call.out = result.data;
    call.matrix = matrix.defined() ? matrix.data : nullptr;
    call.form = form.defined() ? form.data : nullptr;
    const MaxDetKernels& k = kernels(gram.dtype);
    for_each_block(k, call, [&](int64_t block, void* workspace) { k.adjoint(call, block, workspace); });
}

}  // namespace isotypic::cpu
