#include "ops/form_action.hpp"

#include <array>
#include <optional>

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

bool is_form(const View& view, const View& like) {
    return view.ndim == 2 && view.sizes[1] > 0 && view.sizes[0] == like.sizes[0] && view.sizes[1] == like.sizes[1];
}
bool is_matrix(const View& view, const View& forms) {
    return view.ndim == 3 && view.sizes[0] == forms.sizes[0] && view.sizes[1] == 2 && view.sizes[2] == 2;
}

// call(views, stream) with the tensors, of which the first is a form (N, d+1), on one device; a null stream is the CPU's.
template <size_t Count, class Fits, class Host, class Device>
void run(const char* what, const std::array<py::handle, Count>& handles, const Fits& fits, const Host& host, const Device& device) {
    std::array<std::optional<Tensor>, Count> tensors;
    bool right = true;
    for (size_t i = 0; i < Count; ++i) {
        tensors[i] = to_tensor(handles[i]);
        const Tensor &tensor = *tensors[i], &first = *tensors[0];
        right = right && tensor.view.dtype == first.view.dtype && itemsize(tensor.view.dtype) >= 4 && is_contiguous(tensor.view) &&
                tensor.on_cuda == first.on_cuda && tensor.device == first.device;
    }
    std::array<View, Count> views;
    for (size_t i = 0; i < Count; ++i) views[i] = tensors[i]->view;
    if (!right || !fits(views)) throw py::value_error(what);
    void* stream = nullptr;
    if (tensors[0]->on_cuda) {
        if (!kWithCuda)
            throw std::runtime_error("form_action: this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
        stream = current_stream(handles[0], tensors[0]->device);
    }
    const py::gil_scoped_release release;
    if (!tensors[0]->on_cuda) return host(views);
    if constexpr (kWithCuda) device(views, stream);
}

void form_action(py::handle p, py::handle g, py::handle y) {
    run<3>(
        "form_action kernel: p and y (N, d+1) and g (N, 2, 2) must be contiguous, float32 or float64, on one device", {p, g, y},
        [](const auto& v) { return is_form(v[0], v[0]) && is_matrix(v[1], v[0]) && is_form(v[2], v[0]); },
        [](const auto& v) { cpu::form_action(v[0], v[1], v[2]); },
        [](const auto& v, void* stream) {
            if constexpr (kWithCuda) cuda::form_action(v[0], v[1], v[2], stream);
        });
}

void form_action_adjoint(py::handle z, py::handle g, py::handle p) {
    run<3>(
        "form_action_adjoint kernel: z and p (N, d+1) and g (N, 2, 2) must be contiguous, float32 or float64, on one device", {z, g, p},
        [](const auto& v) { return is_form(v[0], v[0]) && is_matrix(v[1], v[0]) && is_form(v[2], v[0]); },
        [](const auto& v) { cpu::form_action_adjoint(v[0], v[1], v[2]); },
        [](const auto& v, void* stream) {
            if constexpr (kWithCuda) cuda::form_action_adjoint(v[0], v[1], v[2], stream);
        });
}

void form_action_matrix(py::handle p, py::handle g, py::handle z, py::handle r) {
    run<4>(
        "form_action_matrix kernel: p and z (N, d+1) and g and r (N, 2, 2) must be contiguous, float32 or float64, on one device",
        {p, g, z, r},
        [](const auto& v) { return is_form(v[0], v[0]) && is_matrix(v[1], v[0]) && is_form(v[2], v[0]) && is_matrix(v[3], v[0]); },
        [](const auto& v) { cpu::form_action_matrix(v[0], v[1], v[2], v[3]); },
        [](const auto& v, void* stream) {
            if constexpr (kWithCuda) cuda::form_action_matrix(v[0], v[1], v[2], v[3], stream);
        });
}

}  // namespace

void bind_form_action(py::module_& m) {
    m.def("form_action", &form_action, py::arg("p"), py::arg("g"), py::arg("y"), "y(x, y) = p(a x + b y, c x + e y), form by form");
    m.def("form_action_adjoint", &form_action_adjoint, py::arg("z"), py::arg("g"), py::arg("p"), "the adjoint of form_action in p");
    m.def("form_action_matrix", &form_action_matrix, py::arg("p"), py::arg("g"), py::arg("z"), py::arg("r"),
          "the adjoint of form_action in g");
}

}  // namespace isotypic
