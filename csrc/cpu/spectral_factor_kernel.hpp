// What passes between the driver of spectral_factor and its kernels, one set per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

struct SpectralCall {
    int64_t batch, taps;  // taps = n + 1
    const double *r, *h, *b;
    double *out, *error;
    bool transposed;
};

struct SpectralKernels {
    int lanes;
    int64_t (*workspace)(int64_t taps);                                   // bytes of one block
    void (*factor)(const SpectralCall&, int64_t block, void* workspace);  // rows block lanes .. block lanes + lanes - 1
    void (*solve)(const SpectralCall&, int64_t block, void* workspace);
};

ISOTYPIC_DECLARE_PER_ISA(const SpectralKernels& spectral_factor_kernels())

}  // namespace isotypic::cpu
