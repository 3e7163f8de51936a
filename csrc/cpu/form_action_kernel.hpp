// What passes between the driver of form_action and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

namespace isotypic::cpu {

template <class T>
struct FormActionKernel {
    int lanes;
    // `count` forms p (count, degree + 1) with matrices g (count, 4) to y; workspace of 3 (degree + 1) vectors.
    void (*run)(int degree, int64_t count, const T* p, const T* g, T* y, T* workspace);
};

struct FormActionKernels {
    FormActionKernel<float> float32;
    FormActionKernel<double> float64;
};

namespace scalar {
const FormActionKernels& form_action_kernels();
}
#if defined(__x86_64__)
namespace avx2 {
const FormActionKernels& form_action_kernels();
}
namespace avx512 {
const FormActionKernels& form_action_kernels();
}
#elif defined(__aarch64__)
namespace neon {
const FormActionKernels& form_action_kernels();
}
#endif

}  // namespace isotypic::cpu
