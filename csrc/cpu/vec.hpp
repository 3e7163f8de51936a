// One vector register as a type, for the instruction set this file is compiled for.
//
// Every `cpu/*_kernel.cpp` is compiled once per instruction set with ISOTYPIC_ISA naming its namespace. Arithmetic uses the compilers'
// vector extension (operators on `V`), so that only masked access needs an intrinsic. Nothing here may have external linkage: two variants
// of one inline function in one binary would be merged, and the baseline machine would run the wrong one.
#pragma once

#include <cstdint>

#if defined(ISOTYPIC_ISA_AVX512) || defined(ISOTYPIC_ISA_AVX2)
#include <immintrin.h>
#endif

#if defined(ISOTYPIC_ISA_AVX512)
#define ISOTYPIC_VECTOR_BYTES 64
#elif defined(ISOTYPIC_ISA_AVX2)
#define ISOTYPIC_VECTOR_BYTES 32
#elif defined(ISOTYPIC_ISA_NEON)
#define ISOTYPIC_VECTOR_BYTES 16
#else
#define ISOTYPIC_VECTOR_BYTES 0
#endif

#define ISOTYPIC_INLINE inline __attribute__((always_inline))
#define ISOTYPIC_LAMBDA __attribute__((always_inline))

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

ISOTYPIC_INLINE int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
ISOTYPIC_INLINE int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

template <class T>
struct VecTraits;

#if ISOTYPIC_VECTOR_BYTES > 0
template <>
struct VecTraits<float> {
    typedef float type __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES)));
    typedef float unaligned __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES), aligned(4)));
    typedef int32_t index __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES)));
    static constexpr int lanes = ISOTYPIC_VECTOR_BYTES / 4;
};
template <>
struct VecTraits<double> {
    typedef double type __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES)));
    typedef double unaligned __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES), aligned(8)));
    typedef int64_t index __attribute__((vector_size(ISOTYPIC_VECTOR_BYTES)));
    static constexpr int lanes = ISOTYPIC_VECTOR_BYTES / 8;
};
#else
template <>
struct VecTraits<float> {
    using type = float;
    using unaligned = float;
    static constexpr int lanes = 1;
};
template <>
struct VecTraits<double> {
    using type = double;
    using unaligned = double;
    static constexpr int lanes = 1;
};
#endif

template <class T>
using Vec = typename VecTraits<T>::type;
template <class T>
constexpr int kLanes = VecTraits<T>::lanes;
// Positions in one register tile: two vectors side by side.
template <class T>
constexpr int kTile = 2 * kLanes<T>;

template <class T>
ISOTYPIC_INLINE Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename VecTraits<T>::unaligned*>(p);
}
template <class T>
ISOTYPIC_INLINE void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename VecTraits<T>::unaligned*>(p) = v;
}
template <class T>
ISOTYPIC_INLINE Vec<T> zero() {
    return Vec<T>{};
}
template <class T>
ISOTYPIC_INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};  // exact for every value, and folded to a plain broadcast
}

#if defined(ISOTYPIC_ISA_AVX2)
ISOTYPIC_INLINE __m256i lane_mask(float, uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane), lane);
}
ISOTYPIC_INLINE __m256i lane_mask(double, uint32_t bits) {
    const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), lane), lane);
}
#endif

// Lanes of `bits` from memory, the others from v; memory behind the other lanes is not touched.
ISOTYPIC_INLINE Vec<float> merge_load(Vec<float> v, uint32_t bits, const float* p) {
#if defined(ISOTYPIC_ISA_AVX512)
    return _mm512_mask_loadu_ps(v, static_cast<__mmask16>(bits), p);
#elif defined(ISOTYPIC_ISA_AVX2)
    const __m256i mask = lane_mask(0.f, bits);
    return _mm256_blendv_ps(v, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
#elif ISOTYPIC_VECTOR_BYTES > 0
    for (int l = 0; l < kLanes<float>; ++l)
        if (bits >> l & 1) v[l] = p[l];
    return v;
#else
    return bits & 1 ? *p : v;
#endif
}
ISOTYPIC_INLINE Vec<double> merge_load(Vec<double> v, uint32_t bits, const double* p) {
#if defined(ISOTYPIC_ISA_AVX512)
    return _mm512_mask_loadu_pd(v, static_cast<__mmask8>(bits), p);
#elif defined(ISOTYPIC_ISA_AVX2)
    const __m256i mask = lane_mask(0., bits);
    return _mm256_blendv_pd(v, _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
#elif ISOTYPIC_VECTOR_BYTES > 0
    for (int l = 0; l < kLanes<double>; ++l)
        if (bits >> l & 1) v[l] = p[l];
    return v;
#else
    return bits & 1 ? *p : v;
#endif
}

ISOTYPIC_INLINE void mask_store(float* p, uint32_t bits, Vec<float> v) {
#if defined(ISOTYPIC_ISA_AVX512)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(bits), v);
#elif defined(ISOTYPIC_ISA_AVX2)
    _mm256_maskstore_ps(p, lane_mask(0.f, bits), v);
#elif ISOTYPIC_VECTOR_BYTES > 0
    for (int l = 0; l < kLanes<float>; ++l)
        if (bits >> l & 1) p[l] = v[l];
#else
    if (bits & 1) *p = v;
#endif
}
ISOTYPIC_INLINE void mask_store(double* p, uint32_t bits, Vec<double> v) {
#if defined(ISOTYPIC_ISA_AVX512)
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(bits), v);
#elif defined(ISOTYPIC_ISA_AVX2)
    _mm256_maskstore_pd(p, lane_mask(0., bits), v);
#elif ISOTYPIC_VECTOR_BYTES > 0
    for (int l = 0; l < kLanes<double>; ++l)
        if (bits >> l & 1) p[l] = v[l];
#else
    if (bits & 1) *p = v;
#endif
}

// dst[m * dst_stride + n] = src[n * src_stride + m] for m, n < kLanes<T>.
template <class T>
ISOTYPIC_INLINE void transpose(const T* src, int64_t src_stride, T* dst, int64_t dst_stride) {
    constexpr int L = kLanes<T>;
#if ISOTYPIC_VECTOR_BYTES > 0 && !defined(__clang__)
    // log2(L) rounds of two-source shuffles that swap the off-diagonal blocks of size `half`.
    Vec<T> row[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) row[i] = load(src + i * src_stride);
#pragma GCC unroll 4
    for (int half = L / 2; half > 0; half /= 2) {
        typename VecTraits<T>::index upper, lower;
        for (int l = 0; l < L; ++l) {
            upper[l] = l & half ? L + l - half : l;
            lower[l] = l & half ? L + l : l + half;
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) {
            if (i & half) continue;
            const Vec<T> a = row[i], b = row[i + half];
            row[i] = __builtin_shuffle(a, b, upper);
            row[i + half] = __builtin_shuffle(a, b, lower);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) store(dst + i * dst_stride, row[i]);
#else
    for (int n = 0; n < L; ++n)
        for (int m = 0; m < L; ++m) dst[m * dst_stride + n] = src[n * src_stride + m];
#endif
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
