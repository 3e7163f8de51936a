// Driver of the CPU kernels of small_matrix: hands runs of matrices to the threads.
#include "ops/small_matrix.hpp"

#include <algorithm>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/small_matrix_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 1024;  // matrices to an item of work, a multiple of every vector

template <class T>
void run(SmallMatrixKernel<T> kernel, small_matrix::Operation operation, const View* in, bool proper, const View* out) {
    const small_matrix::Signature signature = small_matrix::signature_of(operation);
    const View& matrices = in[signature.values_in[0] ? 1 : 0];
    const int64_t count = matrices.sizes[0], d = matrices.sizes[1], items = (count + kRun - 1) / kRun;
    for (int i = 0; i < signature.outputs; ++i) ask_for_large_pages(out[i]);
    parallel_for(items, static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1))), [&](int64_t item, int) {
        const int64_t first = item * kRun;
        const T* from[4] = {};
        T* to[2] = {};
        for (int i = 0; i < signature.inputs; ++i)
            from[i] = static_cast<const T*>(in[i].data) + first * (signature.values_in[i] ? d : d * d);
        for (int i = 0; i < signature.outputs; ++i) to[i] = static_cast<T*>(out[i].data) + first * (signature.values_out[i] ? d : d * d);
        kernel(static_cast<int>(operation), static_cast<int>(d), proper, std::min(kRun, count - first), from, to);
    });
}

}  // namespace

void small_matrix(small_matrix::Operation operation, const View* in, bool proper, const View* out) {
    const SmallMatrixKernels& kernels = ISOTYPIC_SELECT_ISA(small_matrix_kernels);
    in[0].dtype == DType::float64 ? run<double>(kernels.float64, operation, in, proper, out)
                                  : run<float>(kernels.float32, operation, in, proper, out);
}

}  // namespace isotypic::cpu
