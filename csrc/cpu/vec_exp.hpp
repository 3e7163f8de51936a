// exp of a vector.
#pragma once

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

#if ISOTYPIC_VECTOR_BYTES > 0
// exp(x) for x <= 0, within 2 units of the last place; 0 below the smallest normal number. x = n log 2 + r with |r| <= log 2 / 2, and the
// series of exp(r) times 2^n. Adding and taking away 1.5 2^23 rounds to n and leaves it in the low bits.
ISOTYPIC_INLINE Vec<float> exp_nonpositive(Vec<float> x) {
    using Index = VecTraits<float>::index;
    const Vec<float> shifted = x * 1.44269504088896341f + 12582912.f, n = shifted - 12582912.f;
    const Vec<float> r = (x - n * 0.693145751953125f) - n * 1.42860677e-6f;
    Vec<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.f;
    const Vec<float> y = reinterpret_cast<Vec<float>>(reinterpret_cast<Index>(p) + (reinterpret_cast<Index>(shifted) << 23));
    return x < -87.f ? zero<float>() : y;
}
ISOTYPIC_INLINE Vec<double> exp_nonpositive(Vec<double> x) {
    using Index = VecTraits<double>::index;
    const Vec<double> shifted = x * 1.44269504088896340736 + 6755399441055744., n = shifted - 6755399441055744.;
    const Vec<double> r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    Vec<double> p = broadcast<double>(1. / 6227020800.);
    constexpr double inverse[] = {1. / 479001600., 1. / 39916800., 1. / 3628800., 1. / 362880., 1. / 40320., 1. / 5040., 1. / 720.,
                                  1. / 120.,       1. / 24.,       1. / 6.,       0.5,          1.,          1.};
#pragma GCC unroll 16
    for (double coefficient : inverse) p = p * r + coefficient;
    const Vec<double> y = reinterpret_cast<Vec<double>>(reinterpret_cast<Index>(p) + (reinterpret_cast<Index>(shifted) << 52));
    return x < -708. ? zero<double>() : y;
}
ISOTYPIC_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
    return a > b ? a : b;
}
ISOTYPIC_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
    return a > b ? a : b;
}
template <class T>
ISOTYPIC_INLINE T lane(Vec<T> v, int i) {
    return v[i];
}
#else
ISOTYPIC_INLINE float exp_nonpositive(float x) {
    return x < -87.f ? 0.f : __builtin_expf(x);
}
ISOTYPIC_INLINE double exp_nonpositive(double x) {
    return x < -708. ? 0. : __builtin_exp(x);
}
ISOTYPIC_INLINE float maximum(float a, float b) {
    return a > b ? a : b;
}
ISOTYPIC_INLINE double maximum(double a, double b) {
    return a > b ? a : b;
}
template <class T>
ISOTYPIC_INLINE T lane(T v, int) {
    return v;
}
#endif

template <class T>
ISOTYPIC_INLINE T sum_lanes(Vec<T> v) {
    T total = lane<T>(v, 0);
    for (int i = 1; i < kLanes<T>; ++i) total += lane<T>(v, i);
    return total;
}
template <class T>
ISOTYPIC_INLINE T largest_lane(Vec<T> v) {
    T result = lane<T>(v, 0);
    for (int i = 1; i < kLanes<T>; ++i) result = lane<T>(v, i) > result ? lane<T>(v, i) : result;
    return result;
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
