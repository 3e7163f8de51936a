// Driver of the CPU kernels of form_action: hands runs of forms to the threads.
#include "ops/form_action.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/parallel.hpp"
#include "cpu/form_action_kernel.hpp"
#include "cpu/isa.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 256;  // forms to an item of work

const FormActionKernels& kernel_set() {
    switch (isa()) {
#if defined(__x86_64__)
        case Isa::avx512:
            return avx512::form_action_kernels();
        case Isa::avx2:
            return avx2::form_action_kernels();
#elif defined(__aarch64__)
        case Isa::neon:
            return neon::form_action_kernels();
#endif
        default:
            return scalar::form_action_kernels();
    }
}

template <class T>
void run(const FormActionKernel<T>& kernel, const View& p, const View& g, const View& y) {
    const int64_t count = p.sizes[0], width = p.sizes[1], items = (count + kRun - 1) / kRun;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
    const int64_t scratch = (3 * width * kernel.lanes * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    const std::unique_ptr<void, decltype(&std::free)> workspace(std::aligned_alloc(64, static_cast<size_t>(scratch * threads)), &std::free);
    if (!workspace) throw std::bad_alloc();
    parallel_for(items, threads, [&](int64_t item, int thread) {
        const int64_t first = item * kRun;
        kernel.run(static_cast<int>(width) - 1, std::min(kRun, count - first), static_cast<const T*>(p.data) + first * width,
                   static_cast<const T*>(g.data) + first * 4, static_cast<T*>(y.data) + first * width,
                   reinterpret_cast<T*>(static_cast<char*>(workspace.get()) + scratch * thread));
    });
}

}  // namespace

void form_action(const View& p, const View& g, const View& y) {
    if (p.dtype == DType::float64) return run<double>(kernel_set().float64, p, g, y);
    run<float>(kernel_set().float32, p, g, y);
}

}  // namespace isotypic::cpu
