// Driver of the CPU kernels of form_action: hands runs of forms to the threads.
#include "ops/form_action.hpp"

#include <algorithm>
#include <vector>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/form_action_kernel.hpp"
#include "cpu/isa.hpp"
#include "ops/form_action_horner.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 256;  // forms to an item of work

const FormActionKernels& kernel_set() {
    return ISOTYPIC_SELECT_ISA(form_action_kernels);
}

template <class T>
const FormActionKernel<T>& kernel_of();
template <>
const FormActionKernel<float>& kernel_of<float>() {
    return kernel_set().float32;
}
template <>
const FormActionKernel<double>& kernel_of<double>() {
    return kernel_set().float64;
}

// work(kernel, first form, forms, workspace) for runs of forms.
template <class T, class Work>
void run(const View& forms, const Work& work) {
    const FormActionKernel<T>& kernel = kernel_of<T>();
    const int64_t count = forms.sizes[0], items = (count + kRun - 1) / kRun;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
    const Scratch workspace(4 * forms.sizes[1] * kernel.lanes * static_cast<int64_t>(sizeof(T)), threads);
    parallel_for(items, threads, [&](int64_t item, int thread) {
        const int64_t first = item * kRun;
        work(kernel, first, std::min(kRun, count - first), reinterpret_cast<T*>(workspace.part(thread)));
    });
}

template <class T>
void act(const View& p, const View& g, const View& y) {
    const int64_t width = p.sizes[1];
    run<T>(p, [&](const FormActionKernel<T>& kernel, int64_t first, int64_t count, T* workspace) {
        kernel.act(static_cast<int>(width) - 1, count, static_cast<const T*>(p.data) + first * width,
                   static_cast<const T*>(g.data) + first * 4, static_cast<T*>(y.data) + first * width, workspace);
    });
}

template <class T>
void adjoint(const View& z, const View& g, const View& p) {
    const int64_t width = z.sizes[1];
    std::vector<T> binomials(static_cast<size_t>(width));
    forms::binomials(static_cast<int>(width) - 1, binomials.data());
    run<T>(z, [&](const FormActionKernel<T>& kernel, int64_t first, int64_t count, T* workspace) {
        kernel.adjoint(static_cast<int>(width) - 1, count, static_cast<const T*>(z.data) + first * width,
                       static_cast<const T*>(g.data) + first * 4, binomials.data(), static_cast<T*>(p.data) + first * width, workspace);
    });
}

template <class T>
void matrix(const View& p, const View& g, const View& z, const View& r) {
    const int64_t width = p.sizes[1];
    run<T>(p, [&](const FormActionKernel<T>& kernel, int64_t first, int64_t count, T* workspace) {
        kernel.matrix(static_cast<int>(width) - 1, count, static_cast<const T*>(p.data) + first * width,
                      static_cast<const T*>(g.data) + first * 4, static_cast<const T*>(z.data) + first * width,
                      static_cast<T*>(r.data) + first * 4, workspace);
    });
}

}  // namespace

void form_action(const View& p, const View& g, const View& y) {
    ask_for_large_pages(y);
    p.dtype == DType::float64 ? act<double>(p, g, y) : act<float>(p, g, y);
}

void form_action_adjoint(const View& z, const View& g, const View& p) {
    ask_for_large_pages(p);
    z.dtype == DType::float64 ? adjoint<double>(z, g, p) : adjoint<float>(z, g, p);
}

void form_action_matrix(const View& p, const View& g, const View& z, const View& r) {
    p.dtype == DType::float64 ? matrix<double>(p, g, z, r) : matrix<float>(p, g, z, r);
}

}  // namespace isotypic::cpu
