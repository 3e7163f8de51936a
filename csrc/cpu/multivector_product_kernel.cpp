// multivector_product on the CPU: one multivector to a lane of a vector.
//
// The geometric product of G(3,0,1) is 192 multiply-adds and 192 bytes, the join 81. Per 16 multivectors of float32 on a machine with
// AVX-512: 96 cycles of multiply-adds on two ports, and into lanes and back 96 shuffles, 96 merges and 128 accesses of quarters of a vector
// (multivector_tile.hpp), on the same two ports: about 200 cycles together, 12 a multivector, 4.6 ns at 2.6 GHz, as long as the operands
// lie in L2 (192 bytes from there take 3 ns).
#include "cpu/multivector_product_kernel.hpp"

#include "core/algebra.hpp"
#include "cpu/multivector_tile.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

// What lies in memory as 16 bits is widened into a tile of the stack and narrowed from one.
struct Bfloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};
ISOTYPIC_INLINE float widen(Bfloat16 x) {
    return from_bfloat16(x.bits);
}
ISOTYPIC_INLINE float widen(Float16 x) {
    return from_float16(x.bits);
}
template <class T>
ISOTYPIC_INLINE T widen(T x) {
    return x;
}
template <class M>
struct Arithmetic {
    using type = M;
};
template <>
struct Arithmetic<Bfloat16> {
    using type = float;
};
template <>
struct Arithmetic<Float16> {
    using type = float;
};
ISOTYPIC_INLINE void narrow(float x, Bfloat16& to) {
    to.bits = to_bfloat16(x);
}
ISOTYPIC_INLINE void narrow(float x, Float16& to) {
    to.bits = to_float16(x);
}
template <class T>
ISOTYPIC_INLINE void narrow(T x, T& to) {
    to = x;
}

// `rows` multivectors widened into a tile (L, 16); the others of the tile are zero.
template <class M, class T>
void gather(const M* p, int64_t stride, int64_t rows, T* tile) {
    for (int64_t r = 0; r < kLanes<T>; ++r)
        for (int i = 0; i < 16; ++i) tile[r * 16 + i] = r < rows ? widen(p[r * stride + i]) : T{};
}

template <class M, class Product>
void run(int64_t count, const void* a_, int64_t a_stride, const void* b_, int64_t b_stride, const void* scale_, int64_t scale_stride,
         void* z_, int64_t z_stride) {
    using T = typename Arithmetic<M>::type;
    constexpr int L = kLanes<T>;
    constexpr bool direct = sizeof(M) == sizeof(T);
    const M *a = static_cast<const M*>(a_), *b = static_cast<const M*>(b_), *scale = static_cast<const M*>(scale_);
    M* z = static_cast<M*>(z_);
    alignas(64) T tile[3 * 16 * L], factors[L];
    for (int64_t first = 0; first < count; first += L, a += L * a_stride, b += L * b_stride, z += L * z_stride) {
        const int64_t rows = smaller(L, count - first);
        Vec<T> x[16], y[16], r[16];
        if (direct && rows == L) {
            load_multivectors(reinterpret_cast<const T*>(a), a_stride, x);
            load_multivectors(reinterpret_cast<const T*>(b), b_stride, y);
        } else {
            gather(a, a_stride, rows, tile);
            gather(b, b_stride, rows, tile + 16 * L);
            load_multivectors(tile, 16, x);
            load_multivectors(tile + 16 * L, 16, y);
        }
        Product::apply(x, y, r);
        if (scale) {
            if (scale_stride)  // otherwise all of them are the first one
                for (int64_t l = 0; l < L; ++l) factors[l] = l < rows ? widen(scale[(first + l) * scale_stride]) : T{};
            const Vec<T> s = scale_stride ? load(factors) : broadcast<T>(widen(scale[0]));
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) r[i] *= s;
        }
        if (direct && rows == L) {
            store_multivectors(r, reinterpret_cast<T*>(z), z_stride);
        } else {
            T* out = tile + 2 * 16 * L;
            store_multivectors(r, out, 16);
            for (int64_t l = 0; l < rows; ++l)
                for (int i = 0; i < 16; ++i) narrow(out[l * 16 + i], z[l * z_stride + i]);
        }
    }
}

#define OF_FLOAT(name, Product) &run<float, algebra::Product>,
#define OF_DOUBLE(name, Product) &run<double, algebra::Product>,
#define OF_BFLOAT16(name, Product) &run<Bfloat16, algebra::Product>,
#define OF_FLOAT16(name, Product) &run<Float16, algebra::Product>,

const MultivectorProductKernels kKernels = {{{ISOTYPIC_ALGEBRA_PRODUCTS(OF_FLOAT)},
                                             {ISOTYPIC_ALGEBRA_PRODUCTS(OF_DOUBLE)},
                                             {ISOTYPIC_ALGEBRA_PRODUCTS(OF_BFLOAT16)},
                                             {ISOTYPIC_ALGEBRA_PRODUCTS(OF_FLOAT16)}}};

}  // namespace

const MultivectorProductKernels& multivector_product_kernels() {
    return kKernels;
}

}  // namespace isotypic::cpu::ISOTYPIC_ISA
