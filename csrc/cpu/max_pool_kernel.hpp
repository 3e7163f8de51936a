// What passes between the driver of max_pool and its kernels, which are compiled for each instruction set.
#pragma once

#include "cpu/per_isa.hpp"
#include "ops/max_pool.hpp"

namespace isotypic::cpu {

// One of the `outer` parts each. `scratch` is for rows on their way, and for what is scattered of 16-bit types, which are computed in float32.
struct MaxPoolKernel {
    int64_t (*forward_scratch)(const MaxPoolSizes& sizes);  // bytes
    int64_t (*scatter_scratch)(const MaxPoolSizes& sizes);
    void (*forward)(const MaxPoolSizes& sizes, DType dtype, const void* x, void* y, int32_t* index, int64_t outer, void* scratch);
    bool (*scatter)(const MaxPoolSizes& sizes, DType dtype, const void* g, const int32_t* index, void* x, int64_t outer, void* scratch);
    bool (*select)(const MaxPoolSizes& sizes, DType dtype, const void* x, const int32_t* index, void* y, int64_t outer);
};

ISOTYPIC_DECLARE_PER_ISA(const MaxPoolKernel& max_pool_kernel())

}  // namespace isotypic::cpu
