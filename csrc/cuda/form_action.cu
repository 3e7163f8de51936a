// form_action on a device: one form to a thread, its coefficients in local memory.
//
// 5 d^2 / 2 multiply-adds and 2 (d + 1) + 4 numbers moved a form: bound by memory below degree 20 or so on every target. Rows of d + 1
// numbers are read and written through shared memory, so that a warp's accesses are to neighbouring addresses.
#include "ops/form_action.hpp"

#include <string>

#include "core/forms.hpp"
#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kFormsOfBlock = 64;

template <class T, int Capacity>
__global__ void __launch_bounds__(kFormsOfBlock) act(const T* p, const T* g, T* y, int64_t count, int degree) {
    T* rows = reinterpret_cast<T*>(shared_memory());
    const int width = degree + 1;
    const int64_t first = static_cast<int64_t>(block_index()) * kFormsOfBlock;
    const int forms_here = static_cast<int>(count - first < kFormsOfBlock ? count - first : kFormsOfBlock);
    for (int i = thread_index(); i < forms_here * width; i += kFormsOfBlock) rows[i] = p[first * width + i];
    __syncthreads();
    if (thread_index() < forms_here) {
        T* mine = rows + thread_index() * width;
        const T* matrix = g + (first + thread_index()) * 4;
        T coefficients[Capacity + 1], r[Capacity + 2], u[Capacity + 2];
        for (int i = 0; i < width; ++i) coefficients[i] = mine[i];
        forms::horner<T>(degree, coefficients, matrix[0], matrix[1], matrix[2], matrix[3], r, u);
        for (int i = 0; i < width; ++i) mine[i] = r[i];
    }
    __syncthreads();
    for (int i = thread_index(); i < forms_here * width; i += kFormsOfBlock) y[first * width + i] = rows[i];
}

template <class T>
void run_action(const View& p, const View& g, const View& y, void* stream) {
    const int64_t count = p.sizes[0];
    const int degree = static_cast<int>(p.sizes[1]) - 1;
    if (count == 0) return;
    if (degree > kMaxDegree)
        throw std::runtime_error("form_action: the degree must be at most " + std::to_string(kMaxDegree) + " on a CUDA device, got " +
                                 std::to_string(degree));
    const auto kernel = degree <= 20 ? act<T, 20> : act<T, kMaxDegree>;
    const unsigned grid = static_cast<unsigned>((count + kFormsOfBlock - 1) / kFormsOfBlock);
    launch("form_action", kernel, grid, kFormsOfBlock, sizeof(T) * kFormsOfBlock * (degree + 1), stream, static_cast<const T*>(p.data),
           static_cast<const T*>(g.data), static_cast<T*>(y.data), count, degree);
}

}  // namespace

void form_action(const View& p, const View& g, const View& y, void* stream) {
    if (p.dtype == DType::float64)
        run_action<double>(p, g, y, stream);
    else
        run_action<float>(p, g, y, stream);
}

}  // namespace cuda
}  // namespace isotypic
