#include "cuda/transvectants.cu"
#include "cuda/emulation/module.hpp"
#include "ops/transvectants_plan.cpp"

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

PYBIND11_MODULE(emulated_transvectants, m) {
    py::class_<Plan>(m, "Plan").def(
        py::init<const std::vector<int>&, const std::vector<int>&, const std::vector<int>&, const std::vector<double>&>());
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
