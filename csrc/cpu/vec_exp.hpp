// exp of a vector of numbers that are not positive, down to where the result leaves the normal numbers.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// exp(x) for -87 <= x <= 0: x = n log 2 + g with |g| <= log(2) / 2, a polynomial of g, and n added to the exponent. 1 ulp.
ISOTYPIC_INLINE Vec<float> exp_negative(Vec<float> x) {
#if ISOTYPIC_VECTOR_BYTES > 0
    using Index = VecTraits<float>::index;
    const Vec<float> magic = broadcast<float>(12582912.f);  // its last bit is worth 1
    const Vec<float> shifted = x * broadcast<float>(1.44269504088896341f) + magic, n = shifted - magic;
    const Vec<float> g = (x - n * broadcast<float>(0.693359375f)) - n * broadcast<float>(-2.12194440e-4f);
    Vec<float> p = broadcast<float>(1.9875691500e-4f);
    p = p * g + broadcast<float>(1.3981999507e-3f);
    p = p * g + broadcast<float>(8.3334519073e-3f);
    p = p * g + broadcast<float>(4.1665795894e-2f);
    p = p * g + broadcast<float>(1.6666665459e-1f);
    p = p * g + broadcast<float>(5.0000001201e-1f);
    p = p * (g * g) + (g + broadcast<float>(1.f));
    return (Vec<float>)((Index)p + ((Index)shifted << 23));
#else
    return __builtin_expf(x);
#endif
}

// exp(x) for -708 <= x <= 0, by the series to the 13th power, whose next term is below 1e-17.
ISOTYPIC_INLINE Vec<double> exp_negative(Vec<double> x) {
#if ISOTYPIC_VECTOR_BYTES > 0
    using Index = VecTraits<double>::index;
    const Vec<double> magic = broadcast<double>(6755399441055744.0);
    const Vec<double> shifted = x * broadcast<double>(1.4426950408889634074) + magic, n = shifted - magic;
    const Vec<double> g = (x - n * broadcast<double>(6.93145751953125e-1)) - n * broadcast<double>(1.42860682030941723212e-6);
    constexpr double kInverseFactorials[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                             1.0 / 5040,       1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
    Vec<double> p = broadcast<double>(kInverseFactorials[0]);
#pragma GCC unroll 16
    for (int i = 1; i < 12; ++i) p = p * g + broadcast<double>(kInverseFactorials[i]);
    p = p * (g * g) + (g + broadcast<double>(1.0));
    return (Vec<double>)((Index)p + ((Index)shifted << 52));
#else
    return __builtin_exp(x);
#endif
}

// The sum of the lanes.
template <class T>
ISOTYPIC_INLINE T sum_lanes(Vec<T> v) {
#if ISOTYPIC_VECTOR_BYTES > 0 && !defined(__clang__)
    typename VecTraits<T>::index turn;
#pragma GCC unroll 4
    for (int half = kLanes<T> / 2; half > 0; half /= 2) {
        for (int l = 0; l < kLanes<T>; ++l) turn[l] = (l + half) % kLanes<T>;
        v += __builtin_shuffle(v, turn);
    }
    return v[0];
#elif ISOTYPIC_VECTOR_BYTES > 0
    T sum = v[0];
    for (int l = 1; l < kLanes<T>; ++l) sum += v[l];
    return sum;
#else
    return v;
#endif
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
