#include "ops/batch_norm.hpp"

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

[[noreturn]] void refuse() {
    throw py::value_error(
        "batch_norm kernels: x, g, y and dx must be contiguous tensors (O, C, I) of one dtype with an element, and statistics and sums (2, "
        "C), weight and "
        "bias (C) contiguous, float64 where x is and float32 otherwise, all on one device");
}

// Checks shapes, dtypes and devices against x.
class Call {
  public:
    explicit Call(py::handle x) : x_(to_tensor(x)) {
        if (x_.view.ndim != 3 || x_.view.numel() == 0 || !is_contiguous(x_.view)) refuse();
        if (!x_.on_cuda) {
            join_torch_threads();
            return;
        }
        if (!kWithCuda)
            throw std::runtime_error("batch_norm: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        stream_ = current_stream(x, x_.device);
    }

    const View& x() const { return x_.view; }
    bool on_cuda() const { return x_.on_cuda; }

    View like_x(py::handle object) const {
        const Tensor tensor = here(object);
        if (tensor.view.ndim != 3 || tensor.view.dtype != x_.view.dtype) refuse();
        for (int i = 0; i < 3; ++i)
            if (tensor.view.sizes[i] != x_.view.sizes[i]) refuse();
        return tensor.view;
    }
    View of_channels(py::handle object, int rows) const {  // (C), or (rows, C)
        if (object.is_none()) return {};
        const Tensor tensor = here(object);
        const int ndim = rows ? 2 : 1;
        if (tensor.view.ndim != ndim || (rows && tensor.view.sizes[0] != rows) || tensor.view.sizes[ndim - 1] != x_.view.sizes[1]) refuse();
        if (tensor.view.dtype != (x_.view.dtype == DType::float64 ? DType::float64 : DType::float32)) refuse();
        return tensor.view;
    }
    cuda::BatchNormContext context(py::handle workspace) const {
        if (workspace.is_none()) return {nullptr, stream_};
        const Buffer buffer = to_buffer(workspace, x_.device, "workspace");
        if constexpr (kWithCuda)
            if (buffer.bytes < cuda::batch_norm_workspace(x_.view)) throw py::value_error("batch_norm: the workspace is too small");
        return {buffer.data, stream_};
    }

  private:
    Tensor here(py::handle object) const {
        const Tensor tensor = to_tensor(object);
        if (!is_contiguous(tensor.view) || tensor.on_cuda != x_.on_cuda || tensor.device != x_.device) refuse();
        return tensor;
    }

    Tensor x_;
    void* stream_ = nullptr;
};

int64_t batch_norm_workspace(py::handle x) {
    const Tensor tensor = to_tensor(x);
    if (tensor.view.ndim != 3) refuse();
    if constexpr (kWithCuda)
        return cuda::batch_norm_workspace(tensor.view);
    else
        return 0;
}

void batch_norm(py::handle x, py::handle weight, py::handle bias, double eps, bool relu, py::handle y, py::handle statistics,
                py::handle workspace) {
    const Call call(x);
    const View w = call.of_channels(weight, 0), b = call.of_channels(bias, 0), out = call.like_x(y), s = call.of_channels(statistics, 2);
    if (!s.defined() || (call.on_cuda() && workspace.is_none())) refuse();
    const auto context = call.context(workspace);
    const py::gil_scoped_release release;
    if (!call.on_cuda()) return cpu::batch_norm(call.x(), w, b, {eps, relu}, out, s);
    if constexpr (kWithCuda) cuda::batch_norm(call.x(), w, b, {eps, relu}, out, s, context);
}

void batch_norm_apply(py::handle x, py::handle statistics, py::handle weight, py::handle bias, double eps, bool relu, py::handle y) {
    const Call call(x);
    const View w = call.of_channels(weight, 0), b = call.of_channels(bias, 0), out = call.like_x(y), s = call.of_channels(statistics, 2);
    if (!s.defined()) refuse();
    const auto context = call.context(py::none());
    const py::gil_scoped_release release;
    if (!call.on_cuda()) return cpu::batch_norm_apply(call.x(), s, w, b, {eps, relu}, out);
    if constexpr (kWithCuda) cuda::batch_norm_apply(call.x(), s, w, b, {eps, relu}, out, context);
}

void batch_norm_backward(py::handle g, py::handle x, py::handle statistics, py::handle weight, py::handle bias, double eps, bool relu,
                         bool batch, py::handle dx, py::handle sums, py::handle workspace) {
    const Call call(x);
    const View in = call.like_x(g), w = call.of_channels(weight, 0), b = call.of_channels(bias, 0), s = call.of_channels(statistics, 2);
    const View out = call.like_x(dx), totals = call.of_channels(sums, 2);
    if (!s.defined() || !totals.defined() || (call.on_cuda() && workspace.is_none())) refuse();
    const auto context = call.context(workspace);
    const py::gil_scoped_release release;
    if (!call.on_cuda()) return cpu::batch_norm_backward(in, call.x(), s, w, b, {eps, relu}, batch, out, totals);
    if constexpr (kWithCuda) cuda::batch_norm_backward(in, call.x(), s, w, b, {eps, relu}, batch, out, totals, context);
}

}  // namespace

void bind_batch_norm(py::module_& m) {
    m.def("batch_norm_workspace", &batch_norm_workspace, py::arg("x"), "Bytes of a workspace on the device of x.");
    m.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"), py::arg("relu"), py::arg("y"),
          py::arg("statistics"), py::arg("workspace") = py::none(), "Normalises channels; statistics are their mean and variance.");
    m.def("batch_norm_apply", &batch_norm_apply, py::arg("x"), py::arg("statistics"), py::arg("weight"), py::arg("bias"), py::arg("eps"),
          py::arg("relu"), py::arg("y"), "The same with given statistics.");
    m.def("batch_norm_backward", &batch_norm_backward, py::arg("g"), py::arg("x"), py::arg("statistics"), py::arg("weight"),
          py::arg("bias"), py::arg("eps"), py::arg("relu"), py::arg("batch"), py::arg("dx"), py::arg("sums"),
          py::arg("workspace") = py::none(), "Gradients of x and, in sums, of bias and weight; batch: the statistics are those of x.");
}

}  // namespace isotypic
