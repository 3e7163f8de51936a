#include "ops/transvectants.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bind/call.hpp"

namespace isotypic {
namespace {

// The tensors of a call. f and h are (B, C, F), weight (C, P, O), y and z (B, O, G); the shapes follow from the plan.
struct Product {
    const TransvectantsPlan& plan;
    Call call;

    Product(const char* name, const TransvectantsPlan& plan) : plan(plan), call(name) {}
    View feature(py::handle handle, const char* name) { return call.tensor(handle, name, {'B', 'C', plan.in_size}); }
    View weight(py::handle handle) { return call.tensor(handle, "weight", {'C', plan.paths, 'O'}); }
    View result(py::handle handle, const char* name) { return call.tensor(handle, name, {'B', 'O', plan.out_size}); }
    const void* tables(py::handle handle) const { return call.buffer(handle, "tables").data; }
};

void forward(const TransvectantsPlan& plan, py::handle f, py::handle weight, py::handle y, py::handle tables) {
    Product product("transvectants", plan);
    const View in = product.feature(f, "f"), mix = product.weight(weight), out = product.result(y, "y");
    const void* constants = product.tables(tables);
    product.call.run([&] { cpu::transvectants(plan, in, View{}, mix, out); },
                     [&](void* stream) { cuda::transvectants(plan, in, View{}, mix, out, constants, stream); });
}

void polar(const TransvectantsPlan& plan, py::handle f, py::handle h, py::handle weight, py::handle y, py::handle tables) {
    Product product("transvectants_polar", plan);
    const View in = product.feature(f, "f"), other = product.feature(h, "h"), mix = product.weight(weight), out = product.result(y, "y");
    const void* constants = product.tables(tables);
    product.call.run([&] { cpu::transvectants(plan, in, other, mix, out); },
                     [&](void* stream) { cuda::transvectants(plan, in, other, mix, out, constants, stream); });
}

void input(const TransvectantsPlan& plan, py::handle f, py::handle weight, py::handle z, py::handle x, py::handle tables) {
    Product product("transvectants_input", plan);
    const View in = product.feature(f, "f"), mix = product.weight(weight), given = product.result(z, "z"), out = product.feature(x, "x");
    const void* constants = product.tables(tables);
    product.call.run([&] { cpu::transvectants_input(plan, in, mix, given, out); },
                     [&](void* stream) { cuda::transvectants_input(plan, in, mix, given, out, constants, stream); });
}

void weight_gradient(const TransvectantsPlan& plan, py::handle f, py::handle z, py::handle weight, py::handle tables) {
    Product product("transvectants_weight", plan);
    const View in = product.feature(f, "f"), given = product.result(z, "z"), out = product.weight(weight);
    const void* constants = product.tables(tables);
    product.call.run([&] { cpu::transvectants_weight(plan, in, View{}, given, out); },
                     [&](void* stream) { cuda::transvectants_weight(plan, in, View{}, given, out, constants, stream); });
}

void polar_weight_gradient(const TransvectantsPlan& plan, py::handle f, py::handle h, py::handle z, py::handle weight, py::handle tables) {
    Product product("transvectants_weight_polar", plan);
    const View in = product.feature(f, "f"), other = product.feature(h, "h"), given = product.result(z, "z"), out = product.weight(weight);
    const void* constants = product.tables(tables);
    product.call.run([&] { cpu::transvectants_weight(plan, in, other, given, out); },
                     [&](void* stream) { cuda::transvectants_weight(plan, in, other, given, out, constants, stream); });
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
    const py::arg_v tables_argument = py::arg("tables") = py::none();
    m.def("transvectants", &forward, py::arg("plan"), py::arg("f"), py::arg("weight"), py::arg("y"), tables_argument, "y = Q(f, weight)");
    m.def("transvectants_polar", &polar, py::arg("plan"), py::arg("f"), py::arg("h"), py::arg("weight"), py::arg("y"), tables_argument,
          "y = P(f, h, weight)");
    m.def("transvectants_input", &input, py::arg("plan"), py::arg("f"), py::arg("weight"), py::arg("z"), py::arg("x"), tables_argument,
          "adjoint of h -> P(f, h, weight)");
    m.def("transvectants_weight", &weight_gradient, py::arg("plan"), py::arg("f"), py::arg("z"), py::arg("weight"), tables_argument,
          "adjoint of Q in weight");
    m.def("transvectants_weight_polar", &polar_weight_gradient, py::arg("plan"), py::arg("f"), py::arg("h"), py::arg("z"),
          py::arg("weight"), tables_argument, "adjoint of P in weight");
    m.def("transvectants_tables", &tables, py::arg("plan"), "The plan as the CUDA kernels read it, once copied to the device.");
}

}  // namespace isotypic
