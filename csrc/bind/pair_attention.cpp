#include "ops/pair_attention.hpp"

#include <pybind11/stl.h>

#include <initializer_list>
#include <vector>

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

struct Read {
    PairAttentionCall call;
    bool on_cuda = false;
    void* stream = nullptr;
};

bool has_shape(const View& view, std::initializer_list<int64_t> sizes) {
    if (view.ndim != static_cast<int>(sizes.size()) || !is_contiguous(view)) return false;
    int i = 0;
    for (const int64_t size : sizes)
        if (view.sizes[i++] != size) return false;
    return true;
}

// tensors: q, k, v, x_q, x_k, w1, b1, w2, b2, w3, b3.
Read read(const char* what, const std::vector<py::object>& tensors, const py::object& mask, bool mix, bool softmax, int difference) {
    Read result;
    PairAttentionCall& call = result.call;
    call.mix = mix, call.softmax = softmax, call.difference = static_cast<PairDifference>(difference);
    View* views[11] = {&call.q, &call.k, &call.v, &call.x_q, &call.x_k, &call.w1, &call.b1, &call.w2, &call.b2, &call.w3, &call.b3};
    bool right = tensors.size() == 11 && difference >= 0 && difference <= 2;
    int device = 0;
    for (size_t i = 0; right && i < 11; ++i) {
        if (tensors[i].is_none()) {
            right = (i == 3 || i == 4) && difference == 2;
            continue;
        }
        const Tensor tensor = to_tensor(tensors[i]);
        if (i == 0) result.on_cuda = tensor.on_cuda, device = tensor.device;
        right = tensor.on_cuda == result.on_cuda && tensor.device == device && (i == 0 || tensor.view.dtype == call.q.dtype);
        *views[i] = tensor.view;
    }
    right = right && call.q.ndim == 4 && call.k.ndim == 4 && call.w1.ndim == 2 && call.w2.ndim == 2 && itemsize(call.q.dtype) >= 4;
    if (right) {
        const int64_t batch = call.q.sizes[0], heads = call.q.sizes[1], queries = call.q.sizes[2], width = call.q.sizes[3];
        const int64_t keys = call.k.sizes[2], hidden1 = call.w1.sizes[0], hidden2 = call.w2.sizes[0];
        int64_t inputs = mix ? heads : 0;
        if (difference != 2) {
            right = call.x_q.ndim == 3;
            const int64_t dim = right ? call.x_q.sizes[2] : 0;
            right = right && has_shape(call.x_q, {batch, queries, dim}) && has_shape(call.x_k, {batch, keys, dim});
            inputs += difference == 0 ? dim : 1;
        }
        right = right && has_shape(call.q, {batch, heads, queries, width}) && has_shape(call.k, {batch, heads, keys, width}) &&
                has_shape(call.v, {batch, heads, keys, width}) && has_shape(call.w1, {hidden1, inputs}) && has_shape(call.b1, {hidden1}) &&
                has_shape(call.w2, {hidden2, hidden1}) && has_shape(call.b2, {hidden2}) && has_shape(call.w3, {heads, hidden2}) &&
                has_shape(call.b3, {heads});
        if (right && !mask.is_none()) {
            const DLTensor dl = borrow(mask);
            const bool boolean = dl.dtype.code == kDLBool && dl.dtype.bits == 8 && dl.dtype.lanes == 1;
            right = boolean && dl.ndim == 3 && dl.shape[0] == batch && (dl.shape[1] == 1 || dl.shape[1] == queries) &&
                    dl.shape[2] == keys && (dl.device.device_type == kDLCUDA) == result.on_cuda;
            int64_t stride = 1;
            for (int i = 2; right && dl.strides && i >= 0; --i) {
                right = dl.shape[i] <= 1 || dl.strides[i] == stride;
                stride *= dl.shape[i];
            }
            call.mask = reinterpret_cast<const uint8_t*>(static_cast<const char*>(dl.data) + dl.byte_offset);
            call.mask_rows = dl.shape[1];
        }
    }
    if (!right)
        throw py::value_error(std::string(what) +
                              " kernel: q (B, H, N_q, D), k and v (B, H, N_k, D), x_q (B, N_q, d), x_k (B, N_k, d) and the " +
                              "layers must be contiguous, float32 or float64, on one device; mask boolean (B, 1 or N_q, N_k)");
    if (result.on_cuda) {
        if (!kWithCuda)
            throw std::runtime_error(
                "pair_attention: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        result.stream = current_stream(tensors[0], device);
    }
    join_torch_threads();
    return result;
}

View read_like(const char* what, py::handle object, const Read& r, int64_t width) {
    const Tensor tensor = to_tensor(object);
    const View& q = r.call.q;
    if (!has_shape(tensor.view, {q.sizes[0], q.sizes[1], q.sizes[2], width}) || tensor.view.dtype != q.dtype || tensor.on_cuda != r.on_cuda)
        throw py::value_error(std::string(what) +
                              " kernel: out and grad must be contiguous tensors (B, H, N_q, D + 1 or D) of the dtype of q");
    return tensor.view;
}

void pair_attention(const std::vector<py::object>& tensors, const py::object& mask, bool mix, bool softmax, int difference,
                    py::handle out) {
    const Read r = read("pair_attention", tensors, mask, mix, softmax, difference);
    const View result = read_like("pair_attention", out, r, r.call.out_width());
    const py::gil_scoped_release release;
    if (!r.on_cuda) return cpu::pair_attention(r.call, result);
    if constexpr (kWithCuda) cuda::pair_attention(r.call, result, r.stream);
}

int64_t pair_attention_workspace(const std::vector<py::object>& tensors, const py::object& mask, bool mix, bool softmax, int difference) {
    const Read r = read("pair_attention_workspace", tensors, mask, mix, softmax, difference);
    if constexpr (kWithCuda)
        if (r.on_cuda) return cuda::pair_attention_workspace(r.call);
    return 0;
}

void pair_attention_gradient(const std::vector<py::object>& tensors, const py::object& mask, bool mix, bool softmax, int difference,
                             py::handle out, py::handle grad, py::handle result, const py::object& workspace) {
    const Read r = read("pair_attention_gradient", tensors, mask, mix, softmax, difference);
    const View output = read_like("pair_attention_gradient", out, r, r.call.out_width());
    const View incoming = read_like("pair_attention_gradient", grad, r, r.call.out_width());
    const Tensor flat = to_tensor(result);
    if (!has_shape(flat.view, {r.call.gradient_size()}) || flat.view.dtype != r.call.q.dtype || flat.on_cuda != r.on_cuda)
        throw py::value_error("pair_attention_gradient kernel: result must be a contiguous vector of the size of all gradients");
    Buffer buffer;
    if (r.on_cuda) buffer = to_buffer(workspace, flat.device, "workspace");
    const py::gil_scoped_release release;
    if (!r.on_cuda) return cpu::pair_attention_gradient(r.call, output, incoming, flat.view);
    if constexpr (kWithCuda) cuda::pair_attention_gradient(r.call, output, incoming, flat.view, buffer.data, r.stream);
}

}  // namespace

void bind_pair_attention(py::module_& m) {
    m.def("pair_attention", &pair_attention, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"), py::arg("difference"),
          py::arg("out"), "attention with an MLP on each pair");
    m.def("pair_attention_workspace", &pair_attention_workspace, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"),
          py::arg("difference"), "bytes that the gradient needs on a device");
    m.def("pair_attention_gradient", &pair_attention_gradient, py::arg("tensors"), py::arg("mask"), py::arg("mix"), py::arg("softmax"),
          py::arg("difference"), py::arg("out"), py::arg("grad"), py::arg("result"), py::arg("workspace") = py::none(),
          "the gradients of pair_attention, one behind the other");
}

}  // namespace isotypic
