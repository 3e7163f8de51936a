#include "ops/multivector_scale.hpp"

#include <pybind11/stl.h>

#include <array>

#include "bind/call.hpp"

namespace isotypic {
namespace {

void gate(py::handle x, py::handle factor, py::handle y) {
    Call call("multivector_gate");
    const View in = call.tensor(x, "x", {'M', 16}), factors = call.tensor(factor, "factor", {'M'}), out = call.tensor(y, "y", {'M', 16});
    call.run([&] { cpu::multivector_gate(in, factors, out); }, [&](void* stream) { cuda::multivector_gate(in, factors, out, stream); });
}

void gate_backward(py::handle g, py::handle x, py::handle factor, py::handle slope, py::handle dx) {
    Call call("multivector_gate_backward");
    const View incoming = call.tensor(g, "g", {'M', 16}), in = call.tensor(x, "x", {'M', 16});
    const View factors = call.tensor(factor, "factor", {'M'}), slopes = call.tensor(slope, "slope", {'M'});
    const View out = call.tensor(dx, "dx", {'M', 16});
    call.run([&] { cpu::multivector_gate_backward(incoming, in, factors, slopes, out); },
             [&](void* stream) { cuda::multivector_gate_backward(incoming, in, factors, slopes, out, stream); });
}

MultivectorInner inner_of(const std::array<double, 16>& signs) {
    MultivectorInner inner;
    for (size_t i = 0; i < 16; ++i) inner.of[i] = signs[i], inner.definite = inner.definite && signs[i] >= 0;
    return inner;
}

void norm(py::handle x, py::handle weight, py::handle y, const std::array<double, 16>& signs, double epsilon) {
    Call call("multivector_norm");
    const View in = call.tensor(x, "x", {'N', 'C', 16}), weights = call.optional(weight, "weight", {'C', 5});
    const View out = call.tensor(y, "y", {'N', 'C', 16});
    call.run([&] { cpu::multivector_norm(inner_of(signs), epsilon, in, weights, out); },
             [&](void* stream) { cuda::multivector_norm(inner_of(signs), epsilon, in, weights, out, stream); });
}

void norm_backward(py::handle g, py::handle x, py::handle weight, py::handle dx, py::handle dweight, py::handle workspace,
                   const std::array<double, 16>& signs, double epsilon) {
    Call call("multivector_norm_backward");
    const View incoming = call.tensor(g, "g", {'N', 'C', 16}), in = call.tensor(x, "x", {'N', 'C', 16});
    const View weights = call.optional(weight, "weight", {'C', 5}), out = call.tensor(dx, "dx", {'N', 'C', 16});
    const View of_weights = call.optional(dweight, "dweight", {'C', 5});
    call.require(weights.defined() == of_weights.defined(), "weight and dweight must both be given or neither");
    const View space = call.optional(workspace, "workspace", {'W'});
    const int64_t needed = in.sizes[0] + cuda::kNormParts * in.sizes[1] * 16;
    call.require(!call.on_cuda() || !weights.defined() || (space.defined() && space.sizes[0] >= needed),
                 "the gradient of a weight needs a workspace on CUDA");
    call.run([&] { cpu::multivector_norm_backward(inner_of(signs), epsilon, incoming, in, weights, out, of_weights); },
             [&](void* stream) {
                 cuda::multivector_norm_backward(inner_of(signs), epsilon, incoming, in, weights, out, of_weights, space, stream);
             });
}

}  // namespace

void bind_multivector_scale(py::module_& m) {
    m.def("multivector_gate", &gate, py::arg("x"), py::arg("factor"), py::arg("y"), "y = factor x, multivector by multivector");
    m.def("multivector_gate_backward", &gate_backward, py::arg("g"), py::arg("x"), py::arg("factor"), py::arg("slope"), py::arg("dx"),
          "the gradient of x where factor is a function of its scalar component with derivative slope");
    m.def("multivector_norm", &norm, py::arg("x"), py::arg("weight"), py::arg("y"), py::arg("signs"), py::arg("epsilon"),
          "y = x / norm over channels, times a weight for each grade");
    m.def("multivector_norm_backward", &norm_backward, py::arg("g"), py::arg("x"), py::arg("weight"), py::arg("dx"), py::arg("dweight"),
          py::arg("workspace"), py::arg("signs"), py::arg("epsilon"),
          "the gradients of multivector_norm; with weights CUDA tensors need a workspace of N + 64 * 16 C numbers");
}

}  // namespace isotypic
