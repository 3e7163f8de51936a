// Driver of the CPU kernels of multivector_scale: hands runs of multivectors or of items to the threads.
#include "cpu/multivector_scale_kernel.hpp"

#include <algorithm>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 1024;      // multivectors to an item of work, about
constexpr int64_t kMostParts = 16;  // of the sum over items of a gradient; fixed, so that threads do not change the result
constexpr int64_t kLeastPart = 64;  // items
constexpr int kGradeOf[16] = {0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4};

template <class T>
const MultivectorScaleKernel<T>& kernel_of();
template <>
const MultivectorScaleKernel<float>& kernel_of<float>() {
    return ISOTYPIC_SELECT_ISA(multivector_scale_kernels).float32;
}
template <>
const MultivectorScaleKernel<double>& kernel_of<double>() {
    return ISOTYPIC_SELECT_ISA(multivector_scale_kernels).float64;
}

template <class T>
T* data(const View& view) {
    return static_cast<T*>(view.data);
}

// body(first, count) for runs of about kRun multivectors out of `count` items of `channels`.
template <class Body>
void in_runs(int64_t count, int64_t channels, const Body& body) {
    const int64_t step = std::max<int64_t>(1, kRun / std::max<int64_t>(channels, 1)), runs = (count + step - 1) / step;
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(runs, 1)));
    parallel_for(runs, threads, [&](int64_t run, int) { body(run * step, std::min(step, count - run * step)); });
}

template <class T>
void gate(const View& x, const View& factor, const View& y) {
    in_runs(x.sizes[0], 1,
            [&](int64_t m, int64_t count) { kernel_of<T>().gate(count, data<T>(x) + m * 16, data<T>(factor) + m, data<T>(y) + m * 16); });
}

template <class T>
void gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx) {
    in_runs(x.sizes[0], 1, [&](int64_t m, int64_t count) {
        kernel_of<T>().gate_backward(count, data<T>(g) + m * 16, data<T>(x) + m * 16, data<T>(factor) + m, data<T>(slope) + m,
                                     data<T>(dx) + m * 16);
    });
}

// The weights (C, 5) of grades as those of components, or null.
template <class T>
const T* spread(const View& weight, const Scratch& to) {
    if (!weight.defined()) return nullptr;
    T* p = reinterpret_cast<T*>(to.part(0));
    for (int64_t i = 0; i < weight.sizes[0] * 16; ++i) p[i] = data<T>(weight)[i / 16 * 5 + kGradeOf[i % 16]];
    return p;
}

template <class T>
void norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y) {
    const int64_t C = x.sizes[1], size = C * 16;
    const Scratch weights(weight.defined() ? size * static_cast<int64_t>(sizeof(T)) : 0);
    const T* of_components = spread<T>(weight, weights);
    in_runs(x.sizes[0], C, [&](int64_t n, int64_t count) {
        kernel_of<T>().norm(inner, static_cast<T>(epsilon), count, C, data<T>(x) + n * size, of_components, data<T>(y) + n * size);
    });
}

template <class T>
void norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight, const View& dx,
                   const View& dweight) {
    const int64_t N = x.sizes[0], C = x.sizes[1], size = C * 16;
    const int64_t parts = std::max<int64_t>(1, std::min(kMostParts, N / kLeastPart)), step = (N + parts - 1) / parts;
    const bool weighted = weight.defined();
    const Scratch weights(weighted ? size * static_cast<int64_t>(sizeof(T)) : 0);
    const Scratch sums(weighted ? size * static_cast<int64_t>(sizeof(T)) : 0, parts);
    const T* of_components = spread<T>(weight, weights);
    const int threads = static_cast<int>(std::min<int64_t>(max_threads(), parts));
    parallel_for(parts, threads, [&](int64_t part, int) {
        T* total = weighted ? reinterpret_cast<T*>(sums.part(part)) : nullptr;
        if (total) std::fill(total, total + size, T{});
        const int64_t n = part * step, count = std::min(step, N - n);
        if (count > 0)
            kernel_of<T>().norm_backward(inner, static_cast<T>(epsilon), count, C, data<T>(g) + n * size, data<T>(x) + n * size,
                                         of_components, data<T>(dx) + n * size, total);
    });
    if (!weighted) return;
    T* result = data<T>(dweight);
    std::fill(result, result + C * 5, T{});
    for (int64_t part = 0; part < parts; ++part) {
        const T* more = reinterpret_cast<const T*>(sums.part(part));
        for (int64_t i = 0; i < size; ++i) result[i / 16 * 5 + kGradeOf[i % 16]] += more[i];
    }
}

}  // namespace

void multivector_gate(const View& x, const View& factor, const View& y) {
    ask_for_large_pages(y);
    x.dtype == DType::float64 ? gate<double>(x, factor, y) : gate<float>(x, factor, y);
}

void multivector_gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx) {
    ask_for_large_pages(dx);
    x.dtype == DType::float64 ? gate_backward<double>(g, x, factor, slope, dx) : gate_backward<float>(g, x, factor, slope, dx);
}

void multivector_norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y) {
    ask_for_large_pages(y);
    x.dtype == DType::float64 ? norm<double>(inner, epsilon, x, weight, y) : norm<float>(inner, epsilon, x, weight, y);
}

void multivector_norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight,
                               const View& dx, const View& dweight) {
    ask_for_large_pages(dx);
    x.dtype == DType::float64 ? norm_backward<double>(inner, epsilon, g, x, weight, dx, dweight)
                              : norm_backward<float>(inner, epsilon, g, x, weight, dx, dweight);
}

}  // namespace isotypic::cpu
