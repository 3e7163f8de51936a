// What the bindings of the operators on multivectors share: the tensors of a call on one device, and the choice of that device.
#pragma once

#include <string>
#include <vector>

#include "bind/tensor.hpp"

namespace isotypic {

// The tensors of one call, in the order in which they are added; None gives an undefined view.
class Call {
  public:
    explicit Call(const char* name) : name_(name) {}

    // A tensor of the dtype of the first one.
    View tensor(py::handle object) {
        if (object.is_none()) return View{};
        const Tensor tensor = to_tensor(object);
        if (!first_) {
            first_ = object;
            on_cuda_ = tensor.on_cuda;
            device_ = tensor.device;
            dtype_ = tensor.view.dtype;
        }
        require(tensor.on_cuda == on_cuda_ && tensor.device == device_, "all tensors must be on one device");
        require(tensor.view.dtype == dtype_, "all tensors must have one dtype");
        return tensor.view;
    }

    // A contiguous one.
    View contiguous(py::handle object) {
        const View view = tensor(object);
        require(!view.defined() || is_contiguous(view), "tensors must be contiguous");
        return view;
    }

    // Contiguous numbers of another kind: `code` and `bits` as DLPack has them. Null where the object is None.
    const void* other(py::handle object, uint8_t code, int bits, const std::vector<int64_t>& sizes) {
        if (object.is_none()) return nullptr;
        const DLTensor dl = borrow(object);
        bool fits = dl.dtype.code == code && dl.dtype.bits == bits && dl.ndim == static_cast<int>(sizes.size());
        for (int i = 0; fits && i < dl.ndim; ++i) fits = dl.shape[i] == sizes[static_cast<size_t>(i)];
        int64_t stride = 1;
        for (int i = dl.ndim - 1; fits && i >= 0; --i) {
            fits = !dl.strides || dl.shape[i] == 1 || dl.strides[i] == stride;
            stride *= dl.shape[i];
        }
        require(fits, "masks and ranges must be contiguous, of their type and of the shape of the call");
        require((dl.device.device_type == kDLCUDA) == on_cuda_ && dl.device.device_id == device_, "all tensors must be on one device");
        return static_cast<const char*>(dl.data) + dl.byte_offset;
    }

    void require(bool holds, const char* what) const {
        if (!holds) throw py::value_error(std::string(name_) + " kernel: " + what);
    }

    // host() or device(stream), without the interpreter's lock.
    template <class Host, class Device>
    void run(const Host& host, const Device& device) const {
        if (!on_cuda_) {
            join_torch_threads();
            const py::gil_scoped_release release;
            host();
            return;
        }
        if (!kWithCuda)
            throw std::runtime_error(std::string(name_) +
                                     ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        void* stream = current_stream(first_, device_);
        const py::gil_scoped_release release;
        device(stream);
    }

  private:
    const char* name_;
    py::handle first_;
    bool on_cuda_ = false;
    int device_ = 0;
    DType dtype_ = DType::float32;
};

}  // namespace isotypic
