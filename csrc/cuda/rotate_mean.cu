// rotate_mean on a device: one point to a thread, and for the derivative in the matrices one matrix to a warp.
//
// 4 d bytes a point and sample against 2 d^2 flops: bound by memory, 12 bytes for d = 3 in float32. Neighbouring threads read neighbouring
// points. Sums over points run in each lane first and then over the lanes in a fixed order, so that they are the same every time.
#include "ops/rotate_mean.hpp"

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kPointThreads = 128;

template <class T, int D>
__global__ void __launch_bounds__(kPointThreads) sum(const T* r, const T* y, T scale, T* x, int64_t batch, int64_t k, int64_t n) {
    const int64_t at = static_cast<int64_t>(block_index()) * kPointThreads + thread_index();
    if (at >= batch * n) return;
    const int64_t b = at / n, i = at % n;
    T total[D] = {};
    for (int64_t j = 0; j < k; ++j) {
        const T *m = r + (b * k + j) * D * D, *v = y + ((b * k + j) * n + i) * D;
        T in[D];
        for (int c = 0; c < D; ++c) in[c] = v[c];
        for (int a = 0; a < D; ++a)
            for (int c = 0; c < D; ++c) total[a] += m[a * D + c] * in[c];
    }
    for (int a = 0; a < D; ++a) x[at * D + a] = scale * total[a];
}

template <class T, int D>
__global__ void __launch_bounds__(kPointThreads) each(const T* r, const T* x, T scale, T* y, int64_t batch, int64_t k, int64_t n) {
    const int64_t at = static_cast<int64_t>(block_index()) * kPointThreads + thread_index();
    if (at >= batch * k * n) return;
    const int64_t matrix = at / n, b = matrix / k, i = at % n;
    const T *m = r + matrix * D * D, *v = x + (b * n + i) * D;
    for (int c = 0; c < D; ++c) {
        T total = 0;
        for (int a = 0; a < D; ++a) total += m[a * D + c] * v[a];
        y[at * D + c] = scale * total;
    }
}

// A block of one warp has one matrix; lanes meet in shared memory.
template <class T, int D>
__global__ void __launch_bounds__(32) outer(const T* x, const T* y, T scale, T* r, int64_t k, int64_t n) {
    T* const sums = reinterpret_cast<T*>(shared_memory());
    const int64_t matrix = block_index(), b = matrix / k;
    T total[D * D] = {};
    for (int64_t i = thread_index(); i < n; i += 32) {
        const T *u = x + (b * n + i) * D, *v = y + (matrix * n + i) * D;
        for (int a = 0; a < D; ++a)
            for (int c = 0; c < D; ++c) total[a * D + c] += u[a] * v[c];
    }
    for (int e = 0; e < D * D; ++e) sums[e * 32 + thread_index()] = total[e];
    __syncthreads();
    for (int e = thread_index(); e < D * D; e += 32) {
        T whole = 0;
        for (int lane = 0; lane < 32; ++lane) whole += sums[e * 32 + lane];
        r[matrix * D * D + e] = scale * whole;
    }
}

template <class T>
void run_sum(const View& r, const View& y, double scale, const View& x, void* stream) {
    const int64_t batch = y.sizes[0], k = y.sizes[1], n = y.sizes[2], d = y.sizes[3];
    const auto kernel = d == 2 ? sum<T, 2> : d == 3 ? sum<T, 3> : sum<T, 4>;
    launch("rotate_mean", kernel, (batch * n + kPointThreads - 1) / kPointThreads, kPointThreads, 0, stream, static_cast<const T*>(r.data),
           static_cast<const T*>(y.data), static_cast<T>(scale), static_cast<T*>(x.data), batch, k, n);
}
template <class T>
void run_each(const View& r, const View& x, double scale, const View& y, void* stream) {
    const int64_t batch = y.sizes[0], k = y.sizes[1], n = y.sizes[2], d = y.sizes[3];
    const auto kernel = d == 2 ? each<T, 2> : d == 3 ? each<T, 3> : each<T, 4>;
    launch("rotate_mean", kernel, (batch * k * n + kPointThreads - 1) / kPointThreads, kPointThreads, 0, stream,
           static_cast<const T*>(r.data), static_cast<const T*>(x.data), static_cast<T>(scale), static_cast<T*>(y.data), batch, k, n);
}
template <class T>
void run_outer(const View& x, const View& y, double scale, const View& r, void* stream) {
    const int64_t batch = y.sizes[0], k = y.sizes[1], n = y.sizes[2], d = y.sizes[3];
    const auto kernel = d == 2 ? outer<T, 2> : d == 3 ? outer<T, 3> : outer<T, 4>;
    launch("rotate_mean", kernel, batch * k, 32, sizeof(T) * 32 * d * d, stream, static_cast<const T*>(x.data),
           static_cast<const T*>(y.data), static_cast<T>(scale), static_cast<T*>(r.data), k, n);
}

}  // namespace

void rotate_sum(const View& r, const View& y, double scale, const View& x, void* stream) {
    y.dtype == DType::float64 ? run_sum<double>(r, y, scale, x, stream) : run_sum<float>(r, y, scale, x, stream);
}
void rotate_each(const View& r, const View& x, double scale, const View& y, void* stream) {
    y.dtype == DType::float64 ? run_each<double>(r, x, scale, y, stream) : run_each<float>(r, x, scale, y, stream);
}
void rotate_outer(const View& x, const View& y, double scale, const View& r, void* stream) {
    y.dtype == DType::float64 ? run_outer<double>(x, y, scale, r, stream) : run_outer<float>(x, y, scale, r, stream);
}
// Two kernels: a warp that has a matrix is not the block that has a point.
void rotate_both(const View& x, const View& r, const View& y, double scale, const View& to_r, const View& to_y, void* stream) {
    rotate_outer(x, y, scale, to_r, stream);
    rotate_each(r, x, scale, to_y, stream);
}

}  // namespace cuda
}  // namespace isotypic
