// Rows of any element type to and from the compute type.
#pragma once

#include <cstring>

#include "core/view.hpp"
#include "cpu/vec.hpp"

namespace isotypic::cpu::ISOTYPIC_ISA {
namespace {

ISOTYPIC_INLINE float from_bfloat16(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
}

ISOTYPIC_INLINE uint16_t to_bfloat16(float value) {  // round to nearest even; NaN stays NaN
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

ISOTYPIC_INLINE float from_float16(uint16_t half) {
    // Shift the exponent field into place and correct its bias. A subnormal is an integer times 2^-24; no float here is subnormal, so that
    // the result does not depend on whether the machine flushes those.
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
    const float small = static_cast<float>(static_cast<int32_t>(magnitude >> 13)) * 0x1p-24f;
    uint32_t bits;
    std::memcpy(&bits, &small, 4);
    if (magnitude >= 0x00800000) bits = magnitude + 0x38000000;
    if (magnitude >= 0x0f800000) bits = 0x7f800000 | (magnitude & 0x007fffff);  // infinity and NaN
    bits |= sign;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

ISOTYPIC_INLINE uint16_t to_float16(float value) {  // round to nearest even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (bits < 0x38800000) {                       // subnormal: let the addition of 0.5 round at the last place of a half
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return static_cast<uint16_t>(sign | ((bits - 0x38000000) >> 13));
}

// Rows are short: a call of memcpy or memset would cost more than the row.
template <class T>
constexpr DType kDType = sizeof(T) == sizeof(double) ? DType::float64 : DType::float32;

template <class T>
ISOTYPIC_INLINE void fill_zero(T* out, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) store(out + i, zero<T>());
    if (i < count) mask_store(out + i, (1u << (count - i)) - 1, zero<T>());
}

template <class T>
ISOTYPIC_INLINE void copy_row(const T* in, int64_t count, T* out) {
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) store(out + i, load(in + i));
    if (i < count) mask_store(out + i, (1u << (count - i)) - 1, merge_load(zero<T>(), (1u << (count - i)) - 1, in + i));
}

// out[k] = in[k - shift] for 0 <= k - shift < count, zero elsewhere, for k < width; what lies behind is overwritten up to a whole vector.
template <class T>
ISOTYPIC_INLINE void copy_shifted(const T* in, int64_t count, int64_t shift, T* out, int64_t width) {
    constexpr int64_t L = kLanes<T>;
    const auto lanes = [](int64_t k) ISOTYPIC_LAMBDA { return static_cast<uint32_t>((1ull << k) - 1); };  // the first k
    const int64_t end = smaller(count + shift, width);
    int64_t k = 0;
    for (; k + L <= shift && k < width; k += L) store(out + k, zero<T>());
    in -= shift;
    if (k < shift && k < end) {
        store(out + k, merge_load(zero<T>(), lanes(smaller(L, end - k)) & ~lanes(shift - k), in + k));
        k += L;
    }
    for (; k + L <= end; k += L) store(out + k, load(in + k));
    if (k < end) {
        store(out + k, merge_load(zero<T>(), lanes(end - k), in + k));
        k += L;
    }
    for (; k < width; k += L) store(out + k, zero<T>());
}

template <class T>
ISOTYPIC_INLINE void read_row(const void* base, DType dtype, int64_t offset, int64_t stride, int64_t count, T* out) {
    switch (dtype) {
        case DType::float32: {
            const float* p = static_cast<const float*>(base) + offset;
            if constexpr (sizeof(T) == sizeof(float))
                if (stride == 1) {
                    copy_row(p, count, out);
                    break;
                }
            if (stride == 1)
                for (int64_t i = 0; i < count; ++i) out[i] = p[i];
            else
                for (int64_t i = 0; i < count; ++i) out[i] = p[i * stride];
            break;
        }
        case DType::float64: {
            const double* p = static_cast<const double*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(p[i * stride]);
            break;
        }
        case DType::bfloat16: {
            const uint16_t* p = static_cast<const uint16_t*>(base) + offset;
            if (stride == 1)
                for (int64_t i = 0; i < count; ++i) out[i] = from_bfloat16(p[i]);
            else
                for (int64_t i = 0; i < count; ++i) out[i] = from_bfloat16(p[i * stride]);
            break;
        }
        case DType::float16: {
            const uint16_t* p = static_cast<const uint16_t*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) out[i] = from_float16(p[i * stride]);
            break;
        }
    }
}

template <class T>
ISOTYPIC_INLINE void write_row(void* base, DType dtype, int64_t offset, int64_t count, const T* in) {
    switch (dtype) {
        case DType::float32: {
            float* p = static_cast<float*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) p[i] = static_cast<float>(in[i]);
            break;
        }
        case DType::float64: {
            double* p = static_cast<double*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) p[i] = in[i];
            break;
        }
        case DType::bfloat16: {
            uint16_t* p = static_cast<uint16_t*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) p[i] = to_bfloat16(static_cast<float>(in[i]));
            break;
        }
        case DType::float16: {
            uint16_t* p = static_cast<uint16_t*>(base) + offset;
            for (int64_t i = 0; i < count; ++i) p[i] = to_float16(static_cast<float>(in[i]));
            break;
        }
    }
}

template <class T>
ISOTYPIC_INLINE T read_value(const View& view, int64_t offset) {
    T value{};
    read_row<T>(view.data, view.dtype, offset, 1, 1, &value);
    return value;
}

}  // namespace
}  // namespace isotypic::cpu::ISOTYPIC_ISA
