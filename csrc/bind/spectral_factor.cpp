#include "ops/spectral_factor.hpp"

#include <string>

#include "bind/call.hpp"

namespace isotypic {
namespace {

void require_double(const Call& call, const char* name) {
    call.require(call.dtype() == DType::float64, (std::string(name) + " must be float64").c_str());
}

void factor(py::handle r, py::handle h, py::handle error) {
    Call call("spectral_factor");
    const View in = call.tensor(r, "r", {'B', 'n'}), out = call.tensor(h, "h", {'B', 'n'}), residual = call.tensor(error, "error", {'B'});
    require_double(call, "r");
    call.require(call.size('n') >= 1, "r must not be empty");
    call.run([&] { cpu::spectral_factor(in, out, residual); });
}

void solve(py::handle h, py::handle b, bool transposed, py::handle x) {
    Call call("spectral_solve");
    const View factors = call.tensor(h, "h", {'B', 'n'}), right = call.tensor(b, "b", {'B', 'n'}), out = call.tensor(x, "x", {'B', 'n'});
    require_double(call, "h");
    call.require(call.size('n') >= 1, "h must not be empty");
    call.run([&] { cpu::spectral_solve(factors, right, transposed, out); });
}

}  // namespace

void bind_spectral_factor(py::module_& m) {
    m.def("spectral_factor", &factor, py::arg("r"), py::arg("h"), py::arg("error"), "Minimum-phase factors of rows with r_0 = 1.");
    m.def("spectral_solve", &solve, py::arg("h"), py::arg("b"), py::arg("transposed"), py::arg("x"), "A(h)^-1 b, or its transpose.");
}

}  // namespace isotypic
