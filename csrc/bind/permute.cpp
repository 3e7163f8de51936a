#include "ops/permute.hpp"

#include "bind/bind.hpp"
#include "bind/indices.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

// x and y (batch, n, ...) or (batch, n, n, ...) of one type, order (batch, n). False where the order is no permutation, which on a device
// is not found out.
bool permute(py::handle x, py::handle order, bool inverse, int axes, py::handle y) {
    const DLTensor from = borrow(x), to = borrow(y);
    const Indices indices = to_indices(order, "order");
    const int64_t bits = static_cast<int64_t>(from.dtype.bits) * from.dtype.lanes;
    PermuteCall call;
    bool right = (axes == 1 || axes == 2) && from.ndim > axes && from.ndim == to.ndim && bits % 8 == 0 &&
                 from.dtype.code == to.dtype.code && from.dtype.bits == to.dtype.bits && from.dtype.lanes == to.dtype.lanes;
    int64_t numel = 1;
    for (int i = from.ndim - 1; right && i >= 0; --i) {
        right = from.shape[i] == to.shape[i];
        for (const DLTensor* tensor : {&from, &to})
            right = right && (!tensor->strides || tensor->shape[i] == 1 || tensor->strides[i] == numel);
        numel *= from.shape[i];
        if (i == axes + 1) call.bytes = numel;
    }
    if (from.ndim == axes + 1) call.bytes = 1;
    call.bytes *= bits / 8;
    right = right && (numel == 0 || (indices.size == from.shape[0] * from.shape[1] && (axes == 1 || from.shape[1] == from.shape[2])));
    right = right && from.device.device_type == to.device.device_type && from.device.device_id == to.device.device_id &&
            (numel == 0 || (indices.on_cuda == (from.device.device_type == kDLCUDA) && indices.device == from.device.device_id));
    if (!right)
        throw py::value_error("permute kernel: x and y (B, n, ...) must be contiguous, of one type and on one device, and order (B, n)");
    if (numel == 0) return true;
    call.batch = from.shape[0], call.n = from.shape[1], call.axes = axes, call.inverse = inverse, call.order = indices.data;
    call.x = static_cast<const char*>(from.data) + from.byte_offset;
    call.y = static_cast<char*>(to.data) + to.byte_offset;
    if (indices.on_cuda) {
        if constexpr (kWithCuda) {
            void* const stream = current_stream(x, indices.device);
            const py::gil_scoped_release release;
            cuda::permute(call, stream);
            return true;
        } else {
            throw std::runtime_error("permute: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        }
    }
    join_torch_threads();
    const py::gil_scoped_release release;
    return cpu::permute(call);
}

}  // namespace

void bind_permute(py::module_& m) {
    using py::arg;
    m.def("permute", &permute, arg("x"), arg("order"), arg("inverse"), arg("axes"), arg("y"),
          "entries in another order along one or two axes; whether the order is a permutation");
}

}  // namespace isotypic
