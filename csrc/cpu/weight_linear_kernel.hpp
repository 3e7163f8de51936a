// What passes between the driver (weight_linear.cpp, compiled once) and the kernels (weight_linear_kernel.cpp, compiled per instruction
// set). Each works on one network, in the compute type: float, or double for float64. `sizes` are the network's widths, or null.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "cpu/per_isa.hpp"
#include "ops/weight_linear_plan.hpp"

namespace isotypic::cpu {

struct WeightKernels {
    int panel;  // columns of a packed panel

    void (*read)(const void* data, DType dtype, int64_t offset, int64_t count, void* out);
    void (*write)(void* data, DType dtype, int64_t offset, int64_t count, const void* in);

    // Packs b[(s, c), (t, n)] = weight[s, t][c, n], or weight[t, s][n, c] when transposed.
    void (*pack)(const void* weight, int64_t slots, int64_t C, int64_t N, bool transposed, void* packed);
    // c (rows, n) = a (rows, depth) b + row; row may be null and is padded to whole panels.
    void (*multiply)(int64_t rows, int64_t n, const void* a, int64_t a_stride, const void* packed, int64_t depth, const void* row, void* c,
                     int64_t c_stride);
    // c (rows, n) += a^T g over `depth` positions.
    void (*outer)(const void* a, int64_t a_stride, int64_t rows, const void* g, int64_t g_stride, int64_t n, int64_t depth, void* c,
                  int64_t c_stride);

    int64_t (*pool_scratch)(const WeightPlan& plan, int64_t channels);  // elements
    void (*pool)(const WeightPlan& plan, const int64_t* sizes, const void* x, int64_t channels, const void* basis, bool mean, void* pooled,
                 void* scratch);
    int64_t (*affine_scratch)(const WeightPlan& plan, int64_t out_channels);
    // x and mix (packed, one matrix after the other), terms, and basis may be null. What lies `ahead` elements behind x is asked for.
    void (*affine)(const WeightPlan& plan, const int64_t* sizes, const void* x, int64_t channels, int64_t ahead, const void* mix,
                   const void* terms, int64_t out_channels, const void* basis, bool mean, void* y, void* scratch);
    void (*mix_gradient)(const WeightPlan& plan, const int64_t* sizes, const void* x, int64_t channels, int64_t x_ahead, const void* y,
                         int64_t out_channels, int64_t y_ahead, void* mix);
    // gradient (d_0, rank padded to whole panels) += that of one network.
    int64_t (*basis_scratch)(const WeightPlan& plan, int64_t channels);
    void (*basis_gradient)(const WeightPlan& plan, const int64_t* sizes, const void* x, int64_t channels, const void* terms, bool mean,
                           void* gradient, void* scratch);
    // values at the first maximum of x, or its adjoint, which adds to values. scratch: `channels` elements and as many int64.
    void (*select)(const WeightPlan& plan, const int64_t* sizes, const void* values, const void* x, int64_t channels, void* pooled,
                   void* scratch);
    void (*scatter)(const WeightPlan& plan, const int64_t* sizes, const void* pooled, const void* x, int64_t channels, void* values,
                    void* scratch);
};

struct WeightKernelSet {
    WeightKernels single, wide;
};

#define ISOTYPIC_DECLARE_VARIANT(isa)               \
    namespace isa {                                 \
    const WeightKernelSet& weight_linear_kernels(); \
    }
ISOTYPIC_DECLARE_VARIANT(scalar)
ISOTYPIC_DECLARE_PER_ISA(const WeightKernelSet& weight_linear_kernels())

}  // namespace isotypic::cpu
