// Driver of the CPU kernels of max_pool: a part of x, which is a plane or all planes of a sample, to a thread.
#include "ops/max_pool.hpp"

#include <algorithm>
#include <atomic>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/max_pool_kernel.hpp"

namespace isotypic::cpu {
namespace {

int threads_for(const MaxPoolSizes& sizes) {
    return static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(sizes.outer, 1)));
}

}  // namespace

void max_pool(const MaxPoolSizes& sizes, const View& x, const View& y, int32_t* index) {
    const MaxPoolKernel& kernel = ISOTYPIC_SELECT_ISA(max_pool_kernel);
    const int threads = threads_for(sizes);
    const Scratch scratch(kernel.forward_scratch(sizes), threads);
    ask_for_large_pages(y);
    parallel_for(sizes.outer, threads,
                 [&](int64_t outer, int thread) { kernel.forward(sizes, x.dtype, x.data, y.data, index, outer, scratch.part(thread)); });
}

bool max_pool_scatter(const MaxPoolSizes& sizes, const View& g, const int32_t* index, const View& x) {
    const MaxPoolKernel& kernel = ISOTYPIC_SELECT_ISA(max_pool_kernel);
    const int threads = threads_for(sizes);
    const Scratch scratch(itemsize(g.dtype) == 2 ? kernel.scatter_scratch(sizes) : 0, threads);
    std::atomic<bool> inside{true};
    ask_for_large_pages(x);
    parallel_for(sizes.outer, threads, [&](int64_t outer, int thread) {
        if (!kernel.scatter(sizes, g.dtype, g.data, index, x.data, outer, scratch.part(thread))) inside = false;
    });
    return inside;
}

bool max_pool_select(const MaxPoolSizes& sizes, const View& x, const int32_t* index, const View& y) {
    const MaxPoolKernel& kernel = ISOTYPIC_SELECT_ISA(max_pool_kernel);
    std::atomic<bool> inside{true};
    parallel_for(sizes.outer, threads_for(sizes), [&](int64_t outer, int) {
        if (!kernel.select(sizes, x.dtype, x.data, index, y.data, outer)) inside = false;
    });
    return inside;
}

}  // namespace isotypic::cpu
