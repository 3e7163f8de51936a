// sort_sinkhorn on a device: the recursions of ops/sort_sinkhorn_solver.hpp with one sample to a thread.
//
// Arrays lie as (array, node, sample), so that the threads of a warp read neighbouring addresses. A half step is a chain of two
// multiply-adds and a division a node, some 40 cycles of latency: 20 iterations on 64 nodes take 0.1 ms whatever the batch is, up to
// 100,000 samples or so, where memory begins to decide: 16 bytes a node and half step. x and y are read with a stride of n C numbers.
// Nothing here has been measured on a device yet; the emulation checks the arithmetic.
#include "ops/sort_sinkhorn.hpp"

#include <cmath>

#include "cuda/launch.cuh"
#include "ops/sort_sinkhorn_solver.hpp"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kSamplesOfBlock = 32;

template <class T>
struct Functions {
    static DEVICE T exp(T x) { return ::exp(x); }
    static DEVICE T log(T x) { return ::log(x); }
};

template <class T>
struct Call {
    int64_t batch, n, channels;
    const T *t, *x, *y, *w;
    const int64_t* lengths;
    T tau;
    int iterations;
    T *out, *workspace;
};

template <class T, bool gradient>
__global__ void __launch_bounds__(kSamplesOfBlock) samples(Call<T> call) {
    const int64_t b = static_cast<int64_t>(block_index()) * kSamplesOfBlock + thread_index(), n = call.n;
    if (b >= call.batch) return;
    const sinkhorn::Solver<T, T, Functions<T>> solver(n, call.batch, call.iterations, call.tau, call.workspace + b);
    const int64_t given = call.lengths ? call.lengths[b] : n;
    const int64_t length = given < 0 ? 0 : given > n ? n : given;
    const T* t = call.t + b * n;
    for (int64_t i = 0; i < n; ++i) solver.set(i, i < length ? t[i] : T(0), i > 0 && i < length ? t[i - 1] : T(0), T(i < length));
    solver.solve(gradient);
    if (!gradient) {
        const T sum = solver.negative_entropy(solver.u_of(0), solver.v_of(0));
        call.out[b] = length > 0 ? -sum / static_cast<T>(length) : T(0);
        return;
    }
    solver.clear_gradient();
    if (call.w) solver.add_negative_entropy(length > 0 ? -call.w[b] / static_cast<T>(length) : T(0));
    const int64_t channels = call.x ? call.channels : 0;
    for (int64_t c = 0; c < channels; ++c) {
        const T *x = call.x + b * n * channels + c, *y = call.y + b * n * channels + c;
        solver.add_bilinear([&](int64_t i) { return i < length ? x[i * channels] : T(0); },
                            [&](int64_t i) { return i < length ? y[i * channels] : T(0); });
    }
    solver.reverse();
    for (int64_t i = 0; i < n; ++i) call.out[b * n + i] = solver.t_bar[i * call.batch];
}

template <class T>
const T* data_of(const View& view) {
    return view.defined() ? static_cast<const T*>(view.data) : nullptr;
}

template <class T, bool gradient>
void run(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings, const View& out, void* workspace,
         void* stream) {
    Call<T> call{};
    call.batch = t.sizes[0], call.n = t.sizes[1], call.channels = x.defined() ? x.sizes[2] : 0;
    call.t = data_of<T>(t), call.x = data_of<T>(x), call.y = data_of<T>(y), call.w = data_of<T>(w);
    call.lengths = settings.lengths, call.tau = static_cast<T>(settings.tau), call.iterations = settings.iterations;
    call.out = static_cast<T*>(out.data), call.workspace = static_cast<T*>(workspace);
    const int64_t grid = (call.batch + kSamplesOfBlock - 1) / kSamplesOfBlock;
    launch("sort_sinkhorn", samples<T, gradient>, grid, kSamplesOfBlock, 0, stream, call);
}

}  // namespace

int64_t sort_sinkhorn_workspace(const View& t, int iterations, bool gradient) {
    return t.sizes[0] * t.sizes[1] * sinkhorn::arrays(iterations, gradient) * itemsize(t.dtype);
}

void sort_sinkhorn_entropy(const View& t, const SinkhornSettings& settings, const View& entropy, void* workspace, void* stream) {
    t.dtype == DType::float64 ? run<double, false>(t, View{}, View{}, View{}, settings, entropy, workspace, stream)
                              : run<float, false>(t, View{}, View{}, View{}, settings, entropy, workspace, stream);
}

void sort_sinkhorn_gradient(const View& t, const View& x, const View& y, const View& w, const SinkhornSettings& settings,
                            const View& gradient, void* workspace, void* stream) {
    t.dtype == DType::float64 ? run<double, true>(t, x, y, w, settings, gradient, workspace, stream)
                              : run<float, true>(t, x, y, w, settings, gradient, workspace, stream);
}

}  // namespace cuda
}  // namespace isotypic
