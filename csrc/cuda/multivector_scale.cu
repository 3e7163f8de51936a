// multivector_scale on a device: bound by memory, one component to a thread, so that a warp reads two multivectors in a row.
//
// A gate is a product. Its gradient, and the sums of a norm over a grade, meet in shared memory, where a thread adds the numbers of one
// grade of its multivector, six at most. A block has an item's channels for a norm, 16 at a time, and reads them twice, the second time from
// L2. The gradient of the weights is summed in kNormParts parts of the items, then over parts and grades in a fixed order.
// Nothing here has been measured on a device yet; the emulation checks the arithmetic.
#include "ops/multivector_scale.hpp"

#include <cmath>

#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kBlock = 256;  // threads, 16 multivectors

// The inner product, and which components belong to the grade of one.
template <class T>
struct Inner {
    T of[16], epsilon;
    int grade[16], begin[5], end[5];
};

template <class T>
Inner<T> inner_of(const MultivectorInner& inner, double epsilon) {
    constexpr int kBegin[6] = {0, 1, 5, 11, 15, 16};
    Inner<T> result;
    result.epsilon = static_cast<T>(epsilon);
    for (int k = 0; k < 5; ++k) {
        result.begin[k] = kBegin[k];
        result.end[k] = kBegin[k + 1];
        for (int i = kBegin[k]; i < kBegin[k + 1]; ++i) result.grade[i] = k;
    }
    for (int i = 0; i < 16; ++i) result.of[i] = static_cast<T>(inner.of[i]);
    return result;
}

template <class T>
__global__ void __launch_bounds__(kBlock) gates(const T* x, const T* factor, T* y, int64_t numbers) {
    const int64_t at = static_cast<int64_t>(block_index()) * kBlock + thread_index();
    if (at < numbers) y[at] = factor[at / 16] * x[at];
}

template <class T>
__global__ void __launch_bounds__(kBlock) gate_slopes(const T* g, const T* x, const T* factor, const T* slope, T* dx, int64_t numbers) {
    T* products = reinterpret_cast<T*>(shared_memory());
    const int64_t at = static_cast<int64_t>(block_index()) * kBlock + thread_index();
    const bool there = at < numbers;
    products[thread_index()] = there ? g[at] * x[at] : T{};
    __syncthreads();
    if (!there) return;
    T result = factor[at / 16] * g[at];
    if (thread_index() % 16 == 0) {
        T along = T{};
        for (int i = 0; i < 16; ++i) along += products[thread_index() + i];
        result += slope[at / 16] * along;
    }
    dx[at] = result;
}

// The sum over the grade of this thread's component, of the numbers that the threads of its multivector hold.
template <class T>
DEVICE T grade_sum(const Inner<T>& inner, const T* squares) {
    const int i = thread_index() % 16, k = inner.grade[i];
    T total = T{};
    for (int j = inner.begin[k]; j < inner.end[k]; ++j) total += squares[thread_index() - i + j];
    return total;
}

// The sum of a number of every thread, in the same order for all of them.
template <class T>
DEVICE T block_sum(T mine, T* space) {
    __syncthreads();
    space[thread_index()] = mine;
    for (int half = kBlock / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread_index() < half) space[thread_index()] += space[thread_index() + half];
    }
    __syncthreads();
    return space[0];
}

// The mean square over the channels of the block's item, `x` its first number.
template <class T>
DEVICE T mean_square(const Inner<T>& inner, const T* x, int64_t size, T* space) {
    T mine = T{};
    for (int64_t chunk = 0; chunk < size; chunk += kBlock) {
        const int64_t at = chunk + thread_index();
        const T value = at < size ? x[at] : T{};
        __syncthreads();
        space[thread_index()] = inner.of[thread_index() % 16] * value * value;
        __syncthreads();
        if (thread_index() % 16 == inner.begin[inner.grade[thread_index() % 16]]) {
            const T total = grade_sum(inner, space);
            mine += total < T{} ? -total : total;
        }
    }
    return block_sum(mine, space) / static_cast<T>(size / 16);
}

template <class T>
DEVICE T reciprocal_root(T square, T epsilon) {
    return T{1} / sqrt(square < epsilon ? epsilon : square);  // NaN stays
}

template <class T>
DEVICE T weight_of(const Inner<T>& inner, const T* weight, int64_t at) {
    return weight ? weight[at / 16 * 5 + inner.grade[at % 16]] : T{1};
}

template <class T>
__global__ void __launch_bounds__(kBlock) norms(Inner<T> inner, const T* x, const T* weight, T* y, int64_t size) {
    T* space = reinterpret_cast<T*>(shared_memory());
    const int64_t first = static_cast<int64_t>(block_index()) * size;
    const T root = reciprocal_root(mean_square(inner, x + first, size, space), inner.epsilon);
    for (int64_t at = thread_index(); at < size; at += kBlock) y[first + at] = x[first + at] * root * weight_of(inner, weight, at);
}

// roots (N) or null: what the gradient of the weights reads.
template <class T>
__global__ void __launch_bounds__(kBlock)
    norm_slopes(Inner<T> inner, const T* g, const T* x, const T* weight, T* dx, T* roots, int64_t size) {
    T* space = reinterpret_cast<T*>(shared_memory());
    const int64_t first = static_cast<int64_t>(block_index()) * size;
    const T square = mean_square(inner, x + first, size, space), root = reciprocal_root(square, inner.epsilon);
    T mine = T{};
    for (int64_t at = thread_index(); at < size; at += kBlock) mine += g[first + at] * x[first + at] * weight_of(inner, weight, at);
    const T along = block_sum(mine, space);
    const T back = square < inner.epsilon ? T{} : root * root * root * along / static_cast<T>(size / 16);
    if (roots && thread_index() == 0) roots[block_index()] = root;
    for (int64_t chunk = 0; chunk < size; chunk += kBlock) {
        const int64_t at = chunk + thread_index();
        const T value = at < size ? x[first + at] : T{}, factor = inner.of[thread_index() % 16];
        __syncthreads();
        space[thread_index()] = factor * value * value;
        __syncthreads();
        if (at >= size) continue;
        const T total = grade_sum(inner, space), sign = total > T{} ? T{1} : total < T{} ? T{-1} : T{};
        dx[first + at] = root * g[first + at] * weight_of(inner, weight, at) - back * sign * factor * value;
    }
}

// sums (part, C, 16) of root g x over the part's items; a block has 16 channels of one part.
template <class T>
__global__ void __launch_bounds__(kBlock) weight_sums(const T* g, const T* x, const T* roots, T* sums, int64_t N, int64_t size) {
    const int64_t across = (size + kBlock - 1) / kBlock, part = static_cast<int64_t>(block_index()) / across;
    const int64_t at = static_cast<int64_t>(block_index()) % across * kBlock + thread_index();
    if (at >= size) return;
    const int64_t step = (N + kNormParts - 1) / kNormParts, end = (part + 1) * step < N ? (part + 1) * step : N;
    T total = T{};
    for (int64_t n = part * step; n < end; ++n) total += roots[n] * g[n * size + at] * x[n * size + at];
    sums[part * size + at] = total;
}

template <class T>
__global__ void __launch_bounds__(kBlock) weight_grades(Inner<T> inner, const T* sums, T* dweight, int64_t size) {
    const int64_t at = static_cast<int64_t>(block_index()) * kBlock + thread_index(), channel = at / 5;
    if (channel >= size / 16) return;
    const int k = static_cast<int>(at % 5);
    T total = T{};
    for (int64_t part = 0; part < kNormParts; ++part)
        for (int i = inner.begin[k]; i < inner.end[k]; ++i) total += sums[part * size + channel * 16 + i];
    dweight[at] = total;
}

template <class T>
T* data(const View& view) {
    return static_cast<T*>(view.data);
}
int64_t blocks(int64_t numbers) {
    return (numbers + kBlock - 1) / kBlock;
}

template <class T>
void run_gate(const View& x, const View& factor, const View& y, void* stream) {
    launch("multivector_gate", gates<T>, blocks(x.numel()), kBlock, 0, stream, static_cast<const T*>(x.data), data<const T>(factor),
           data<T>(y), x.numel());
}

template <class T>
void run_gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx, void* stream) {
    launch("multivector_gate_backward", gate_slopes<T>, blocks(x.numel()), kBlock, kBlock * sizeof(T), stream, data<const T>(g),
           data<const T>(x), data<const T>(factor), data<const T>(slope), data<T>(dx), x.numel());
}

template <class T>
void run_norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y, void* stream) {
    launch("multivector_norm", norms<T>, x.sizes[0], kBlock, kBlock * sizeof(T), stream, inner_of<T>(inner, epsilon), data<const T>(x),
           data<const T>(weight), data<T>(y), x.sizes[1] * 16);
}

template <class T>
void run_norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight, const View& dx,
                       const View& dweight, const View& workspace, void* stream) {
    const char* name = "multivector_norm_backward";
    const int64_t N = x.sizes[0], C = x.sizes[1], size = C * 16;
    const Inner<T> of = inner_of<T>(inner, epsilon);
    T *roots = data<T>(workspace), *sums = roots ? roots + N : nullptr;
    launch(name, norm_slopes<T>, N, kBlock, kBlock * sizeof(T), stream, of, data<const T>(g), data<const T>(x), data<const T>(weight),
           data<T>(dx), roots, size);
    if (!weight.defined()) return;
    launch(name, weight_sums<T>, kNormParts * blocks(size), kBlock, 0, stream, data<const T>(g), data<const T>(x),
           static_cast<const T*>(roots), sums, N, size);
    launch(name, weight_grades<T>, blocks(C * 5), kBlock, 0, stream, of, static_cast<const T*>(sums), data<T>(dweight), size);
}

}  // namespace

void multivector_gate(const View& x, const View& factor, const View& y, void* stream) {
    x.dtype == DType::float64 ? run_gate<double>(x, factor, y, stream) : run_gate<float>(x, factor, y, stream);
}
void multivector_gate_backward(const View& g, const View& x, const View& factor, const View& slope, const View& dx, void* stream) {
    x.dtype == DType::float64 ? run_gate_backward<double>(g, x, factor, slope, dx, stream)
                              : run_gate_backward<float>(g, x, factor, slope, dx, stream);
}
void multivector_norm(const MultivectorInner& inner, double epsilon, const View& x, const View& weight, const View& y, void* stream) {
    x.dtype == DType::float64 ? run_norm<double>(inner, epsilon, x, weight, y, stream)
                              : run_norm<float>(inner, epsilon, x, weight, y, stream);
}
void multivector_norm_backward(const MultivectorInner& inner, double epsilon, const View& g, const View& x, const View& weight,
                               const View& dx, const View& dweight, const View& workspace, void* stream) {
    x.dtype == DType::float64 ? run_norm_backward<double>(inner, epsilon, g, x, weight, dx, dweight, workspace, stream)
                              : run_norm_backward<float>(inner, epsilon, g, x, weight, dx, dweight, workspace, stream);
}

}  // namespace cuda
}  // namespace isotypic
