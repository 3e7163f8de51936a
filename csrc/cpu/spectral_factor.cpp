// Driver of the CPU kernels of spectral_factor: blocks of as many rows as a vector has lanes, handed to the threads.
#include "ops/spectral_factor.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/spectral_factor_kernel.hpp"

namespace isotypic::cpu {
namespace {

void for_each_block(const SpectralProblem& problem, void (*work)(const SpectralProblem&, int64_t, void*)) {
    const SpectralKernels& k = ISOTYPIC_SELECT_ISA(spectral_factor_kernels);
    const int64_t blocks = (problem.batch + k.lanes - 1) / k.lanes;
    if (blocks == 0) return;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), blocks));
    const Scratch workspace(k.workspace(problem.taps), threads);
    parallel_for(blocks, threads, [&](int64_t block, int thread) { work(problem, block, workspace.part(thread)); });
}

const double* read(const View& view) {
    return static_cast<const double*>(view.data);
}

}  // namespace

void spectral_factor(const View& r, const View& h, const View& error) {
    SpectralProblem problem{};
    problem.batch = r.sizes[0], problem.taps = r.sizes[1], problem.r = read(r);
    problem.out = static_cast<double*>(h.data), problem.error = static_cast<double*>(error.data);
    for_each_block(problem, ISOTYPIC_SELECT_ISA(spectral_factor_kernels).factor);
}

void spectral_solve(const View& h, const View& b, bool transposed, const View& x) {
    SpectralProblem problem{};
    problem.batch = h.sizes[0], problem.taps = h.sizes[1], problem.h = read(h), problem.b = read(b);
    problem.out = static_cast<double*>(x.data), problem.transposed = transposed;
    for_each_block(problem, ISOTYPIC_SELECT_ISA(spectral_factor_kernels).solve);
}

}  // namespace isotypic::cpu
