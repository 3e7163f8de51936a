// A tensor as a kernel sees it: pointer, element type, sizes and strides (in elements). It owns nothing.
#pragma once

#include <cstdint>

namespace isotypic {

enum class DType : int { float32, float64, bfloat16, float16 };

inline int itemsize(DType dtype) {
    switch (dtype) {
        case DType::float64:
            return 8;
        case DType::float32:
            return 4;
        default:
            return 2;
    }
}

constexpr int kMaxDims = 8;

struct View {
    void* data = nullptr;
    DType dtype = DType::float32;
    int ndim = 0;
    int64_t sizes[kMaxDims] = {};
    int64_t strides[kMaxDims] = {};

    bool defined() const { return ndim > 0; }
    int64_t numel() const {
        int64_t n = 1;
        for (int i = 0; i < ndim; ++i) n *= sizes[i];
        return n;
    }
};

}  // namespace isotypic
