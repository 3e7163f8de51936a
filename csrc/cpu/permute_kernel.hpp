// What passes between the driver of permute and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// y[s] = x[source[s]] for s < n, entries of `bytes` bytes. `next` is the row that will be read after this one, to be fetched meanwhile.
using PermuteRow = void (*)(const int32_t* source, int64_t n, int64_t bytes, const char* x, const char* next, char* y);

ISOTYPIC_DECLARE_PER_ISA(PermuteRow permute_row())

}  // namespace isotypic::cpu
