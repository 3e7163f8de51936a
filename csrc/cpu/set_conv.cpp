// Driver of the CPU kernels of the set convolutions: plans the windows and hands runs of points or stripes of the grid to the threads.
#include "ops/set_conv.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "cpu/isa.hpp"
#include "cpu/set_conv_kernel.hpp"

namespace isotypic::cpu {
namespace {

constexpr int64_t kRun = 256;  // points whose tables are made at a time

const SetConvKernels& kernel_set() {
    return ISOTYPIC_SELECT_ISA(set_conv_kernels);
}

template <class T>
const SetConvKernel<T>& kernel_of();
template <>
const SetConvKernel<float>& kernel_of<float>() {
    return kernel_set().float32;
}
template <>
const SetConvKernel<double>& kernel_of<double>() {
    return kernel_set().float64;
}

template <class T>
SetConvSizes sizes_of(const SetConvAxes& axes, const View& s, int lanes) {
    SetConvSizes sizes{};
    for (int axis = 0; axis < 3; ++axis) {
        sizes.nodes[axis] = axes.nodes[axis];
        sizes.powers[axis] = axes.powers[axis];
        sizes.used[axis] = axis >= 3 - axes.dim;
        if (sizes.used[axis]) {
            const double scale = static_cast<const double*>(s.data)[axis - (3 - axes.dim)];
            if (!std::isfinite(scale) || scale == 0)
                throw std::invalid_argument("set_conv: lengthscale must be positive and finite, got " + std::to_string(scale) + " nodes");
            sizes.inverse[axis] = 1 / scale;
            sizes.reach[axis] = kSetConvWindow<T> * std::abs(scale);
        }
        const double window = std::min(2 * sizes.reach[axis] + 2, static_cast<double>(sizes.nodes[axis]));
        sizes.capacity[axis] = (static_cast<int64_t>(window) + lanes) / lanes * lanes;
        sizes.stride += sizes.capacity[axis];
    }
    return sizes;
}

// How many of the points lie beyond the outermost nodes.
int64_t count_outside(const View& t, const SetConvAxes& axes) {
    const double* at = static_cast<const double*>(t.data);
    const int64_t points = t.sizes[0] * t.sizes[1];
    int64_t outside = 0, infinite = 0;
    for (int64_t n = 0; n < points; ++n) {
        bool inside = true;
        for (int k = 0; k < axes.dim; ++k) {
            const double value = at[n * axes.dim + k];
            // 1e-6 of a node is the rounding of a point on the last node
            inside = inside && value >= -1e-6 && value <= static_cast<double>(axes.nodes[3 - axes.dim + k]) - 1 + 1e-6;
            infinite += !std::isfinite(value);
        }
        outside += !inside;
    }
    if (infinite) throw std::invalid_argument("set_conv: x must be finite, got " + std::to_string(infinite) + " coordinates that are not");
    return outside;
}

struct Windows {
    Scratch tables, windows;
    template <class T>
    Windows(const SetConvSizes& sizes, T, int threads)
        : tables(kRun * sizes.stride * static_cast<int64_t>(sizeof(T)), threads),
          windows(kRun * static_cast<int64_t>(sizeof(SetConvWindow)), threads) {}
};

template <class T>
void encode(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid) {
    const SetConvKernel<T>& kernel = kernel_of<T>();
    const SetConvSizes sizes = sizes_of<T>(axes, s, kernel.lanes);
    const int64_t batch = y.sizes[0], points = y.sizes[1], channels = y.sizes[2], nodes = sizes.nodes[0] * sizes.nodes[1] * sizes.nodes[2];
    const int striped = sizes.nodes[0] > 1 ? 0 : 1;
    const int threads = max_threads();
    // Every node adds its points in their order, whatever the stripes.
    const int64_t stripes =
        std::min<int64_t>(std::max<int64_t>((threads + batch - 1) / std::max<int64_t>(batch, 1), 1), sizes.nodes[striped]);
    const Windows scratch(sizes, T{}, threads);
    parallel_for(batch * stripes, threads, [&](int64_t item, int thread) {
        const int64_t b = item / stripes, stripe = item % stripes;
        const int64_t first = sizes.nodes[striped] * stripe / stripes, last = sizes.nodes[striped] * (stripe + 1) / stripes;
        T* field = static_cast<T*>(grid.data) + b * channels * nodes;
        const int64_t planes = striped == 0 ? 1 : sizes.nodes[0], row = nodes / planes / sizes.nodes[striped];
        for (int64_t c = 0; c < channels * planes; ++c)
            std::memset(field + c * nodes / planes + first * row, 0, static_cast<size_t>((last - first) * row) * sizeof(T));
        T* tables = reinterpret_cast<T*>(scratch.tables.part(thread));
        auto* windows = reinterpret_cast<SetConvWindow*>(scratch.windows.part(thread));
        for (int64_t n = 0; n < points; n += kRun) {
            const int64_t count = std::min(kRun, points - n), at = b * points + n;
            kernel.windows(sizes, axes.dim, count, static_cast<const double*>(t.data) + at * axes.dim, windows, tables);
            kernel.encode(sizes, count, windows, tables, static_cast<const T*>(y.data) + at * channels, channels, striped, first, last,
                          field);
        }
    });
}

// use(kernel, sizes, windows, tables, sample, first point of all, points) for runs of points.
template <class T, class Use>
void for_runs(const View& t, const View& s, const SetConvAxes& axes, const Use& use) {
    const SetConvKernel<T>& kernel = kernel_of<T>();
    const SetConvSizes sizes = sizes_of<T>(axes, s, kernel.lanes);
    const int64_t points = t.sizes[1], runs = (points + kRun - 1) / kRun;
    const int threads = max_threads();
    const Windows scratch(sizes, T{}, threads);
    parallel_for(t.sizes[0] * runs, threads, [&](int64_t item, int thread) {
        const int64_t b = item / runs, n = item % runs * kRun, count = std::min(kRun, points - n), at = b * points + n;
        T* tables = reinterpret_cast<T*>(scratch.tables.part(thread));
        auto* windows = reinterpret_cast<SetConvWindow*>(scratch.windows.part(thread));
        kernel.windows(sizes, axes.dim, count, static_cast<const double*>(t.data) + at * axes.dim, windows, tables);
        use(kernel, sizes, windows, tables, b, at, count);
    });
}

template <class T>
void decode(const View& grid, const View& t, const View& s, const SetConvAxes& axes, const View& y) {
    const int64_t channels = y.sizes[2], nodes = axes.nodes[0] * axes.nodes[1] * axes.nodes[2];
    for_runs<T>(t, s, axes,
                [&](const SetConvKernel<T>& kernel, const SetConvSizes& sizes, const SetConvWindow* windows, const T* tables, int64_t b,
                    int64_t at, int64_t count) {
                    kernel.decode(sizes, count, windows, tables, static_cast<const T*>(grid.data) + b * channels * nodes, channels,
                                  static_cast<T*>(y.data) + at * channels);
                });
}

template <class T>
void moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first, const View& result) {
    const int64_t channels = y.sizes[2], nodes = axes.nodes[0] * axes.nodes[1] * axes.nodes[2];
    for_runs<T>(t, s, axes,
                [&](const SetConvKernel<T>& kernel, const SetConvSizes& sizes, const SetConvWindow* windows, const T* tables, int64_t b,
                    int64_t at, int64_t count) {
                    kernel.moments(sizes, axes.dim, count, windows, tables, static_cast<const T*>(y.data) + at * channels,
                                   static_cast<const T*>(grid.data) + b * channels * nodes, channels, first,
                                   static_cast<double*>(result.data) + at * result.sizes[2]);
                });
}

}  // namespace

int64_t set_conv(const View& y, const View& t, const View& s, const SetConvAxes& axes, const View& grid) {
    const int64_t outside = count_outside(t, axes);
    y.dtype == DType::float64 ? encode<double>(y, t, s, axes, grid) : encode<float>(y, t, s, axes, grid);
    return outside;
}

int64_t set_conv_decode(const View& grid, const View& t, const View& s, const SetConvAxes& axes, const View& y) {
    const int64_t outside = count_outside(t, axes);
    y.dtype == DType::float64 ? decode<double>(grid, t, s, axes, y) : decode<float>(grid, t, s, axes, y);
    return outside;
}

void set_conv_moments(const View& y, const View& grid, const View& t, const View& s, const SetConvAxes& axes, bool first,
                      const View& result) {
    count_outside(t, axes);
    y.dtype == DType::float64 ? moments<double>(y, grid, t, s, axes, first, result) : moments<float>(y, grid, t, s, axes, first, result);
}

}  // namespace isotypic::cpu
