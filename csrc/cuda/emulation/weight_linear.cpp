// Operators on weight spaces.
#include "cuda/emulation/module.hpp"

#include <array>
#include <string>

#include "bind/weight_linear_plan.hpp"
#include "cuda/weight_linear.cu"

namespace isotypic {
using namespace emulation;
namespace {

struct Plan {
    WeightPlan plan;
    Plan(const std::vector<int64_t>& widths, const std::vector<std::array<int64_t, 14>>& layers,
         const std::vector<std::array<int64_t, 5>>& nodes, const std::array<int64_t, 7>& counts)
        : plan(make_plan(widths, layers, nodes, counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], counts[6])) {}
};

// Calls the operator of this name with the tensors of its signature in order.
void call(const std::string& name, const Plan& p, const std::vector<Tensor>& tensors, uintptr_t sizes_address, bool mean) {
    std::vector<View> v;
    for (const Tensor& tensor : tensors) v.push_back(to_view(tensor));
    const auto* sizes = reinterpret_cast<const int64_t*>(sizes_address);
    const WeightPlan& plan = p.plan;
    const int64_t batch = v.back().ndim == 3 && name != "weight_mix_gradient" ? v.back().sizes[0] : v[0].sizes[0];
    const bool linear = name == "weight_linear" || name == "weight_linear_transpose";
    const cuda::WeightPass pass = linear                             ? cuda::WeightPass::linear
                                  : name == "weight_linear_gradient" ? cuda::WeightPass::gradient
                                  : name == "weight_mix_gradient"    ? cuda::WeightPass::mix_gradient
                                                                     : cuda::WeightPass::scatter;
    const int64_t in = v[0].ndim == 3 ? v[0].sizes[2] : 0, out = linear ? v.back().sizes[2] : v[1].ndim == 3 ? v[1].sizes[2] : in;
    const int64_t bytes = cuda::weight_linear_workspace(plan, pass, batch, in, out, v.back().dtype);
    const Workspace scratch(bytes);
    const cuda::WeightContext context{scratch.data, bytes, nullptr};
    if (name == "weight_pool") cuda::weight_pool(plan, v[0], v[1], sizes, mean, v[2], context);
    if (name == "weight_affine") cuda::weight_affine(plan, v[0], v[1], v[2], v[3], sizes, mean, v[4], context);
    if (name == "weight_linear") cuda::weight_linear(plan, v[0], v[1], v[2], v[3], v[4], sizes, mean, v[5], context);
    if (name == "weight_linear_transpose") cuda::weight_linear_transpose(plan, v[0], v[1], sizes, mean, v[2], context);
    if (name == "weight_linear_gradient") cuda::weight_linear_gradient(plan, v[0], v[1], sizes, mean, v[2], context);
    if (name == "weight_mix_gradient") cuda::weight_mix_gradient(plan, v[0], v[1], sizes, v[2], context);
    if (name == "weight_basis_gradient") cuda::weight_basis_gradient(plan, v[0], v[1], sizes, mean, v[2], context);
    if (name == "weight_select") cuda::weight_select(plan, v[0], v[1], sizes, v[2], context);
    if (name == "weight_scatter") cuda::weight_scatter(plan, v[0], v[1], sizes, v[2], context);
    scratch.check();
}

}  // namespace

PYBIND11_MODULE(emulated_weight_linear, m) {
    py::class_<Plan>(m, "Plan", py::module_local())
        .def(py::init<const std::vector<int64_t>&, const std::vector<std::array<int64_t, 14>>&, const std::vector<std::array<int64_t, 5>>&,
                      const std::array<int64_t, 7>&>());
    m.def("call", &call, py::arg("name"), py::arg("plan"), py::arg("tensors"), py::arg("sizes"), py::arg("mean"));
    define_configure(m);
}

}  // namespace isotypic
