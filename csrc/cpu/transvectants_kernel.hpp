// What passes between the driver (transvectants.cpp, compiled once) and the kernels (transvectants_kernel.cpp, compiled per instruction
// set).
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"
#include "ops/transvectants.hpp"

namespace isotypic::cpu {

struct TransvectantsCall {
    int in_size, out_size, paths, out_slots, row_count, antidiagonal_count;
    const int *path_begin, *out_begin, *slot, *rows_before;
    const TransvectantAntidiagonal* antidiagonals;
    const TransvectantRow* rows;
    const void* coefficients;  // of the compute type

    int64_t batch, in_channels, out_channels;
    int64_t channel_block;  // channels whose products are in the panel at a time
    const void *f, *h, *weight, *z;
    void* result;
};

// Sizes in elements of the compute type. `forward`, `input` and `weight` take a tile of samples, the others a single sample.
struct TransvectantsKernel {
    int tile;
    int64_t (*workspace)(const TransvectantsCall&);
    void (*forward)(const TransvectantsCall&, int64_t first, int64_t count, void* workspace);
    void (*input)(const TransvectantsCall&, int64_t first, int64_t count, void* workspace);
    // sums [slot][channel][path][output channel], to which is added, or which are begun
    void (*weight)(const TransvectantsCall&, int64_t first, int64_t count, bool add, void* sums, void* workspace);
    void (*forward_sample)(const TransvectantsCall&, int64_t sample, void* workspace);
    void (*input_sample)(const TransvectantsCall&, int64_t sample, void* workspace);
    void (*weight_sample)(const TransvectantsCall&, int64_t sample, bool add, void* sums, void* workspace);
    void (*finish_weight)(const TransvectantsCall&, const void* sums, int64_t count, int64_t stride);  // adds `count` of them, in order
};

struct TransvectantsKernels {
    TransvectantsKernel float32, float64;
};

ISOTYPIC_DECLARE_PER_ISA(const TransvectantsKernels& transvectants_kernels())

}  // namespace isotypic::cpu
