// Driver of the CPU kernels of rotate_mean: hands runs of points to the threads.
#include "ops/rotate_mean.hpp"

#include <algorithm>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/rotate_mean_kernel.hpp"

namespace isotypic::cpu {
namespace {

template <class T>
const RotateKernel<T>& kernel_of();
template <>
const RotateKernel<float>& kernel_of<float>() {
    return ISOTYPIC_SELECT_ISA(rotate_mean_kernels).float32;
}
template <>
const RotateKernel<double>& kernel_of<double>() {
    return ISOTYPIC_SELECT_ISA(rotate_mean_kernels).float64;
}

template <class T>
struct Call {
    int64_t batch, k, n;
    int d;
    T *r, *x, *y;
    Call(const View& r_, const View& x_, const View& y_)
        : batch(y_.sizes[0]),
          k(y_.sizes[1]),
          n(y_.sizes[2]),
          d(static_cast<int>(y_.sizes[3])),
          r(static_cast<T*>(r_.data)),
          x(static_cast<T*>(x_.data)),
          y(static_cast<T*>(y_.data)) {}

    // work(kernel, r, x, y, points, first, workspace): of one b, at its first point; items are runs of points, or all points of one b.
    template <class Work>
    void run(bool whole, const Work& work) const {
        const int64_t runs = whole ? 1 : (n + kRotatePoints - 1) / kRotatePoints, items = batch * runs;
        const int threads = static_cast<int>(std::min<int64_t>(max_threads(), std::max<int64_t>(items, 1)));
        const Scratch workspace(4 * kRotatePoints * static_cast<int64_t>(sizeof(T)), threads);
        parallel_for(items, threads, [&](int64_t item, int thread) {
            const int64_t b = item / runs, first = item % runs * kRotatePoints;
            work(kernel_of<T>(), r + b * k * d * d, x + (b * n + first) * d, y + (b * k * n + first) * d,
                 std::min(kRotatePoints, n - first), reinterpret_cast<T*>(workspace.part(thread)));
        });
    }
};

template <class T>
void sum(const View& r, const View& y, double scale, const View& x) {
    const Call<T> call(r, x, y);
    call.run(false, [&](const RotateKernel<T>& kernel, const T* r_b, T* x_b, const T* y_b, int64_t points, T* workspace) {
        kernel.sum(call.d, call.k, points, r_b, y_b, call.n * call.d, static_cast<T>(scale), x_b, workspace);
    });
}

template <class T>
void each(const View& r, const View& x, double scale, const View& y) {
    const Call<T> call(r, x, y);
    call.run(false, [&](const RotateKernel<T>& kernel, const T* r_b, const T* x_b, T* y_b, int64_t points, T* workspace) {
        kernel.each(call.d, call.k, points, r_b, x_b, static_cast<T>(scale), y_b, call.n * call.d, workspace);
    });
}

template <class T>
void outer(const View& x, const View& y, double scale, const View& r) {
    const Call<T> call(r, x, y);
    call.run(true, [&](const RotateKernel<T>& kernel, T* r_b, const T* x_b, const T* y_b, int64_t, T* workspace) {
        for (int64_t first = 0; first == 0 || first < call.n; first += kRotatePoints)
            kernel.outer(call.d, call.k, std::min(kRotatePoints, call.n - first), x_b + first * call.d, y_b + first * call.d,
                         call.n * call.d, static_cast<T>(scale), first > 0, r_b, workspace);
    });
}

}  // namespace

void rotate_sum(const View& r, const View& y, double scale, const View& x) {
    y.dtype == DType::float64 ? sum<double>(r, y, scale, x) : sum<float>(r, y, scale, x);
}
void rotate_each(const View& r, const View& x, double scale, const View& y) {
    ask_for_large_pages(y);
    y.dtype == DType::float64 ? each<double>(r, x, scale, y) : each<float>(r, x, scale, y);
}
void rotate_outer(const View& x, const View& y, double scale, const View& r) {
    y.dtype == DType::float64 ? outer<double>(x, y, scale, r) : outer<float>(x, y, scale, r);
}

}  // namespace isotypic::cpu
