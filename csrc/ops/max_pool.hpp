// max_pool: the largest value of each window of positions, and where it lies.
//
// x (O, D, H, W, I) has O I planes of D x H x W positions. With windows w, steps s and paddings p on the three axes,
//
//     max_pool           y[o, j, i] = max_t x[o, s j - p + t, i]     over the taps 0 <= t < w that lie inside the plane
//                        index[o, j, i] = the place (d H + h) W + w of that value: of equal ones the first, and of NaN, which is larger
//                                         than any number, the last, as torch has it
//     max_pool_scatter   g (O, D', H', W', I), index -> x[o, q, i] = sum of g[o, j, i] over the j with index[o, j, i] = q
//     max_pool_select    x, index -> y[o, j, i] = x[o, index[o, j, i], i]
//
// The last two are adjoint to each other, and linear: the derivatives of max_pool of any order are made of them.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace isotypic {

// Every window has a position inside. D H W < 2^31.
struct MaxPoolSizes {
    int64_t outer = 0, inner = 0;
    int64_t in[3] = {}, out[3] = {}, window[3] = {}, stride[3] = {}, padding[3] = {};

    int64_t positions() const { return in[0] * in[1] * in[2]; }
    int64_t windows() const { return out[0] * out[1] * out[2]; }
};

// All contiguous, x, y and g of one dtype of the four; what is last is fully overwritten. Scatter and select return false where an index is
// no place in the plane; then the result is not to be used.
namespace cpu {
void max_pool(const MaxPoolSizes& sizes, const View& x, const View& y, int32_t* index);
bool max_pool_scatter(const MaxPoolSizes& sizes, const View& g, const int32_t* index, const View& x);
bool max_pool_select(const MaxPoolSizes& sizes, const View& x, const int32_t* index, const View& y);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. Scatter takes an index that max_pool gave for these sizes, and select
// gives 0 for an index outside. std::runtime_error when the launch fails.
namespace cuda {
void max_pool(const MaxPoolSizes& sizes, const View& x, const View& y, int32_t* index, void* stream);
void max_pool_scatter(const MaxPoolSizes& sizes, const View& g, const int32_t* index, const View& x, void* stream);
void max_pool_select(const MaxPoolSizes& sizes, const View& x, const int32_t* index, const View& y, void* stream);
}  // namespace cuda

}  // namespace isotypic
