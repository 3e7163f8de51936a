// int64 tensors, which are no numbers that a kernel computes with, and tensors of any type as plain bytes.
#pragma once

#include <string>

#include "bind/tensor.hpp"

namespace isotypic {

struct Indices {
    const int64_t* data = nullptr;
    int64_t size = 0;
    bool on_cuda = false;
    int device = 0;
};

// A contiguous int64 tensor of any shape, or nothing for None.
inline Indices to_indices(py::handle object, const char* name) {
    if (object.is_none()) return {};
    const DLTensor dl = borrow(object);
    if (dl.dtype.code != kDLInt || dl.dtype.bits != 64 || dl.dtype.lanes != 1)
        throw py::type_error(std::string("isotypic: ") + name + " must be a tensor of int64");
    Indices indices;
    int64_t numel = 1;
    bool contiguous = true;
    for (int i = dl.ndim - 1; i >= 0; --i) {
        contiguous = contiguous && (!dl.strides || dl.shape[i] == 1 || dl.strides[i] == numel);
        numel *= dl.shape[i];
    }
    if (!contiguous && numel > 0) throw py::value_error(std::string("isotypic: ") + name + " must be contiguous");
    indices.data = reinterpret_cast<const int64_t*>(static_cast<const char*>(dl.data) + dl.byte_offset);
    indices.size = numel;
    indices.on_cuda = dl.device.device_type == kDLCUDA;
    indices.device = dl.device.device_id;
    return indices;
}

}  // namespace isotypic
