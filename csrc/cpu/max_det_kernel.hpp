// What passes between the driver of max_det and its kernels, one set per instruction set.
#pragma once

#include <cstdint>

namespace isotypic::cpu {

struct MaxDetProblem {
    int d;
    int64_t batch;
    const void *tables, *p, *gram, *matrix, *form;
    void* out;
};

struct MaxDetKernels {
    int lanes;
    int64_t (*workspace)(int d);                                            // bytes of one block
    void (*solve)(const MaxDetProblem&, int64_t block, void* workspace);    // polynomials block lanes .. block lanes + lanes - 1
    void (*adjoint)(const MaxDetProblem&, int64_t block, void* workspace);  // the same rows of the derivative
};

struct MaxDetKernelSet {
    MaxDetKernels float32, float64;
};

#if defined(__x86_64__)
namespace scalar {
const MaxDetKernelSet& max_det_kernels();
}
namespace avx2 {
const MaxDetKernelSet& max_det_kernels();
}
namespace avx512 {
const MaxDetKernelSet& max_det_kernels();
}
#elif defined(__aarch64__)
namespace scalar {
const MaxDetKernelSet& max_det_kernels();
}
namespace neon {
const MaxDetKernelSet& max_det_kernels();
}
#else
namespace scalar {
const MaxDetKernelSet& max_det_kernels();
}
#endif

}  // namespace isotypic::cpu
