// What passes between the driver of max_det and its kernels, one set per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

struct MaxDetCall {
    int d;
    int64_t batch;
    const void *tables, *p, *gram, *matrix, *form;
    void* out;
};

struct MaxDetKernels {
    int lanes;
    int64_t (*workspace)(int d);                                         // bytes of one block
    void (*solve)(const MaxDetCall&, int64_t block, void* workspace);    // polynomials block lanes .. block lanes + lanes - 1
    void (*adjoint)(const MaxDetCall&, int64_t block, void* workspace);  // the same rows of the derivative
};

struct MaxDetKernelSet {
    MaxDetKernels float32, float64;
};

ISOTYPIC_DECLARE_PER_ISA(const MaxDetKernelSet& max_det_kernels())

}  // namespace isotypic::cpu
