// Driver of the CPU kernels of spectral_factor: blocks of as many rows as a vector has lanes, handed to the threads.
#include "ops/spectral_factor.hpp"

#include <algorithm>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/spectral_factor_kernel.hpp"

namespace isotypic::cpu {
namespace {

void for_each_block(const SpectralCall& call, void (*work)(const SpectralCall&, int64_t, void*)) {
    const SpectralKernels& k = ISOTYPIC_SELECT_ISA(spectral_factor_kernels);
    const int64_t blocks = (call.batch + k.lanes - 1) / k.lanes;
    if (blocks == 0) return;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), blocks));
    const Scratch workspace(k.workspace(call.taps), threads);
    parallel_for(blocks, threads, [&](int64_t block, int thread) { work(call, block, workspace.part(thread)); });
}

const double* read(const View& view) {
    return static_cast<const double*>(view.data);
}

}  // namespace

void spectral_factor(const View& r, const View& h, const View& error) {
    SpectralCall call{};
    call.batch = r.sizes[0], call.taps = r.sizes[1], call.r = read(r);
    call.out = static_cast<double*>(h.data), call.error = static_cast<double*>(error.data);
    for_each_block(call, ISOTYPIC_SELECT_ISA(spectral_factor_kernels).factor);
}

void spectral_solve(const View& h, const View& b, bool transposed, const View& x) {
    SpectralCall call{};
    call.batch = h.sizes[0], call.taps = h.sizes[1], call.h = read(h), call.b = read(b);
    call.out = static_cast<double*>(x.data), call.transposed = transposed;
    for_each_block(call, ISOTYPIC_SELECT_ISA(spectral_factor_kernels).solve);
}

}  // namespace isotypic::cpu
