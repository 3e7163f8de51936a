// What passes between the driver of sort_sinkhorn and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

// Of `rows` samples, at most as many as there are lanes: t and gradient (rows, n), x and y (rows, n, channels), w and entropy (rows),
// lengths (rows) or null; w, x and y may be null.
template <class T>
struct SinkhornCall {
    int64_t rows, n, channels;
    const T *t, *x, *y, *w;
    const int64_t* lengths;
    T tau;
    int iterations;
    T* out;
    char* workspace;
};

template <class T>
struct SinkhornKernel {
    int lanes;
    int64_t (*workspace)(int64_t n, int iterations, bool gradient);  // bytes
    void (*entropy)(const SinkhornCall<T>& call);
    void (*gradient)(const SinkhornCall<T>& call);
};

struct SinkhornKernels {
    SinkhornKernel<float> float32;
    SinkhornKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const SinkhornKernels& sort_sinkhorn_kernels())

}  // namespace isotypic::cpu
