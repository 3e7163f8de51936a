#include "ops/transvectants.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bind/bind.hpp"
#include "bind/tensor.hpp"

namespace isotypic {
namespace {

[[noreturn]] void refuse_cuda(const char* name) {
    throw std::runtime_error(std::string(name) + ": this build of isotypic has no CUDA kernels; it is built with them where nvcc is found");
}

struct Arguments {
    View f, h, weight, y;
    bool on_cuda = false;
    const void* tables = nullptr;
    void* stream = nullptr;
};

// f (and h) are (B, C, F), weight (C, P, O), y (B, O, G).
Arguments check(const char* name, const TransvectantsPlan& plan, py::handle f, py::handle h, py::handle weight, py::handle y,
                py::handle tables) {
    const Tensor first = to_tensor(f), mix = to_tensor(weight), out = to_tensor(y);
    auto fits = [&](const Tensor& t, int64_t a, int64_t b, int64_t c) {
        return t.view.ndim == 3 && t.view.sizes[0] == a && t.view.sizes[1] == b && t.view.sizes[2] == c && is_contiguous(t.view) &&
               t.view.dtype == first.view.dtype && itemsize(t.view.dtype) >= 4 && t.on_cuda == first.on_cuda && t.device == first.device;
    };
    const int64_t batch = first.view.sizes[0], channels = first.view.sizes[1], out_channels = out.view.sizes[1];
    bool right = fits(first, batch, channels, plan.in_size) && fits(mix, channels, plan.paths, out_channels) &&
                 fits(out, batch, out_channels, plan.out_size);
    Arguments a{first.view, View{}, mix.view, out.view};
    if (!h.is_none()) {
        const Tensor second = to_tensor(h);
        right = right && fits(second, batch, channels, plan.in_size);
        a.h = second.view;
    }
    if (!right)
        throw py::value_error(std::string(name) +
                              " kernel: features (B, C, F), weight (C, P, O) and result (B, O, G) must fit the plan and be contiguous, "
                              "float32 or float64, on one device");
    a.on_cuda = first.on_cuda;
    if (a.on_cuda) {
        if (!kWithCuda) refuse_cuda(name);
        a.tables = to_buffer(tables, first.device, "tables").data;
        a.stream = current_stream(f, first.device);
    }
    return a;
}

void forward(const TransvectantsPlan& plan, py::handle f, py::handle h, py::handle weight, py::handle y, py::handle tables) {
    const Arguments a = check("transvectants", plan, f, h, weight, y, tables);
    const py::gil_scoped_release release;
    if (!a.on_cuda) return cpu::transvectants(plan, a.f, a.h, a.weight, a.y);
    if constexpr (kWithCuda) cuda::transvectants(plan, a.f, a.h, a.weight, a.y, a.tables, a.stream);
}

void input(const TransvectantsPlan& plan, py::handle f, py::handle weight, py::handle z, py::handle x, py::handle tables) {
    const Arguments a = check("transvectants_input", plan, f, x, weight, z, tables);
    const py::gil_scoped_release release;
    if (!a.on_cuda) return cpu::transvectants_input(plan, a.f, a.weight, a.y, a.h);
    if constexpr (kWithCuda) cuda::transvectants_input(plan, a.f, a.weight, a.y, a.h, a.tables, a.stream);
}

void weight_gradient(const TransvectantsPlan& plan, py::handle f, py::handle h, py::handle z, py::handle weight, py::handle tables) {
    const Arguments a = check("transvectants_weight", plan, f, h, weight, z, tables);
    const py::gil_scoped_release release;
    if (!a.on_cuda) return cpu::transvectants_weight(plan, a.f, a.h, a.y, a.weight);
    if constexpr (kWithCuda) cuda::transvectants_weight(plan, a.f, a.h, a.y, a.weight, a.tables, a.stream);
}

py::array_t<uint8_t> tables(const TransvectantsPlan& plan) {
    if constexpr (kWithCuda) {
        const std::vector<std::byte> bytes = cuda::transvectants_tables(plan);
        return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes.size()), reinterpret_cast<const uint8_t*>(bytes.data()));
    }
    refuse_cuda("transvectants_tables");
}

}  // namespace

void bind_transvectants(py::module_& m) {
    py::class_<TransvectantsPlan, std::shared_ptr<TransvectantsPlan>>(m, "TransvectantsPlan",
                                                                      "The tables of the transvectants of a list of paths.")
        .def(py::init<const std::vector<int>&, const std::vector<int>&, const std::vector<int>&, const std::vector<double>&>(),
             py::arg("degrees"), py::arg("degrees_out"), py::arg("paths"), py::arg("tables"));
    m.def("transvectants", &forward, py::arg("plan"), py::arg("f"), py::arg("h"), py::arg("weight"), py::arg("y"),
          py::arg("tables") = py::none(), "y = Q(f, weight), or its polarisation P(f, h, weight)");
    m.def("transvectants_input", &input, py::arg("plan"), py::arg("f"), py::arg("weight"), py::arg("z"), py::arg("x"),
          py::arg("tables") = py::none(), "adjoint of h -> P(f, h, weight)");
    m.def("transvectants_weight", &weight_gradient, py::arg("plan"), py::arg("f"), py::arg("h"), py::arg("z"), py::arg("weight"),
          py::arg("tables") = py::none(), "adjoint in weight");
    m.def("transvectants_tables", &tables, py::arg("plan"), "The plan as the CUDA kernels read it, once copied to the device.");
}

}  // namespace isotypic
