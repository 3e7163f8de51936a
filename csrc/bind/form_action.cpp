#include "ops/form_action.hpp"

#include "bind/call.hpp"

namespace isotypic {
namespace {

void form_action(py::handle p, py::handle g, py::handle y) {
    Call call("form_action");
    const View in = call.tensor(p, "p", {'N', 'D'}), maps = call.tensor(g, "g", {'N', 2, 2}), out = call.tensor(y, "y", {'N', 'D'});
    call.require(call.size('D') > 0, "p must have shape (N, d+1)");
    call.run([&] { cpu::form_action(in, maps, out); }, [&](void* stream) { cuda::form_action(in, maps, out, stream); });
}

void form_action_adjoint(py::handle z, py::handle g, py::handle p) {
    Call call("form_action_adjoint");
    const View in = call.tensor(z, "z", {'N', 'D'}), maps = call.tensor(g, "g", {'N', 2, 2}), out = call.tensor(p, "p", {'N', 'D'});
    call.require(call.size('D') > 0, "z must have shape (N, d+1)");
    call.run([&] { cpu::form_action_adjoint(in, maps, out); }, [&](void* stream) { cuda::form_action_adjoint(in, maps, out, stream); });
}

void form_action_matrix(py::handle p, py::handle g, py::handle z, py::handle r) {
    Call call("form_action_matrix");
    const View in = call.tensor(p, "p", {'N', 'D'}), maps = call.tensor(g, "g", {'N', 2, 2}), weights = call.tensor(z, "z", {'N', 'D'});
    const View out = call.tensor(r, "r", {'N', 2, 2});
    call.require(call.size('D') > 0, "p must have shape (N, d+1)");
    call.run([&] { cpu::form_action_matrix(in, maps, weights, out); },
             [&](void* stream) { cuda::form_action_matrix(in, maps, weights, out, stream); });
}

}  // namespace

void bind_form_action(py::module_& m) {
    m.def("form_action", &form_action, py::arg("p"), py::arg("g"), py::arg("y"), "y(x, y) = p(a x + b y, c x + e y), form by form");
    m.def("form_action_adjoint", &form_action_adjoint, py::arg("z"), py::arg("g"), py::arg("p"), "the adjoint of form_action in p");
    m.def("form_action_matrix", &form_action_matrix, py::arg("p"), py::arg("g"), py::arg("z"), py::arg("r"),
          "the adjoint of form_action in g");
}

}  // namespace isotypic
