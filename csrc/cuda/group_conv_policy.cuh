// Compute policies: how numbers are stored, rounded, multiplied and accumulated. The kernels are written once over these.
//
//                   tensors     operands      products                        accumulated in
//   Float32         float32     float32       fused multiply-add              float32
//   TensorFloat32   float32     TF32          mma.sync m16n8k8                float32
//   BFloat16        bfloat16    bfloat16      mma.sync m16n8k16               float32
//   Float16         float16     float16       mma.sync m16n8k16               float32
//   Float64         float64     float64       fused multiply-add              float64
//
// Operands are sums of up to |G| values. Where those could leave the range of the type (kNarrowRange) they are scaled by powers of two.
//
// One step of the inner index is 32 bytes of operand for each of them, so all share the layout of tiles in shared memory: A has rows of 32
// bytes, kRowBytes apart (48, which spreads the eight rows that a quarter of ldmatrix reads over all banks), and B comes in tiles of 8
// columns, 256 bytes, element (k, n) at `b_index(k, n)`: in the order of the mma fragment, 8 bytes a lane, or row by row for the
// multiply-add policies.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"

namespace isotypic {
namespace cuda {

constexpr int kRowBytes = 48;
constexpr int kColumnTile = 8;
constexpr int kColumnTileBytes = 256;

#if defined(ISOTYPIC_EMULATE)

inline int lane_index() {
    return emulation::lane();
}

inline int keep(int value) {
    return value;
}

inline void load_a(uint32_t (&words)[4], const char* half_row) {
    emulation::ldmatrix_x4(words, half_row);
}

// Copies that complete at wait_for_copies(), or zeros where `valid` is false.
template <int Bytes>
void copy_async(void* target, const void* source, bool valid = true) {
    emulation::copy_async(target, source, Bytes, valid);
}
inline void wait_for_copies() {
    emulation::wait_for_copies();
}

#else

DEVICE int lane_index() {
    return static_cast<int>(threadIdx.x & 31u);
}

// A number that stays in its register: where registers are short the compiler would rather compute it anew in every step, but it cannot look
// through an exchange. All lanes of a warp call it.
DEVICE int keep(int value) {
    return __shfl_sync(0xffffffffu, value, lane_index());
}

DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The A fragment of 16 rows: lane l gives the address of half a row.
DEVICE void load_a(uint32_t (&words)[4], const char* half_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(half_row)));
}

// Copies that complete at wait_for_copies(), or zeros where `valid` is false.
template <int Bytes>
DEVICE void copy_async(void* target, const void* source, bool valid = true) {
    const int count = valid ? Bytes : 0;
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)), "l"(source), "r"(count) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(target)), "l"(source), "n"(Bytes), "r"(count)
                     : "memory");
}
DEVICE void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

#endif

// Two words of pairs (a0, a1), (b0, b1) as (a0, b0), (a1, b1).
DEVICE void interleave(uint32_t a, uint32_t b, uint32_t& low, uint32_t& high) {
#if defined(ISOTYPIC_EMULATE)
    low = (a & 0xffffu) | b << 16;
    high = a >> 16 | (b & 0xffff0000u);
#else
    low = __byte_perm(a, b, 0x5410);
    high = __byte_perm(a, b, 0x7632);
#endif
}

// C (16, 8) of one lane: c[2 i + j] is row lane / 4 + 8 i and column 2 (lane % 4) + j, for every policy.
DEVICE int fragment_row(int i) {
    return lane_index() / 4 + 8 * (i / 2);
}
DEVICE int fragment_column(int i) {
    return 2 * (lane_index() % 4) + i % 2;
}

// Where a lane begins to read in 16 rows of A and in a tile of B, for fused multiply-adds and for fragments. What multiplies takes pointers
// with these added.
DEVICE int first_of_rows() {
    return lane_index() / 4 * kRowBytes;
}
template <class T>
DEVICE int first_of_columns() {
    return 2 * (lane_index() % 4) * static_cast<int>(sizeof(T));
}
DEVICE int first_of_a_fragment() {
    return lane_index() % 16 * kRowBytes + lane_index() / 16 * 16;
}
DEVICE int first_of_b_fragment() {
    return lane_index() * 8;
}

// acc[m][n] += A rows (16 m ...) times column tile n, fused multiply-adds: A is read 16 bytes along the inner index at a time.
template <class T, int M, int N, int Rows, int Columns>
DEVICE void multiply_add(T (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
    constexpr int kVector = 16 / sizeof(T);
    struct alignas(16) Vector {
        T value[kVector];
    };
    struct alignas(2 * sizeof(T)) Pair {
        T value[2];
    };
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Vector left[M][2];
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int i = 0; i < 2; ++i) left[m][i] = *reinterpret_cast<const Vector*>(a + (16 * m + 8 * i) * kRowBytes + 16 * half);
#pragma unroll
        for (int k = 0; k < kVector; ++k)
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const Pair right =
                    *reinterpret_cast<const Pair*>(b + n * tile_stride + (half * kVector + k) * kColumnTile * static_cast<int>(sizeof(T)));
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int i = 0; i < 4; ++i) acc[m][n][i] += left[m][i / 2].value[k] * right.value[i % 2];
            }
    }
}

// The same on the tensor cores; Policy::mma is the instruction.
template <class Policy, int M, int N, int Rows, int Columns>
DEVICE void multiply_fragments(float (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_a(left[m], a + m * 16 * kRowBytes);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        struct alignas(8) Pair {
            uint32_t word[2];
        };
        const Pair right = *reinterpret_cast<const Pair*>(b + n * tile_stride);
#pragma unroll
        for (int m = 0; m < M; ++m) Policy::mma(acc[m][n], left[m], right.word);
    }
}

struct Float32 {
    using Storage = float;
    using Accumulator = float;
    using Word = uint32_t;              // what a thread of a transform writes at a time
    static constexpr int kPerWord = 1;  // operands in a word
    static constexpr int kStep = 8;     // operands in 32 bytes
    static constexpr bool kNarrowRange = false;
    static DEVICE Word pack(const float* v) { return bits_of(v[0]); }
    static DEVICE int b_index(int k, int n) { return k * kColumnTile + n; }
    static DEVICE int first_a() { return first_of_rows(); }
    static DEVICE int first_b() { return first_of_columns<float>(); }
    template <int M, int N, int Rows, int Columns>
    static DEVICE void multiply(float (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
        multiply_add<float, M, N>(acc, a, b, tile_stride);
    }
};

struct Float64 {
    using Storage = double;
    using Accumulator = double;
    using Word = uint64_t;
    static constexpr int kPerWord = 1;
    static constexpr int kStep = 4;
    static constexpr bool kNarrowRange = false;
    static DEVICE Word pack(const double* v) {
        Word word;
        memcpy(&word, v, 8);
        return word;
    }
    static DEVICE int b_index(int k, int n) { return k * kColumnTile + n; }
    static DEVICE int first_a() { return first_of_rows(); }
    static DEVICE int first_b() { return first_of_columns<double>(); }
    template <int M, int N, int Rows, int Columns>
    static DEVICE void multiply(double (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
        multiply_add<double, M, N>(acc, a, b, tile_stride);
    }
};

struct TensorFloat32 {
    using Storage = float;
    using Accumulator = float;
    using Word = uint32_t;
    static constexpr int kPerWord = 1;
    static constexpr int kStep = 8;
    static constexpr bool kNarrowRange = false;
    static DEVICE Word pack(const float* v) { return to_tf32(v[0]); }
    static DEVICE int b_index(int k, int n) { return (n * 4 + k % 4) * 2 + k / 4; }
    static DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ISOTYPIC_EMULATE)
        emulation::mma(c, a, b, 1, [](uint32_t word, int) { return float_of(word & ~0x1fffu); });
#else
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
    }
    static DEVICE int first_a() { return first_of_a_fragment(); }
    static DEVICE int first_b() { return first_of_b_fragment(); }
    template <int M, int N, int Rows, int Columns>
    static DEVICE void multiply(float (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
        multiply_fragments<TensorFloat32, M, N>(acc, a, b, tile_stride);
    }
};

// The inner index runs in pairs within a word: element (k, n) sits in word k / 2 of its column.
DEVICE int b_index_of_pairs(int k, int n) {
    return ((n * 4 + k / 2 % 4) * 2 + k / 8) * 2 + k % 2;
}

struct BFloat16 {
    using Storage = Bfloat16Bits;
    using Accumulator = float;
    using Word = uint32_t;
    static constexpr int kPerWord = 2;
    static constexpr int kStep = 16;
    static constexpr bool kNarrowRange = false;
    static DEVICE Word pack(const float* v) {
#if defined(ISOTYPIC_EMULATE)
        return to_bfloat16(v[0]) | static_cast<uint32_t>(to_bfloat16(v[1])) << 16;
#else
        uint32_t word;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(v[1]), "f"(v[0]));
        return word;
#endif
    }
    static DEVICE int b_index(int k, int n) { return b_index_of_pairs(k, n); }
    static DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ISOTYPIC_EMULATE)
        emulation::mma(c, a, b, 2, [](uint32_t word, int half) { return float_of(half ? word & 0xffff0000u : word << 16); });
#else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
    }
    static DEVICE int first_a() { return first_of_a_fragment(); }
    static DEVICE int first_b() { return first_of_b_fragment(); }
    template <int M, int N, int Rows, int Columns>
    static DEVICE void multiply(float (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
        multiply_fragments<BFloat16, M, N>(acc, a, b, tile_stride);
    }
};

struct Float16 {
    using Storage = Float16Bits;
    using Accumulator = float;
    using Word = uint32_t;
    static constexpr int kPerWord = 2;
    static constexpr int kStep = 16;
    static constexpr bool kNarrowRange = true;
    static DEVICE Word pack(const float* v) {
#if defined(ISOTYPIC_EMULATE)
        return to_float16(v[0]) | static_cast<uint32_t>(to_float16(v[1])) << 16;
#else
        uint32_t word;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(v[1]), "f"(v[0]));
        return word;
#endif
    }
    static DEVICE int b_index(int k, int n) { return b_index_of_pairs(k, n); }
    static DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(ISOTYPIC_EMULATE)
        emulation::mma(c, a, b, 2,
                       [](uint32_t word, int half) { return widen(Float16Bits{static_cast<uint16_t>(half ? word >> 16 : word)}); });
#else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
    }
    static DEVICE int first_a() { return first_of_a_fragment(); }
    static DEVICE int first_b() { return first_of_b_fragment(); }
    template <int M, int N, int Rows, int Columns>
    static DEVICE void multiply(float (&acc)[Rows][Columns][4], const char* a, const char* b, int tile_stride) {
        multiply_fragments<Float16, M, N>(acc, a, b, tile_stride);
    }
};

}  // namespace cuda
}  // namespace isotypic
