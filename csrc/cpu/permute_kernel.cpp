// permute on the CPU: one row of entries, each to its place.
//
// Entries of up to 64 bytes are moved by loads and stores of that size, whose addresses are all that is computed: one load of an index, one
// of an entry, one store. The row that is read stays in L1 or L2; of memory a matrix is read once and written once. Rows come in any order,
// which the machine does not foresee, so that the next one is fetched a line at a time while one is moved: a sixth of the time for
// matrices that L2 does not hold.
#include "cpu/permute_kernel.hpp"

#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

constexpr int64_t kLine = 64;  // bytes that are fetched at a time

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
ISOTYPIC_INLINE void row_of(const int32_t* source, int64_t n, const char* x, const char* next, char* y) {
    constexpr int64_t moves = kLine / Bytes;
    int64_t s = 0;
    for (; s + moves <= n; s += moves) {
        __builtin_prefetch(next + s * Bytes);
#pragma GCC unroll 8
        for (int64_t i = s; i < s + moves; ++i) move<Bytes>(x + static_cast<int64_t>(source[i]) * Bytes, y + i * Bytes);
    }
    for (; s < n; ++s) move<Bytes>(x + static_cast<int64_t>(source[s]) * Bytes, y + s * Bytes);
}

void row(const int32_t* source, int64_t n, int64_t bytes, const char* x, const char* next, char* y) {
    switch (bytes) {
        case 1:
            return row_of<1>(source, n, x, next, y);
        case 2:
            return row_of<2>(source, n, x, next, y);
        case 4: {
#if defined(ISOTYPIC_ISA_AVX512)
            int64_t s = 0;
            for (; s + 16 <= n; s += 16) {
                __builtin_prefetch(next + 4 * s);
                _mm512_storeu_si512(y + 4 * s,
                                    _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, _mm512_loadu_si512(source + s), x, 4));
            }
            for (; s < n; ++s) move<4>(x + static_cast<int64_t>(source[s]) * 4, y + s * 4);
            return;
#else
            return row_of<4>(source, n, x, next, y);
#endif
        }
        case 8:
            return row_of<8>(source, n, x, next, y);
        case 16:
            return row_of<16>(source, n, x, next, y);
        case 32:
            return row_of<32>(source, n, x, next, y);
        case 64:
            return row_of<64>(source, n, x, next, y);
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

}  // namespace

PermuteRow permute_row() {
    return &row;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
