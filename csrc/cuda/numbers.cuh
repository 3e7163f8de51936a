// Numbers as kernels read, compute and write them. The two types of 16 bits are widened to float32 and rounded to nearest even.
#pragma once

#include <cstring>

#include "core/view.hpp"
#include "cuda/launch.cuh"

namespace isotypic {
namespace cuda {

struct Bfloat16Bits {
    uint16_t bits;
};
struct Float16Bits {
    uint16_t bits;
};

DEVICE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
DEVICE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

DEVICE float widen(float value) {
    return value;
}
DEVICE double widen(double value) {
    return value;
}
DEVICE float widen(Bfloat16Bits value) {
    return float_of(static_cast<uint32_t>(value.bits) << 16);
}

#if defined(ISOTYPIC_EMULATE)

// Rounds away the last `count` bits of a float32 pattern: to the nearest, ties to even or away from zero.
inline uint32_t round_bits(uint32_t bits, int count, bool ties_to_even) {
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    const uint32_t half = (1u << (count - 1)) - (ties_to_even ? 1u - ((bits >> count) & 1u) : 0u);
    return (bits + half) & ~((1u << count) - 1u);
}
inline float widen(Float16Bits value) {
    _Float16 half;
    std::memcpy(&half, &value.bits, 2);
    return static_cast<float>(half);
}
inline uint16_t to_bfloat16(float value) {
    return static_cast<uint16_t>(round_bits(bits_of(value), 16, true) >> 16);
}
inline uint16_t to_float16(float value) {
    const _Float16 half = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
inline uint32_t to_tf32(float value) {
    return round_bits(bits_of(value), 13, false);
}

#else

DEVICE float widen(Float16Bits value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
DEVICE uint16_t to_bfloat16(float value) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
DEVICE uint16_t to_float16(float value) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
DEVICE uint32_t to_tf32(float value) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

#endif

// The type that numbers stored as T are computed in.
template <class T>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};
template <class T>
using Compute = typename ComputeOf<T>::type;

template <class T>
DEVICE T narrow(Compute<T> value) {
    return value;
}
template <>
DEVICE Bfloat16Bits narrow<Bfloat16Bits>(float value) {
    return {to_bfloat16(value)};
}
template <>
DEVICE Float16Bits narrow<Float16Bits>(float value) {
    return {to_float16(value)};
}

// visit(a number of this type)
template <class Visit>
void with_type(DType dtype, const Visit& visit) {
    switch (dtype) {
        case DType::float32:
            return visit(float{});
        case DType::float64:
            return visit(double{});
        case DType::bfloat16:
            return visit(Bfloat16Bits{});
        case DType::float16:
            return visit(Float16Bits{});
    }
}

}  // namespace cuda
}  // namespace isotypic
