// What passes between the driver of rotate_mean and its kernels, which are compiled per instruction set.
#pragma once

#include <cstdint>

#include "cpu/per_isa.hpp"

namespace isotypic::cpu {

constexpr int64_t kRotatePoints = 1024;  // in a run: a multiple of every vector

// Of one b: `count` <= kRotatePoints points x (count, d), y (k, count, d) with y_stride numbers from one sample to the next, r (k, d, d).
// workspace: 4 kRotatePoints numbers. The second of two kernels writes points past the caches; samples have to be aligned to 64 bytes then.
template <class T>
struct RotateKernel {
    void (*sum)(int d, int64_t k, int64_t count, const T* r, const T* y, int64_t y_stride, T scale, T* x, T* workspace);
    void (*each[2])(int d, int64_t k, int64_t count, const T* r, const T* x, T scale, T* y, int64_t y_stride, T* workspace);
    // Adds to r where `add`.
    void (*outer)(int d, int64_t k, int64_t count, const T* x, const T* y, int64_t y_stride, T scale, bool add, T* r, T* workspace);
    // `outer` to to_r and `each` to to_y, which have the strides of r and y.
    void (*both[2])(int d, int64_t k, int64_t count, const T* r, const T* x, const T* y, T scale, T* to_y, int64_t y_stride, bool add,
                    T* to_r, T* workspace);
};

struct RotateKernels {
    RotateKernel<float> float32;
    RotateKernel<double> float64;
};

ISOTYPIC_DECLARE_PER_ISA(const RotateKernels& rotate_mean_kernels())

}  // namespace isotypic::cpu
