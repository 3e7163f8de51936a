// What passes between the driver of the set convolutions and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// The axes with what follows from the lengthscales.
struct SetConvSizes {
    int64_t nodes[3];
    int powers[3];
    bool used[3];         // false: one node of weight 1
    double inverse[3];    // 1 / s
    double reach[3];      // nodes from a point to the end of its window
    int64_t capacity[3];  // room for the weights of one point on each axis; on the last one whole vectors
    int64_t stride;       // of the tables: the sum of the capacities
};

// The window of a point: its first node and its extent on each axis, on the last one in vectors. offset: r at the first node.
struct SetConvWindow {
    int32_t first[3], count[3];
    double offset[3];
};

template <class T>
struct SetConvKernel {
    int lanes;
    // The windows of `count` points t (count, dim), and their weights: on each axis r^p exp(-r^2 / 2), zero outside of the window.
    void (*windows)(const SetConvSizes& sizes, int dim, int64_t count, const double* t, SetConvWindow* windows, T* tables);
    // grid (channels, nodes) += the points y (count, channels), in the rows [first, last) of the axis `striped`.
    void (*encode)(const SetConvSizes& sizes, int64_t count, const SetConvWindow* windows, const T* tables, const T* y, int64_t channels,
                   int striped, int64_t first, int64_t last, T* grid);
    // y (count, channels) = the field of grid (channels, nodes) at the points.
    void (*decode)(const SetConvSizes& sizes, int64_t count, const SetConvWindow* windows, const T* tables, const T* grid, int64_t channels,
                   T* y);
    // moments (count, [channels] + 2 dim) of y (count, channels) and grid (channels, nodes).
    void (*moments)(const SetConvSizes& sizes, int dim, int64_t count, const SetConvWindow* windows, const T* tables, const T* y,
                    const T* grid, int64_t channels, bool first, double* moments);
};

struct SetConvKernels {
    SetConvKernel<float> float32;
    SetConvKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const SetConvKernels& set_conv_kernels())

}  // namespace isotypic::cpu
