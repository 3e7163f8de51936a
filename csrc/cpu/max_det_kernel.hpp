// What passes between the driver of max_det and its kernels, one set per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

struct MaxDetCall {
    int d;
    bool single, candidates, quick;  // as in ops/max_det.hpp
    int64_t batch;
    const int64_t* rows;  // (batch): those to work on in double-word arithmetic, null for all
    const void *tables, *p, *gram, *matrix, *form;
    void* out;
};

struct MaxDetKernels {
    int lanes;
    int64_t (*workspace)(int d);                                       // bytes of one block, for any of the following
    void (*solve)(const MaxDetCall&, int64_t block, void* workspace);  // polynomials block lanes .. block lanes + lanes - 1
    void (*adjoint)(const MaxDetCall&, int64_t block, void* workspace);
    // The same in double-word arithmetic, for the rows that the first two have marked: with the status kRefine, and NaN at the front.
    void (*solve_again)(const MaxDetCall&, int64_t block, void* workspace);
    void (*adjoint_again)(const MaxDetCall&, int64_t block, void* workspace);
    void (*frame)(const MaxDetCall&, int64_t block, void* workspace);  // forms in their frames
};

ISOTYPIC_DECLARE_PER_ISA(const MaxDetKernels& max_det_kernels())

}  // namespace isotypic::cpu
