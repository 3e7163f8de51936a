// Driver of the CPU kernels of rotate_mean: hands runs of points to the threads.
#include "ops/rotate_mean.hpp"

#include <algorithm>

#include "core/large_pages.hpp"
#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "core/streaming.hpp"
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

    // Whether a result like y is written past the caches: where every sample is aligned.
    bool past() const { return streams(y, batch * k * n * d * itemsize_of()) && n * d * itemsize_of() % 64 == 0; }
    static constexpr int64_t itemsize_of() { return static_cast<int64_t>(sizeof(T)); }

    // work(kernel, r, x, y, points, workspace): of one b, at its first point; items are runs of points, or all points of one b.
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
    const bool past = call.past();
    call.run(false, [&](const RotateKernel<T>& kernel, const T* r_b, const T* x_b, T* y_b, int64_t points, T* workspace) {
        kernel.each[past](call.d, call.k, points, r_b, x_b, static_cast<T>(scale), y_b, call.n * call.d, workspace);
    });
}

// work(first point, points, add) for runs of all n points, once where there are none.
template <class Work>
void for_runs(int64_t n, const Work& work) {
    for (int64_t first = 0; first == 0 || first < n; first += kRotatePoints) work(first, std::min(kRotatePoints, n - first), first > 0);
}

template <class T>
void outer(const View& x, const View& y, double scale, const View& r) {
    const Call<T> call(r, x, y);
    call.run(true, [&](const RotateKernel<T>& kernel, T* r_b, const T* x_b, const T* y_b, int64_t, T* workspace) {
        for_runs(call.n, [&](int64_t first, int64_t points, bool add) {
            kernel.outer(call.d, call.k, points, x_b + first * call.d, y_b + first * call.d, call.n * call.d, static_cast<T>(scale), add,
                         r_b, workspace);
        });
    });
}

template <class T>
void both(const View& x, const View& r, const View& y, double scale, const View& to_r, const View& to_y) {
    const Call<T> call(r, x, to_y);
    const bool past = call.past();
    const T *from = static_cast<const T*>(y.data), *matrices = static_cast<const T*>(r.data);
    T* const sums = static_cast<T*>(to_r.data);
    call.run(true, [&](const RotateKernel<T>& kernel, const T* r_b, const T* x_b, T* y_b, int64_t, T* workspace) {
        const T* const from_b = from + (y_b - call.y);
        T* const sums_b = sums + (r_b - matrices);
        for_runs(call.n, [&](int64_t first, int64_t points, bool add) {
            const int64_t at = first * call.d;
            kernel.both[past](call.d, call.k, points, r_b, x_b + at, from_b + at, static_cast<T>(scale), y_b + at, call.n * call.d, add,
                              sums_b, workspace);
        });
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
void rotate_both(const View& x, const View& r, const View& y, double scale, const View& to_r, const View& to_y) {
    ask_for_large_pages(to_y);
    y.dtype == DType::float64 ? both<double>(x, r, y, scale, to_r, to_y) : both<float>(x, r, y, scale, to_r, to_y);
}

}  // namespace isotypic::cpu
