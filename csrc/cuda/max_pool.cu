// max_pool on a device: an output of forward and select, an input of scatter to a thread, so that nothing is written by two. Bound by
// memory: neighbouring threads read and write neighbouring addresses, but for the step of the windows.
#include "ops/max_pool.hpp"

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"

namespace isotypic {
namespace cuda {
namespace {

constexpr int kPoolThreads = 256;

// (outer, three axes, inner) of an element of a grid of these sizes.
struct PoolPlace {
    int64_t outer, at[3], inner;
    DEVICE PoolPlace(int64_t element, const int64_t (&sizes)[3], int64_t inners) {
        inner = element % inners, element /= inners;
        for (int axis = 2; axis >= 0; --axis) at[axis] = element % sizes[axis], element /= sizes[axis];
        outer = element;
    }
};

template <class T>
__global__ void __launch_bounds__(kPoolThreads) pool(MaxPoolSizes s, const T* x, T* y, int32_t* index, int64_t count) {
    const int64_t element = static_cast<int64_t>(block_index()) * kPoolThreads + thread_index();
    if (element >= count) return;
    const PoolPlace place(element, s.out, s.inner);
    int64_t begin[3], end[3];
    for (int axis = 0; axis < 3; ++axis) {
        const int64_t start = place.at[axis] * s.stride[axis] - s.padding[axis], stop = start + s.window[axis];
        begin[axis] = start > 0 ? start : 0;
        end[axis] = stop < s.in[axis] ? stop : s.in[axis];
    }
    const int64_t plane = place.outer * s.in[0] * s.in[1] * s.in[2];
    int64_t best_at = (begin[0] * s.in[1] + begin[1]) * s.in[2] + begin[2];
    T best = x[(plane + best_at) * s.inner + place.inner];
    for (int64_t i = begin[0]; i < end[0]; ++i)
        for (int64_t j = begin[1]; j < end[1]; ++j)
            for (int64_t k = begin[2]; k < end[2]; ++k) {
                const int64_t at = (i * s.in[1] + j) * s.in[2] + k;
                const T other = x[(plane + at) * s.inner + place.inner];
                const Compute<T> value = widen(other);
                if (value > widen(best) || value != value) best = other, best_at = at;
            }
    y[element] = best;
    index[element] = static_cast<int32_t>(best_at);
}

// The windows that reach a position, in their order.
template <class T>
__global__ void __launch_bounds__(kPoolThreads) scatter(MaxPoolSizes s, const T* g, const int32_t* index, T* x, int64_t count) {
    const int64_t element = static_cast<int64_t>(block_index()) * kPoolThreads + thread_index();
    if (element >= count) return;
    const PoolPlace place(element, s.in, s.inner);
    int64_t begin[3], end[3];
    for (int axis = 0; axis < 3; ++axis) {
        const int64_t at = place.at[axis] + s.padding[axis], before = at - s.window[axis];
        begin[axis] = before < 0 ? 0 : before / s.stride[axis] + 1;
        end[axis] = at / s.stride[axis] + 1 < s.out[axis] ? at / s.stride[axis] + 1 : s.out[axis];
    }
    const int64_t mine = (place.at[0] * s.in[1] + place.at[1]) * s.in[2] + place.at[2];
    Compute<T> total = 0;
    for (int64_t i = begin[0]; i < end[0]; ++i)
        for (int64_t j = begin[1]; j < end[1]; ++j)
            for (int64_t k = begin[2]; k < end[2]; ++k) {
                const int64_t from = (((place.outer * s.out[0] + i) * s.out[1] + j) * s.out[2] + k) * s.inner + place.inner;
                if (index[from] == mine) total += widen(g[from]);
            }
    x[element] = narrow<T>(total);
}

template <class T>
__global__ void __launch_bounds__(kPoolThreads) select(MaxPoolSizes s, const T* x, const int32_t* index, T* y, int64_t count) {
    const int64_t element = static_cast<int64_t>(block_index()) * kPoolThreads + thread_index();
    if (element >= count) return;
    const PoolPlace place(element, s.out, s.inner);
    const int64_t positions = s.in[0] * s.in[1] * s.in[2], at = index[element];
    y[element] = at < 0 || at >= positions ? narrow<T>(0) : x[(place.outer * positions + at) * s.inner + place.inner];
}

int64_t blocks_for(int64_t count) {
    return (count + kPoolThreads - 1) / kPoolThreads;
}

}  // namespace

void max_pool(const MaxPoolSizes& sizes, const View& x, const View& y, int32_t* index, void* stream) {
    with_type(x.dtype, [&](auto number) {
        using T = decltype(number);
        launch("max_pool", pool<T>, blocks_for(y.numel()), kPoolThreads, 0, stream, sizes, static_cast<const T*>(x.data),
               static_cast<T*>(y.data), index, y.numel());
    });
}

void max_pool_scatter(const MaxPoolSizes& sizes, const View& g, const int32_t* index, const View& x, void* stream) {
    with_type(x.dtype, [&](auto number) {
        using T = decltype(number);
        launch("max_pool_scatter", scatter<T>, blocks_for(x.numel()), kPoolThreads, 0, stream, sizes, static_cast<const T*>(g.data), index,
               static_cast<T*>(x.data), x.numel());
    });
}

void max_pool_select(const MaxPoolSizes& sizes, const View& x, const int32_t* index, const View& y, void* stream) {
    with_type(x.dtype, [&](auto number) {
        using T = decltype(number);
        launch("max_pool_select", select<T>, blocks_for(y.numel()), kPoolThreads, 0, stream, sizes, static_cast<const T*>(x.data), index,
               static_cast<T*>(y.data), y.numel());
    });
}

}  // namespace cuda
}  // namespace isotypic
