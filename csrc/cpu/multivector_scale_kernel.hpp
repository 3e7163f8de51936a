// What passes between the driver of multivector_scale and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"
#include "ops/multivector_scale.hpp"

namespace isotypic::cpu {

template <class T>
struct MultivectorScaleKernel {
    void (*gate)(int64_t count, const T* x, const T* factor, T* y);
    void (*gate_backward)(int64_t count, const T* g, const T* x, const T* factor, const T* slope, T* dx);
    // N items of C channels; spread (C, 16) are the weights of the components, or null for 1.
    void (*norm)(const MultivectorInner& inner, T epsilon, int64_t N, int64_t C, const T* x, const T* spread, T* y);
    // Adds to sums (C, 16) what the weights of the components get, where it is not null.
    void (*norm_backward)(const MultivectorInner& inner, T epsilon, int64_t N, int64_t C, const T* g, const T* x, const T* spread, T* dx,
                          T* sums);
};

struct MultivectorScaleKernels {
    MultivectorScaleKernel<float> float32;
    MultivectorScaleKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const MultivectorScaleKernels& multivector_scale_kernels())

}  // namespace isotypic::cpu
