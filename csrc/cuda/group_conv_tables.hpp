// The plan of a group convolution as the device reads it: one flat buffer, uploaded once for each device.
//
// It holds two sections of one form, because the adjoint in x is a group convolution too. In a regular field it reads the gradient at the
// same taps, g[o, h]((y + padding - dilation (k - 1) + dilation tap_t(h)) / stride) where that divides, with the filter psi'[c, o, u](u t)
// = psi[o, c, u^-1](-t). The adjoint of a lifting convolution is an ordinary correlation into a scalar field: one orbit for each tap s of
// psi, which sums g[o, r] over r at the mirrored taps, ((y + padding - dilation tap(r s)) / stride). Which tap r s is, the forward section
// of a lift tells: it is tap(h) for the h that multiplies psi[s] in out[o, r].
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/group_conv.hpp"

namespace isotypic {
namespace cuda {

// One block of accumulators of a warp: result[slot] += sum over i < depth of A[a + i a_step] B[b + i b_step].
struct alignas(8) Job {
    int slot, depth, a, a_step, b, b_step;
};

// Slots number the real entries of the blocks: (rho, r, k) and (rho, r, j) are numbered alike from 0 to |G| - 1, with r < rows(rho), j, k <
// dim(rho); weight slots are (rho, j, k). Columns k that an orbit's stabiliser removes are zero rows of its matrices. Offsets are in bytes
// from the start of the buffer; `matrix` of a pair is float32, then float64.
struct Section {
    int slots, weight_slots, orbits, length;  // length: the longest orbit
    int weight_length, weight_size;
    int64_t orbit_length;    // int (orbits)
    int64_t taps;            // int (orbits, length, 4): index into the kernel box, then the group channel
    int64_t analysis_index;  // int (orbits): which matrix
    int64_t analysis[2];     // (matrices, slots, length)
    int64_t weight_index;    // int (orbits, weight_length): flat index into psi[o, c], or -1
    int64_t weight_matrix_index;
    int64_t weight_matrix[2];  // (matrices, weight_slots, weight_length)
    int64_t synthesis[2];      // (slots, outputs)
    int outputs;               // group channels of the result
    int64_t jobs[4];           // Job (warps, kSlotsPerWarp[i]) for the convolution
    int64_t weight_jobs[4];    // the same for the weight gradient
    int64_t use_begin;         // int (weight_size + 1), into
    int64_t use;               // int (uses, 2): the (orbit, u) that read an element of psi
    // Powers of two at most 1 over the largest absolute row sum of each matrix: what is multiplied by one and transformed stays within the
    // range of its values. Operands of float16 are, and the products are divided by both in float32.
    float analysis_scale, weight_scale, synthesis_scale;
};

constexpr int kSections = 2;  // forward, adjoint in x

// Slots that one warp can own: the kernels are instantiated for these.
constexpr int kSlotsPerWarp[4] = {2, 3, 6, 8};

// Sizes that a launch needs without reading the tables back.
struct SectionSizes {
    int slots, weight_slots, orbits, length, outputs, weight_length;
};

inline bool regular(const GroupConvPlan& plan) {
    return !plan.orbits.front().adjoint_index.empty();
}
SectionSizes section_sizes(const GroupConvPlan& plan, bool adjoint);

}  // namespace cuda
}  // namespace isotypic
