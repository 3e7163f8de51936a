// What passes between the driver of permute and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

struct PermuteKernel {
    // y[s] = x[source[s]] for s < n, entries of `bytes` bytes. `next` is the row that will be read after this one, to be fetched meanwhile.
    // Where `past`, y is written past the caches; it then has to be aligned to entries of 4, 8, 16, 32 and 64 bytes.
    void (*row)(const int32_t* source, int64_t n, int64_t bytes, const char* x, const char* next, char* y, bool past);
    void (*finish)();  // after rows that were written past the caches
};

ISOTYPIC_DECLARE_PER_ISA(const PermuteKernel& permute_kernel())

}  // namespace isotypic::cpu
