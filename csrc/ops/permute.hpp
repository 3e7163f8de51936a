// permute: nodes and adjacency matrices in another order, as plain bytes:
//
//     one axis    y[b, r] = x[b, order[b, r]]                       entries of `bytes` bytes
//     two axes    y[b, r, s] = x[b, order[b, r], order[b, s]]
//
// and with `inverse` y[b, order[b, r]] = x[b, r], and the same for two axes.
#pragma once

#include <cstdint>

namespace isotypic {

struct PermuteCall {
    int64_t batch = 0, n = 0, bytes = 0;
    int axes = 1;
    bool inverse = false;
    const int64_t* order = nullptr;  // (batch, n)
    const void* x = nullptr;         // (batch, n, bytes) or (batch, n, n, bytes), contiguous
    void* y = nullptr;               // fully overwritten, if every row of the order is a permutation
};

namespace cpu {
// False where a row of the order is no permutation; then y is not to be used.
bool permute(const PermuteCall& call);
}  // namespace cpu

// The same on the current device, queued on the caller's stream. Places outside 0 ... n - 1 are left out. std::runtime_error when the
// launch fails.
namespace cuda {
void permute(const PermuteCall& call, void* stream);
}  // namespace cuda

}  // namespace isotypic
