// What passes between the driver of small_matrix and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// `count` matrices from in[] to out[], as many of each as the operation has.
template <class T>
using SmallMatrixKernel = void (*)(int operation, int d, bool proper, int64_t count, const T* const* in, T* const* out);

struct SmallMatrixKernels {
    SmallMatrixKernel<float> float32;
    SmallMatrixKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const SmallMatrixKernels& small_matrix_kernels())

}  // namespace isotypic::cpu
