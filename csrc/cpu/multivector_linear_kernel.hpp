// What passes between the driver of multivector_linear and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "core/algebra.hpp"
#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// Coefficients of a map from C to O channels lie in panels of `outputs` output channels, [panel][c][output][A, B][16], zeros behind O.
template <class T>
struct MultivectorLinearKernel {
    int outputs;
    // Panels from weight (O, C, K); `transposed`: of the adjoint, from O to C channels.
    void (*pack)(const algebra::LinearMaps& maps, int K, int64_t O, int64_t C, const T* weight, bool transposed, T* panels);
    // to[n]_i = from[n]_order_i
    void (*turn)(const int* order, int64_t count, const T* from, T* to);
    // y (N, O, 16) from x and its turned copy (N, C, 16).
    void (*apply)(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* panels, T* y);
    // sums (O, C, A and B, 16) += y x and y turned, over N.
    void (*gradient)(int64_t N, int64_t C, int64_t O, const T* x, const T* turned, const T* y, T* sums);
};

struct MultivectorLinearKernels {
    MultivectorLinearKernel<float> float32;
    MultivectorLinearKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const MultivectorLinearKernels& multivector_linear_kernels())

}  // namespace isotypic::cpu
