// The CUDA kernels on binary forms run on the host, as the Python module _cuda_emulation_forms that tests/cuda/test_emulation_forms.py
// compiles:
//     g++ -std=c++17 -O1 -DISOTYPIC_EMULATE -shared -fPIC ... csrc/cuda/emulation_forms.cpp
#if !defined(ISOTYPIC_EMULATE)
#error "compile with -DISOTYPIC_EMULATE"
#endif

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "core/transvectants_plan.cpp"
#include "cuda/form_action.cu"
#include "cuda/transvectants.cu"

namespace py = pybind11;

namespace isotypic {
namespace {

// A contiguous tensor as (address, is float64, sizes).
using Tensor = std::tuple<uintptr_t, bool, std::vector<int64_t>>;

View to_view(const Tensor& tensor) {
    View view;
    view.data = reinterpret_cast<void*>(std::get<0>(tensor));
    view.dtype = std::get<1>(tensor) ? DType::float64 : DType::float32;
    view.ndim = static_cast<int>(std::get<2>(tensor).size());
    std::copy(std::get<2>(tensor).begin(), std::get<2>(tensor).end(), view.sizes);
    return view;
}

struct Plan {
    TransvectantsPlan plan;
    std::vector<std::byte> tables;
    Plan(const std::vector<int>& degrees, const std::vector<int>& degrees_out, const std::vector<int>& paths,
         const std::vector<double>& values)
        : plan(degrees, degrees_out, paths, values), tables(cuda::transvectants_tables(plan)) {}
};

View optional_view(const std::optional<Tensor>& tensor) {
    return tensor ? to_view(*tensor) : View{};
}

}  // namespace

PYBIND11_MODULE(_cuda_emulation_forms, m) {
    py::class_<Plan>(m, "Plan").def(
        py::init<const std::vector<int>&, const std::vector<int>&, const std::vector<int>&, const std::vector<double>&>());
    m.def("form_action",
          [](const Tensor& p, const Tensor& g, const Tensor& y) { cuda::form_action(to_view(p), to_view(g), to_view(y), nullptr); });
    m.def("form_action_adjoint", [](const Tensor& z, const Tensor& g, const Tensor& p) {
        cuda::form_action_adjoint(to_view(z), to_view(g), to_view(p), nullptr);
    });
    m.def("form_action_matrix", [](const Tensor& p, const Tensor& g, const Tensor& z, const Tensor& r) {
        cuda::form_action_matrix(to_view(p), to_view(g), to_view(z), to_view(r), nullptr);
    });
    m.def("transvectants", [](const Plan& plan, const Tensor& f, const std::optional<Tensor>& h, const Tensor& weight, const Tensor& y) {
        cuda::transvectants(plan.plan, to_view(f), optional_view(h), to_view(weight), to_view(y), plan.tables.data(), nullptr);
    });
    m.def("transvectants_input", [](const Plan& plan, const Tensor& f, const Tensor& weight, const Tensor& z, const Tensor& x) {
        cuda::transvectants_input(plan.plan, to_view(f), to_view(weight), to_view(z), to_view(x), plan.tables.data(), nullptr);
    });
    m.def("transvectants_weight",
          [](const Plan& plan, const Tensor& f, const std::optional<Tensor>& h, const Tensor& z, const Tensor& weight) {
              cuda::transvectants_weight(plan.plan, to_view(f), optional_view(h), to_view(z), to_view(weight), plan.tables.data(), nullptr);
          });
    m.def("configure", [](bool reverse) { emulation::machine().reverse = reverse; }, py::arg("reverse"), "Order of the threads.");
}

}  // namespace isotypic
