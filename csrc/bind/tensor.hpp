// torch.Tensor -> View, through the DLPack exchange table that torch hangs on its Tensor type: no torch header, no allocation, about 0.1
// us.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "core/view.hpp"
#include "third_party/dlpack.h"

namespace isotypic {

namespace py = pybind11;

#if defined(ISOTYPIC_WITH_CUDA)
constexpr bool kWithCuda = true;
#else
constexpr bool kWithCuda = false;
#endif

struct Tensor {
    View view;
    bool on_cuda = false;
    int device = 0;
};

inline const DLPackExchangeAPI* exchange_api(PyObject* object) {
    static const DLPackExchangeAPI* api = nullptr;
    static PyTypeObject* tensor_type = nullptr;
    if (!api) {
        const py::object type = py::module_::import("torch").attr("Tensor");
        const py::object capsule = type.attr("__dlpack_c_exchange_api__");
        const auto* found = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        if (!found) throw py::error_already_set();
        if (found->header.version.major != DLPACK_MAJOR_VERSION || !found->dltensor_from_py_object_no_sync)
            throw std::runtime_error("isotypic: this torch offers a DLPack exchange table of another version; torch >= 2.11 is needed");
        tensor_type = reinterpret_cast<PyTypeObject*>(type.ptr());
        api = found;
    }
    if (!PyObject_TypeCheck(object, tensor_type))
        throw py::type_error(std::string("isotypic: expected a torch.Tensor, got ") + Py_TYPE(object)->tp_name);
    return api;
}

inline DType to_dtype(DLDataType type) {
    if (type.lanes == 1) {
        if (type.code == kDLFloat && type.bits == 32) return DType::float32;
        if (type.code == kDLFloat && type.bits == 64) return DType::float64;
        if (type.code == kDLFloat && type.bits == 16) return DType::float16;
        if (type.code == kDLBfloat && type.bits == 16) return DType::bfloat16;
    }
    throw py::type_error("isotypic: expected a tensor of dtype float32, float64, bfloat16 or float16");
}

// What the exchange table says about a tensor. One without storage (FakeTensor, a functorch wrapper) has a null pointer: no kernel may see
// it.
inline DLTensor borrow(py::handle object) {
    DLTensor dl;
    if (exchange_api(object.ptr())->dltensor_from_py_object_no_sync(object.ptr(), &dl) != 0) throw py::error_already_set();
    if (dl.ndim > kMaxDims) throw py::value_error("isotypic: expected a tensor of at most 8 dimensions, got " + std::to_string(dl.ndim));
    int64_t numel = 1;
    for (int i = 0; i < dl.ndim; ++i) numel *= dl.shape[i];
    if (!dl.data && numel > 0) throw std::runtime_error("isotypic: a tensor without storage reached a kernel");
    if (dl.device.device_type != kDLCUDA && dl.device.device_type != kDLCPU)
        throw std::runtime_error("isotypic: expected a CPU or CUDA tensor");
    return dl;
}

// torch gives a thread its number of OpenMP threads (torch.set_num_threads) when it is first asked for it there.
inline void join_torch_threads() {
    static thread_local bool joined = false;
    if (joined) return;
    py::module_::import("torch").attr("get_num_threads")();
    joined = true;
}

inline Tensor to_tensor(py::handle object) {
    const DLTensor dl = borrow(object);
    Tensor tensor;
    tensor.view.dtype = to_dtype(dl.dtype);
    tensor.view.ndim = dl.ndim;
    int64_t contiguous = 1;
    for (int i = dl.ndim - 1; i >= 0; --i) {
        tensor.view.sizes[i] = dl.shape[i];
        tensor.view.strides[i] = dl.strides ? dl.strides[i] : contiguous;
        contiguous *= dl.shape[i];
    }
    tensor.view.data = static_cast<char*>(dl.data) + dl.byte_offset;
    tensor.on_cuda = dl.device.device_type == kDLCUDA;
    tensor.device = dl.device.device_id;
    return tensor;
}

// Plain bytes on a CUDA device: a uint8 vector, aligned as a kernel needs it.
struct Buffer {
    void* data = nullptr;
    int64_t bytes = 0;
};

inline Buffer to_buffer(py::handle object, int device, const char* name) {
    const DLTensor dl = borrow(object);
    Buffer buffer{static_cast<char*>(dl.data) + dl.byte_offset, dl.ndim == 1 ? dl.shape[0] : -1};
    const bool is_bytes = dl.dtype.code == kDLUInt && dl.dtype.bits == 8 && dl.dtype.lanes == 1;
    const bool contiguous = buffer.bytes == 0 || (buffer.bytes > 0 && (!dl.strides || dl.strides[0] == 1));
    if (!is_bytes || !contiguous || reinterpret_cast<uintptr_t>(buffer.data) % 256)
        throw py::type_error(std::string("isotypic: ") + name + " must be a contiguous uint8 vector, aligned to 256 bytes");
    if (dl.device.device_type != kDLCUDA || dl.device.device_id != device)
        throw py::value_error(std::string("isotypic: ") + name + " must be on CUDA device " + std::to_string(device));
    return buffer;
}

// The stream that torch queues work of this thread on.
inline void* current_stream(py::handle tensor, int device) {
    void* stream = nullptr;
    const DLPackExchangeAPI* api = exchange_api(tensor.ptr());
    if (!api->current_work_stream)
        throw std::runtime_error("isotypic: this torch does not tell its current CUDA stream; torch >= 2.11 is needed");
    if (api->current_work_stream(kDLCUDA, device, &stream) != 0) throw py::error_already_set();
    return stream;
}

inline bool is_contiguous(const View& view) {
    int64_t stride = 1;
    for (int i = view.ndim - 1; i >= 0; --i) {
        if (view.sizes[i] != 1 && view.strides[i] != stride) return false;
        stride *= view.sizes[i];
    }
    return true;
}

}  // namespace isotypic
