#include "ops/form_action.hpp"

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

void form_action(py::handle p, py::handle g, py::handle y) {
    const Tensor forms = to_tensor(p), matrices = to_tensor(g), out = to_tensor(y);
    bool fits =
        forms.view.ndim == 2 && out.view.ndim == 2 && matrices.view.ndim == 3 && matrices.view.sizes[1] == 2 && matrices.view.sizes[2] == 2;
    fits = fits && matrices.view.sizes[0] == forms.view.sizes[0] && forms.view.sizes[1] > 0;
    for (int i = 0; fits && i < 2; ++i) fits = forms.view.sizes[i] == out.view.sizes[i];
    for (const Tensor* tensor : {&forms, &matrices, &out})
        fits = fits && tensor->view.dtype == forms.view.dtype && itemsize(tensor->view.dtype) >= 4 && is_contiguous(tensor->view) &&
               tensor->on_cuda == forms.on_cuda && tensor->device == forms.device;
    if (!fits)
        throw py::value_error("form_action kernel: p and y (N, d+1) and g (N, 2, 2) must be contiguous, float32 or float64, on one device");
    void* stream = nullptr;
    if (forms.on_cuda) {
        if (!kWithCuda)
            throw std::runtime_error("form_action: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        stream = current_stream(p, forms.device);
    }
    const py::gil_scoped_release release;
    if (!forms.on_cuda) return cpu::form_action(forms.view, matrices.view, out.view);
    if constexpr (kWithCuda) cuda::form_action(forms.view, matrices.view, out.view, stream);
}

}  // namespace

void bind_form_action(py::module_& m) {
    m.def("form_action", &form_action, py::arg("p"), py::arg("g"), py::arg("y"), "y(x, y) = p(a x + b y, c x + e y), form by form");
}

}  // namespace isotypic
