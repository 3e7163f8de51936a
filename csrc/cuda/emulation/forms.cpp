// Operators on binary forms.
#include "core/transvectants_plan.cpp"
#include "cuda/emulation/module.hpp"
#include "cuda/form_action.cu"
#include "cuda/transvectants.cu"

namespace isotypic {
using namespace emulation;
namespace {

struct Plan {
    TransvectantsPlan plan;
    std::vector<std::byte> tables;
    Plan(const std::vector<int>& degrees, const std::vector<int>& degrees_out, const std::vector<int>& paths,
         const std::vector<double>& values)
        : plan(degrees, degrees_out, paths, values), tables(cuda::transvectants_tables(plan)) {}
};

}  // namespace

PYBIND11_MODULE(emulated_forms, m) {
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
    m.def("transvectants", [](const Plan& plan, const Tensor& f, const Tensor& h, const Tensor& weight, const Tensor& y) {
        cuda::transvectants(plan.plan, to_view(f), to_view(h), to_view(weight), to_view(y), plan.tables.data(), nullptr);
    });
    m.def("transvectants_input", [](const Plan& plan, const Tensor& f, const Tensor& weight, const Tensor& z, const Tensor& x) {
        cuda::transvectants_input(plan.plan, to_view(f), to_view(weight), to_view(z), to_view(x), plan.tables.data(), nullptr);
    });
    m.def("transvectants_weight", [](const Plan& plan, const Tensor& f, const Tensor& h, const Tensor& z, const Tensor& weight) {
        cuda::transvectants_weight(plan.plan, to_view(f), to_view(h), to_view(z), to_view(weight), plan.tables.data(), nullptr);
    });
    define_configure(m);
}

}  // namespace isotypic
