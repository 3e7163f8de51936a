// What passes between the driver of batch_norm and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// Rows of `width` neighbouring numbers, `stride` apart. Either each column has its own parameters and sums (`by_column`), or all numbers
// have the same ones.
struct BatchNormPiece {
    int64_t rows, width, stride;
    DType dtype;
    bool by_column, relu;
};

// y = act((x - center) factor + shift), and dx = h factor + (x - center) slope + offset; one of each, or one a column.
template <class T>
struct BatchNormParameters {
    const T *center, *factor, *shift, *slope, *offset;
};

template <class T>
struct BatchNormKernel {
    int lanes;
    // Means and sums of squared distances from them. The scratch of all holds 3 kBatchNormScratch numbers.
    void (*statistics)(const BatchNormPiece& piece, const void* x, double* mean, double* squares, T* scratch);
    void (*apply)(const BatchNormPiece& piece, const BatchNormParameters<T>& parameters, const void* x, void* y, T* scratch);
    // Sums of h and of h (x - center).
    void (*sums)(const BatchNormPiece& piece, const BatchNormParameters<T>& parameters, const void* g, const void* x, double* plain,
                 double* weighted, T* scratch);
    void (*gradient)(const BatchNormPiece& piece, const BatchNormParameters<T>& parameters, const void* g, const void* x, void* dx,
                     T* scratch);
};

constexpr int64_t kBatchNormScratch = 16384;

struct BatchNormKernels {
    BatchNormKernel<float> float32;
    BatchNormKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const BatchNormKernels& batch_norm_kernels())

}  // namespace isotypic::cpu
