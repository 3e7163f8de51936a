// small_matrix on the CPU: one matrix to a lane of a vector, in lockstep.
//
// Matrices are transposed into lanes and back, D * D numbers each. For 16 matrices 3 x 3 in float32 (AVX-512): a frame is 90 multiply-adds,
// 6 roots and divisions, which take about 10 cycles each at this width; eigenvectors take 12 rotations of about 50 cycles, bound by their
// chain of two roots and two divisions. Floor by memory: 108 bytes a frame and 72 bytes of its adjoint more.
#include "cpu/small_matrix_kernel.hpp"

#include "cpu/tile_copy.hpp"
#include "cpu/vec.hpp"
#include "ops/small_matrix_algebra.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

using small_matrix::Operation;

template <class T>
struct Lanes {
    static ISOTYPIC_INLINE Vec<T> root(Vec<T> x) {
#if defined(ISOTYPIC_ISA_AVX512)
        if constexpr (sizeof(T) == 8)
            return _mm512_maskz_sqrt_pd(0xff, x);
        else
            return _mm512_maskz_sqrt_ps(0xffff, x);
#elif defined(ISOTYPIC_ISA_AVX2)
        if constexpr (sizeof(T) == 8)
            return _mm256_sqrt_pd(x);
        else
            return _mm256_sqrt_ps(x);
#else
        T* value = reinterpret_cast<T*>(&x);
        for (int l = 0; l < kLanes<T>; ++l)
            value[l] = sizeof(T) == 8 ? static_cast<T>(__builtin_sqrt(value[l])) : static_cast<T>(__builtin_sqrtf(value[l]));
        return x;
#endif
    }
    template <class Condition>
    static ISOTYPIC_INLINE bool any(Condition condition) {
        if constexpr (kLanes<T> == 1) {
            return condition;
        } else {
            bool found = false;
            for (int l = 0; l < kLanes<T>; ++l) found = found || condition[l];
            return found;
        }
    }
};

template <Operation operation, class T, int D>
void run(bool proper, int64_t count, const T* const* in, T* const* out) {
    constexpr int L = kLanes<T>;
    constexpr small_matrix::Signature signature = small_matrix::signature_of(operation);
    Vec<T> from[signature.inputs][D * D], to[signature.outputs][D * D];
    for (int64_t first = 0; first < count; first += L) {
        const int64_t rows = smaller(L, count - first);
        for (int i = 0; i < signature.inputs; ++i) {
            const int64_t width = signature.values_in[i] ? D : D * D;
            load_tile(in[i] + first * width, width, rows, width, reinterpret_cast<T*>(from[i]), L);
        }
        small_matrix::compute<operation, Vec<T>, T, D, Lanes<T>>(from, proper, to);
        for (int i = 0; i < signature.outputs; ++i) {
            const int64_t width = signature.values_out[i] ? D : D * D;
            store_tile(reinterpret_cast<const T*>(to[i]), L, rows, width, out[i] + first * width, width);
        }
    }
}

template <Operation operation, class T>
void run_size(int d, bool proper, int64_t count, const T* const* in, T* const* out) {
    d == 2   ? run<operation, T, 2>(proper, count, in, out)
    : d == 3 ? run<operation, T, 3>(proper, count, in, out)
             : run<operation, T, 4>(proper, count, in, out);
}

template <class T>
void run_operation(int operation, int d, bool proper, int64_t count, const T* const* in, T* const* out) {
    switch (static_cast<Operation>(operation)) {
        case Operation::frame:
            return run_size<Operation::frame, T>(d, proper, count, in, out);
        case Operation::frame_backward:
            return run_size<Operation::frame_backward, T>(d, proper, count, in, out);
        case Operation::eigen:
            return run_size<Operation::eigen, T>(d, proper, count, in, out);
        case Operation::eigen_backward:
            return run_size<Operation::eigen_backward, T>(d, proper, count, in, out);
        case Operation::polar:
            return run_size<Operation::polar, T>(d, proper, count, in, out);
        case Operation::polar_backward:
            return run_size<Operation::polar_backward, T>(d, proper, count, in, out);
        case Operation::sylvester:
            return run_size<Operation::sylvester, T>(d, proper, count, in, out);
    }
}

const SmallMatrixKernels kKernels = {&run_operation<float>, &run_operation<double>};

}  // namespace

const SmallMatrixKernels& small_matrix_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
