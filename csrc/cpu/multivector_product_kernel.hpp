// What passes between the driver of multivector_product and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "core/view.hpp"
#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

constexpr int kMaxProducts = 16;

// `count` multivectors: those of a `a_stride` elements apart, and so on; scale is null or as far apart.
using MultivectorProduct = void (*)(int64_t count, const void* a, int64_t a_stride, const void* b, int64_t b_stride, const void* scale,
                                    int64_t scale_stride, void* z, int64_t z_stride);

struct MultivectorProductKernels {
    MultivectorProduct of[4][kMaxProducts];  // by DType
};

ISOTYPIC_DECLARE_PER_ISA(const MultivectorProductKernels& multivector_product_kernels())

}  // namespace isotypic::cpu
