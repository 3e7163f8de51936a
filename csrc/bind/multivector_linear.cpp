#include "ops/multivector_linear.hpp"

#include "bind/call.hpp"
#include "core/algebra.hpp"

namespace isotypic {
namespace {

struct Arguments {
    View x, weight, y;
    int maps;
};

Arguments arguments(Call& call, py::handle x, py::handle weight, py::handle y, const std::string& algebra) {
    const int maps = linear_maps_index(algebra.c_str());
    call.require(maps >= 0, "there is no algebra of this name");
    const View in = call.tensor(x, "x", {'N', 'C', 16}), out = call.tensor(y, "y", {'N', 'O', 16});
    const View weights = call.tensor(weight, "weight", {'O', 'C', 'K'});
    call.require(weights.sizes[2] == 5 || weights.sizes[2] == algebra::kLinearMaps[maps].maps, "weight must have all maps or five");
    return {in, weights, out, maps};
}

View shift_of(Call& call, py::handle shift, Shape shape) {
    const View added = call.optional(shift, "shift", shape);
    call.require(!added.defined() || (added.sizes[2] >= 1 && added.sizes[2] <= 2), "shift must have one scalar or two");
    return added;
}

void multivector_linear(py::handle x, py::handle weight, py::handle shift, py::handle y, const std::string& algebra) {
    Call call("multivector_linear");
    const Arguments a = arguments(call, x, weight, y, algebra);
    const View added = shift_of(call, shift, {'N', 'O', 'S'});
    call.run([&] { cpu::multivector_linear(a.maps, a.x, a.weight, added, a.y); },
             [&](void* stream) { cuda::multivector_linear(a.maps, a.x, a.weight, added, a.y, stream); });
}

void multivector_linear_transpose(py::handle y, py::handle weight, py::handle shift, py::handle x, const std::string& algebra) {
    Call call("multivector_linear_transpose");
    const Arguments a = arguments(call, x, weight, y, algebra);
    const View added = shift_of(call, shift, {'N', 'C', 'S'});
    call.run([&] { cpu::multivector_linear_transpose(a.maps, a.y, a.weight, added, a.x); },
             [&](void* stream) { cuda::multivector_linear_transpose(a.maps, a.y, a.weight, added, a.x, stream); });
}

void multivector_linear_weight(py::handle x, py::handle y, py::handle weight, py::handle workspace, const std::string& algebra) {
    Call call("multivector_linear_weight");
    const Arguments a = arguments(call, x, weight, y, algebra);
    const View space = call.optional(workspace, "workspace", {cuda::kWeightParts, 'O', 'C', 32});
    call.require(!call.on_cuda() || space.defined(), "a CUDA call needs a workspace");
    call.run([&] { cpu::multivector_linear_weight(a.maps, a.x, a.y, a.weight); },
             [&](void* stream) { cuda::multivector_linear_weight(a.maps, a.x, a.y, a.weight, space, stream); });
}

}  // namespace

void bind_multivector_linear(py::module_& m) {
    m.def("multivector_linear", &multivector_linear, py::arg("x"), py::arg("weight"), py::arg("shift"), py::arg("y"), py::arg("algebra"),
          "y = equivariant linear maps of x");
    m.def("multivector_linear_transpose", &multivector_linear_transpose, py::arg("y"), py::arg("weight"), py::arg("shift"), py::arg("x"),
          py::arg("algebra"), "the adjoint of multivector_linear in x, plus what the gradients of scalars add");
    m.def("multivector_linear_weight", &multivector_linear_weight, py::arg("x"), py::arg("y"), py::arg("weight"), py::arg("workspace"),
          py::arg("algebra"), "the adjoint of multivector_linear in the weight; CUDA tensors need a workspace (64, O, C, 32)");
}

}  // namespace isotypic
