// multivector_scale on the CPU: bound by memory, 8 bytes for each number forward and 12 backward; an item's channels, 1 to 4 kB, are read
// again from L1. A multivector lies along the lanes, and what is summed over its components is summed once for an item where no sign of a
// grade comes between.
#include "cpu/multivector_scale_kernel.hpp"

#include "cpu/vec_exp.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// The first component of each grade, and the end.
constexpr int kGrade[6] = {0, 1, 5, 11, 15, 16};

template <class T>
constexpr int kVectors = 16 / kLanes<T>;

// One multivector as vectors.
template <class T>
struct Multivector {
    Vec<T> part[kVectors<T>];
};
template <class T>
ISOTYPIC_INLINE Multivector<T> read(const T* p) {
    Multivector<T> x;
#pragma GCC unroll 16
    for (int v = 0; v < kVectors<T>; ++v) x.part[v] = load(p + v * kLanes<T>);
    return x;
}
template <class T>
ISOTYPIC_INLINE T sum(const Multivector<T>& x) {
    Vec<T> total = x.part[0];
#pragma GCC unroll 16
    for (int v = 1; v < kVectors<T>; ++v) total += x.part[v];
    return sum_lanes<T>(total);
}

template <class T>
void gate(int64_t count, const T* x, const T* factor, T* y) {
    for (int64_t m = 0; m < count; ++m, x += 16, y += 16) {
        const Vec<T> f = broadcast<T>(factor[m]);
#pragma GCC unroll 16
        for (int at = 0; at < 16; at += kLanes<T>) store(y + at, load(x + at) * f);
    }
}

template <class T>
void gate_backward(int64_t count, const T* g, const T* x, const T* factor, const T* slope, T* dx) {
    for (int64_t m = 0; m < count; ++m, x += 16, g += 16, dx += 16) {
        const Vec<T> f = broadcast<T>(factor[m]);
        Multivector<T> along;
#pragma GCC unroll 16
        for (int v = 0; v < kVectors<T>; ++v) {
            const Vec<T> incoming = load(g + v * kLanes<T>);
            along.part[v] = incoming * load(x + v * kLanes<T>);
            store(dx + v * kLanes<T>, incoming * f);
        }
        dx[0] += slope[m] * sum<T>(along);
    }
}

// sum_i inner_i x_i^2 of each grade of one multivector.
template <class T>
ISOTYPIC_INLINE void by_grade(const T* inner, const T* x, T* sums) {
    T squares[16];
    for (int i = 0; i < 16; ++i) squares[i] = inner[i] * x[i] * x[i];
#pragma GCC unroll 5
    for (int grade = 0; grade < 5; ++grade) {
        T total = squares[kGrade[grade]];
#pragma GCC unroll 6
        for (int i = kGrade[grade] + 1; i < kGrade[grade + 1]; ++i) total += squares[i];
        sums[grade] = total;
    }
}

template <class T>
ISOTYPIC_INLINE T magnitude(T x) {
    return x < T{} ? -x : x;
}
template <class T>
ISOTYPIC_INLINE T sign(T x) {
    return x > T{} ? T{1} : x < T{} ? T{-1} : T{};
}

// The mean over channels.
template <class T>
ISOTYPIC_INLINE T mean_square(const T* inner, bool definite, int64_t C, const T* x) {
    T total = T{};
    if (definite) {
        Multivector<T> sums = {};
        const Multivector<T> factors = read(inner);
        for (int64_t c = 0; c < C; ++c) {
            const Multivector<T> a = read(x + c * 16);
#pragma GCC unroll 16
            for (int v = 0; v < kVectors<T>; ++v) sums.part[v] += a.part[v] * a.part[v];
        }
        T squares[16];
#pragma GCC unroll 16
        for (int v = 0; v < kVectors<T>; ++v) store(squares + v * kLanes<T>, sums.part[v] * factors.part[v]);
        for (int i = 0; i < 16; ++i) total += squares[i];
    } else {
        for (int64_t c = 0; c < C; ++c) {
            T grades[5];
            by_grade(inner, x + c * 16, grades);
            for (int grade = 0; grade < 5; ++grade) total += magnitude(grades[grade]);
        }
    }
    return total / static_cast<T>(C);
}

template <class T>
ISOTYPIC_INLINE T reciprocal_root(T square, T epsilon) {
    const T at = square < epsilon ? epsilon : square;  // NaN stays
    return T{1} / static_cast<T>(__builtin_sqrt(static_cast<double>(at)));
}

template <class T>
void narrowed(const MultivectorInner& inner, T* to) {
    for (int i = 0; i < 16; ++i) to[i] = static_cast<T>(inner.of[i]);
}

template <class T>
void norm(const MultivectorInner& inner_, T epsilon, int64_t N, int64_t C, const T* x, const T* spread, T* y) {
    alignas(64) T inner[16];
    narrowed(inner_, inner);
    for (int64_t n = 0; n < N; ++n, x += C * 16, y += C * 16) {
        const Vec<T> r = broadcast<T>(reciprocal_root(mean_square(inner, inner_.definite, C, x), epsilon));
        if (spread)
            for (int64_t i = 0; i < C * 16; i += kLanes<T>) store(y + i, load(x + i) * r * load(spread + i));
        else
            for (int64_t i = 0; i < C * 16; i += kLanes<T>) store(y + i, load(x + i) * r);
    }
}

template <class T>
void norm_backward(const MultivectorInner& inner_, T epsilon, int64_t N, int64_t C, const T* g, const T* x, const T* spread, T* dx,
                   T* sums) {
    alignas(64) T inner[16];
    narrowed(inner_, inner);
    for (int64_t n = 0; n < N; ++n, x += C * 16, g += C * 16, dx += C * 16) {
        const T square = mean_square(inner, inner_.definite, C, x), root = reciprocal_root(square, epsilon);
        const Vec<T> r = broadcast<T>(root);
        Vec<T> along = zero<T>();
        for (int64_t i = 0; i < C * 16; i += kLanes<T>) {
            const Vec<T> product = load(g + i) * load(x + i);
            if (sums) store(sums + i, load(sums + i) + product * r);
            along += spread ? product * load(spread + i) : product;
        }
        const T back = square < epsilon ? T{} : root * root * root * sum_lanes<T>(along) / static_cast<T>(C);
        for (int64_t c = 0; c < C; ++c) {
            alignas(64) T signs[16];
            if (inner_.definite) {
                for (int i = 0; i < 16; ++i) signs[i] = inner[i] * back;
            } else {
                T grades[5];
                by_grade(inner, x + c * 16, grades);
#pragma GCC unroll 5
                for (int grade = 0; grade < 5; ++grade)
#pragma GCC unroll 6
                    for (int i = kGrade[grade]; i < kGrade[grade + 1]; ++i) signs[i] = sign(grades[grade]) * inner[i] * back;
            }
#pragma GCC unroll 16
            for (int at = 0; at < 16; at += kLanes<T>) {
                const int64_t i = c * 16 + at;
                const Vec<T> h = spread ? load(g + i) * load(spread + i) : load(g + i);
                store(dx + i, h * r - load(signs + at) * load(x + i));
            }
        }
    }
}

template <class T>
constexpr MultivectorScaleKernel<T> kernel() {
    return {&gate<T>, &gate_backward<T>, &norm<T>, &norm_backward<T>};
}

const MultivectorScaleKernels kKernels = {kernel<float>(), kernel<double>()};

}  // namespace

const MultivectorScaleKernels& multivector_scale_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
