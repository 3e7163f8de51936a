// What passes between the driver of form_action and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

template <class T>
struct FormActionKernel {
    int lanes;
    // `count` forms p, y, z (count, degree + 1) with matrices g, r (count, 4); workspace of 4 (degree + 1) vectors; binomials (degree + 1).
    void (*act)(int degree, int64_t count, const T* p, const T* g, T* y, T* workspace);
    void (*adjoint)(int degree, int64_t count, const T* z, const T* g, const T* binomials, T* p, T* workspace);
    void (*matrix)(int degree, int64_t count, const T* p, const T* g, const T* z, T* r, T* workspace);
};

struct FormActionKernels {
    FormActionKernel<float> float32;
    FormActionKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const FormActionKernels& form_action_kernels())

}  // namespace isotypic::cpu
