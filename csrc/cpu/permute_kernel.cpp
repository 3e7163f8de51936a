// permute on the CPU: one row of entries, each to its place.
//
// Entries of up to 64 bytes are moved by loads and stores of that size, whose addresses are all that is computed: one load of an index, one
// of an entry, one store. The row that is read stays in L1 or L2; of memory a matrix is read once and written once. Rows come in any order,
// which the machine does not foresee, so that the next one is fetched a line at a time while one is moved: a sixth of the time for
// matrices that L2 does not hold. Results of that size are written past the caches (stream.hpp).
#include "cpu/permute_kernel.hpp"

#include "cpu/stream.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int64_t kLine = 64;  // bytes that are fetched at a time

typedef int unaligned_int __attribute__((aligned(1), may_alias));
typedef long long unaligned_long __attribute__((aligned(1), may_alias));

template <int Bytes>
struct Entry {
    typedef char type __attribute__((vector_size(Bytes), aligned(1), may_alias));
};

template <int Bytes>
ISOTYPIC_INLINE void move(const char* from, char* to) {
    using Type = typename Entry<Bytes>::type;
    *reinterpret_cast<Type*>(to) = *reinterpret_cast<const Type*>(from);
}

template <int Bytes>
ISOTYPIC_INLINE void move_past(const char* from, char* to) {
#if ISOTYPIC_VECTOR_BYTES >= 32
    if constexpr (Bytes == 4)
        _mm_stream_si32(reinterpret_cast<int*>(to), *reinterpret_cast<const unaligned_int*>(from));
    else if constexpr (Bytes == 8)
        _mm_stream_si64(reinterpret_cast<long long*>(to), *reinterpret_cast<const unaligned_long*>(from));
    else if constexpr (Bytes == 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    else
        for (int at = 0; at < Bytes; at += 32)
            _mm256_stream_si256(reinterpret_cast<__m256i*>(to + at), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at)));
#else
    move<Bytes>(from, to);
#endif
}

template <int Bytes, bool Streamed>
ISOTYPIC_INLINE void row_of(const int32_t* source, int64_t n, const char* x, const char* next, char* y) {
    const auto one = [&](int64_t s) ISOTYPIC_LAMBDA {
        const char* from = x + static_cast<int64_t>(source[s]) * Bytes;
        Streamed ? move_past<Bytes>(from, y + s * Bytes) : move<Bytes>(from, y + s * Bytes);
    };
    constexpr int64_t moves = kLine / Bytes;
    int64_t s = 0;
    for (; s + moves <= n; s += moves) {
        __builtin_prefetch(next + s * Bytes);
#pragma GCC unroll 8
        for (int64_t i = s; i < s + moves; ++i) one(i);
    }
    for (; s < n; ++s) one(s);
}

template <int Bytes>
ISOTYPIC_INLINE void row_of(const int32_t* source, int64_t n, const char* x, const char* next, char* y, bool past) {
    past ? row_of<Bytes, true>(source, n, x, next, y) : row_of<Bytes, false>(source, n, x, next, y);
}

#if defined(ISOTYPIC_ISA_AVX512)
// Rows of up to 64 entries of 4 bytes lie in four registers, and two shuffles find 16 of them. y has to be aligned where `Streamed`.
template <bool Streamed>
ISOTYPIC_INLINE void shuffled(const int32_t* source, int64_t n, const char* x, const char* next, char* y) {
    __m512i from[4];
    for (int part = 0; part < 4; ++part) {
        const int64_t left = n - 16 * part;
        const __mmask16 there = left >= 16 ? 0xffff : left > 0 ? static_cast<__mmask16>((1 << left) - 1) : 0;
        from[part] = _mm512_maskz_loadu_epi32(there, x + 64 * part);
    }
    for (int64_t s = 0; s < n; s += 16) {
        __builtin_prefetch(next + 4 * s);
        const __mmask16 there = n - s >= 16 ? 0xffff : static_cast<__mmask16>((1 << (n - s)) - 1);
        const __m512i index = _mm512_maskz_loadu_epi32(there, source + s);
        const __mmask16 upper = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
        const __m512i entries = _mm512_mask_blend_epi32(upper, _mm512_permutex2var_epi32(from[0], index, from[1]),
                                                        _mm512_permutex2var_epi32(from[2], index, from[3]));
        if (Streamed)
            _mm512_stream_si512(reinterpret_cast<__m512i*>(y + 4 * s), entries);
        else
            _mm512_mask_storeu_epi32(y + 4 * s, there, entries);
    }
}

template <bool Streamed>
ISOTYPIC_INLINE void gathered(const int32_t* source, int64_t n, const char* x, const char* next, char* y) {
    int64_t s = 0;
    for (; Streamed && s < n && reinterpret_cast<uintptr_t>(y + 4 * s) % 64 != 0; ++s) move_past<4>(x + int64_t{4} * source[s], y + 4 * s);
    for (; s + 16 <= n; s += 16) {
        __builtin_prefetch(next + 4 * s);
        const __m512i entries = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, _mm512_loadu_si512(source + s), x, 4);
        Streamed ? _mm512_stream_si512(reinterpret_cast<__m512i*>(y + 4 * s), entries) : _mm512_storeu_si512(y + 4 * s, entries);
    }
    for (; s < n; ++s) Streamed ? move_past<4>(x + int64_t{4} * source[s], y + 4 * s) : move<4>(x + int64_t{4} * source[s], y + 4 * s);
}
#endif

void row(const int32_t* source, int64_t n, int64_t bytes, const char* x, const char* next, char* y, bool past) {
    switch (bytes) {
        case 1:
            return row_of<1, false>(source, n, x, next, y);
        case 2:
            return row_of<2, false>(source, n, x, next, y);
        case 4:
#if defined(ISOTYPIC_ISA_AVX512)
            if (n <= 64 && (!past || n % 16 == 0))
                return past ? shuffled<true>(source, n, x, next, y) : shuffled<false>(source, n, x, next, y);
            return past ? gathered<true>(source, n, x, next, y) : gathered<false>(source, n, x, next, y);
#else
            return row_of<4>(source, n, x, next, y, past);
#endif
        case 8:
            return row_of<8>(source, n, x, next, y, past);
        case 16:
            return row_of<16>(source, n, x, next, y, past);
        case 32:
            return row_of<32>(source, n, x, next, y, past);
        case 64:
            return row_of<64>(source, n, x, next, y, past);
        default:
            for (int64_t s = 0; s < n; ++s) {
                const char* from = x + source[s] * bytes;
                char* to = y + s * bytes;
                int64_t i = 0;
                for (; i + 32 <= bytes; i += 32) {
                    __builtin_prefetch(next + s * bytes + i);
                    move<32>(from + i, to + i);
                }
                for (; i + 4 <= bytes; i += 4) move<4>(from + i, to + i);
                for (; i < bytes; ++i) to[i] = from[i];
            }
    }
}

const PermuteKernel kKernel = {&row, &streamed};

}  // namespace

const PermuteKernel& permute_kernel() {
    return kKernel;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
